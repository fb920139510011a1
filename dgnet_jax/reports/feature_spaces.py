"""Feature spaces in which sets of images are compared, and Frechet distances in them."""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import functools
import hashlib
import logging
import pathlib
from typing import Any, Protocol

import jax
import numpy as np

from dgnet_jax.config import loading
from dgnet_jax.data.image_sets import ImageSet
from dgnet_jax.data.lazy_images import BilinearImageFiles, ImageFiles, ImageSequence
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance
from dgnet_jax.inference.batching import BatchedFunction
from dgnet_jax.inference.loading import load_predictor, load_teacher_predictor
from dgnet_jax.interop.inception import load_inception
from dgnet_jax.models.inception import IMAGE_SIZE, inception_features
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.teacher_store import without_teacher

logger = logging.getLogger(__name__)

EMBEDDINGS = ('teacher', 'dgnet')


class _Reader(Protocol):
  def __call__(self, paths: Sequence[str], /) -> ImageSequence: ...


class _FeatureFunction(Protocol):
  def __call__(self, images: ImageSequence, /, *, label: str) -> Iterator[np.ndarray]: ...


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
  """A network that maps images to feature vectors.

  Attributes:
    title: name of a distance in this space.
    source: where the weights come from.
    resizing: how images are resized.
    read: reads image files at the network's input size.
    features: yields f[n, D] of such images batch by batch; `label` names the work in progress lines.
  """

  title: str
  source: str
  resizing: str
  read: _Reader
  features: _FeatureFunction

  def gaussian(self, images: ImageSet) -> Gaussian:
    """Computes the mean and covariance of the features of at least two images, in bounded memory.

    Raises:
      UserError: features are not finite.
    """
    label = f'{self.title}: features of {images.title}'
    running: RunningGaussian | None = None
    for features in self.features(self.read(images.paths), label=label):
      running = running or RunningGaussian(features.shape[1])
      try:
        running.add(features)
      except ValueError as error:
        raise UserError(f'{label}: {error}; {self.source} may be damaged') from error
    if running is None:
      raise ValueError(f'{label}: no images')
    return running.gaussian()


def inception_space(path: str | pathlib.Path, batch_size: int) -> FeatureSpace:
  """Returns the feature space of FID: Inception-v3's 2048 pooled features, with images resized as in pytorch-fid.

  Args:
    path: file of the weights (`interop.inception`).
    batch_size: images per call of the network.

  Raises:
    UserError: the weights are missing or damaged, or they are not Inception's.
  """
  mesh = make_mesh(jax.local_devices())
  variables = jax.device_put(load_inception(path), replicated(mesh))
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  function = functools.partial(inception_features, variables)
  return FeatureSpace(
    title='FID (Frechet distance in the pool3 features of Inception-v3)',
    source=f'{path}, sha256 {digest[:8]}',
    resizing=f'from their original size to {IMAGE_SIZE}x{IMAGE_SIZE}, bilinear, not antialiased',
    read=functools.partial(BilinearImageFiles, image_size_hw=(IMAGE_SIZE, IMAGE_SIZE)),
    features=BatchedFunction(function, batch_size=batch_size, mesh=mesh).batches,
  )


def run_spaces(workdir: str | pathlib.Path, names: Sequence[str], batch_size: int) -> dict[str, FeatureSpace]:
  """Returns the embeddings of a trained run as feature spaces, averaged over both mirror views as for ranking.

  Args:
    workdir: the run's work folder.
    names: some of `EMBEDDINGS`. The teacher has never seen a generated image; dgnet was trained together with the
      generator and so judges its own work.
    batch_size: images per call of the network.

  Raises:
    UserError: there is no such run, or its checkpoint or teacher is missing or damaged.
  """
  path = pathlib.Path(workdir) / loading.SAVED_CONFIG
  if not path.is_file():
    raise UserError(f'{workdir}: not the work folder of a run ({path.name} is missing)')
  config = loading.load_config(path, {})
  predictor = load_predictor(config, workdir, batch_size=batch_size)
  features: dict[str, _FeatureFunction] = {'dgnet': predictor.embed_batches}
  if 'teacher' in names:
    if missing := without_teacher(config.teacher, workdir):
      raise UserError(f'{missing}; choose the embedding of DG-Net (--embedding=dgnet), or copy the teacher there')
    teacher = load_teacher_predictor(config, workdir, predictor.num_identities, batch_size=batch_size)
    features['teacher'] = teacher.embed_batches
  titles = {'teacher': "embedding of the run's teacher", 'dgnet': 'embedding of DG-Net'}
  height, width = config.data.image_size_hw
  return {
    name: FeatureSpace(
      title=f'Frechet distance in the {titles[name]} (not Inception FID)',
      source=f'{workdir}, step {predictor.step}',
      resizing=f'to {height}x{width}, bicubic, antialiased',
      read=functools.partial(ImageFiles, image_size_hw=config.data.image_size_hw),
      features=features[name],
    )
    for name in names
  }


def compare(spaces: Mapping[str, FeatureSpace], real: ImageSet, generated: ImageSet) -> dict[str, dict[str, Any]]:
  """Computes the Frechet distance of two sets in every space.

  Args:
    spaces: feature spaces by name.
    real: at least two images.
    generated: at least two images.

  Returns:
    For each name: distance, dimensions, num_real, num_generated, title, source, resizing.
  """
  results = {}
  for name, space in spaces.items():
    first, second = space.gaussian(real), space.gaussian(generated)
    dimensions = len(first.mean)
    for images, gaussian in ((real, first), (generated, second)):
      if not gaussian.full_rank_possible:
        logger.warning(
          f'{images.title}: {gaussian.count} images in {dimensions} dimensions: the covariance is singular and the '
          'distance is overestimated; compare it only with distances of the same number of images'
        )
    logger.info(f'{space.title}: from covariances of {dimensions}x{dimensions}')
    results[name] = {
      'distance': frechet_distance(first, second),
      'dimensions': dimensions,
      'num_real': first.count,
      'num_generated': second.count,
      'title': space.title,
      'source': space.source,
      'resizing': space.resizing,
    }
  return results
