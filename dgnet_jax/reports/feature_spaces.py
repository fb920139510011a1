"""Feature spaces in which sets of images are compared, and the Frechet distance in them."""

from collections.abc import Callable, Mapping
import dataclasses
import functools
import hashlib
import logging
import pathlib
from typing import Any

import jax

from dgnet_jax.config import loading
from dgnet_jax.config.schema import Config
from dgnet_jax.data.image_sets import ImageSet
from dgnet_jax.data.lazy_images import BilinearFiles, ImageFiles, Pixels
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance
from dgnet_jax.inference.functions import embed_batch, embed_teacher_batch, in_batches
from dgnet_jax.inference.trained import Trained, load_trained
from dgnet_jax.interop.inception import load_inception
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.models.inception import IMAGE_SIZE, inception_features
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.teacher_loop import load_teachers
from dgnet_jax.types import Array

logger = logging.getLogger(__name__)


EMBEDDINGS = ('teacher', 'dgnet')


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
  """From images to vectors.

  title: what a distance in it is called. source: whose weights. resizing: what happens to images on the way. read: a
  set's images as the network takes them. function: from a batch of them to f[N, D]. mesh: devices to spread it over.
  """

  title: str
  source: str
  resizing: str
  read: Callable[[ImageSet], Pixels]
  function: Callable[[Array], Array]
  mesh: jax.sharding.Mesh
  batch_size: int

  def gaussian(self, images: ImageSet) -> Gaussian:
    """Mean and covariance of a set's features, in memory that does not grow with the set.

    Args:
      images: at least two.

    Raises:
      UserError: features are not finite.
    """
    what = f'{self.title}: features of {images.title}'
    running: RunningGaussian | None = None
    for features in in_batches(self.function, [self.read(images)], self.batch_size, self.mesh, what):
      running = running or RunningGaussian(features.shape[1])
      try:
        running.add(features)
      except ValueError as error:
        raise UserError(f'{what}: {error}; {self.source} may be damaged') from error
    if running is None:
      raise ValueError(f'{what}: no images')
    return running.gaussian()


def inception_space(path: str | pathlib.Path, batch_size: int) -> FeatureSpace:
  """The space of FID: Inception-v3's 2048 pooled features, images resized as pytorch-fid does.

  Args:
    path: of the weights (`interop.inception`).
    batch_size: images at a time.

  Raises:
    UserError: the weights are missing, damaged or others; names every array.
  """
  mesh = make_mesh(jax.local_devices())
  variables = jax.device_put(load_inception(path), replicated(mesh))
  with open(path, 'rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  size = IMAGE_SIZE, IMAGE_SIZE
  return FeatureSpace(
    title='FID (Frechet distance in the pool3 features of Inception-v3)',
    source=f'{path}, sha256 {digest[:8]}',
    resizing=f'from their own size to {size[0]}x{size[1]}, bilinear, not antialiased',
    read=lambda images: BilinearFiles(images.paths, size),
    function=functools.partial(inception_features, variables),
    mesh=mesh,
    batch_size=batch_size,
  )


def run_spaces(workdir: str | pathlib.Path, names: tuple[str, ...], batch_size: int) -> dict[str, FeatureSpace]:
  """The embeddings of a trained run, both mirror views of each image together, as for ranking.

  Args:
    workdir: of the run.
    names: of `EMBEDDINGS`. teacher has never seen a generated image; dgnet was trained together with the generator,
      and judges its own work.
    batch_size: images at a time.

  Raises:
    UserError: there is no such run, or it has no checkpoint or no teacher.
  """
  path = pathlib.Path(workdir) / 'config.json'
  if not path.is_file():
    raise UserError(f'{workdir}: no work folder of a run ({path.name} is missing)')
  config = loading.load_config(path, {})
  trained = load_trained(config, workdir)
  functions: dict[str, Callable[[Array], Array]] = {
    'dgnet': functools.partial(embed_batch, trained.networks, trained.reid, trained.reid_stats)
  }
  if 'teacher' in names:
    functions['teacher'] = _teacher_function(config, trained, workdir)
  titles = {'teacher': "embedding of the run's teacher", 'dgnet': 'embedding of DG-Net'}
  size = config.data.image_size_hw
  return {
    name: FeatureSpace(
      title=f'Frechet distance in the {titles[name]} (not Inception FID)',
      source=f'{workdir}, step {trained.step}',
      resizing=f'to {size[0]}x{size[1]}, bicubic, antialiased',
      read=lambda images: ImageFiles(images.paths, size),
      function=functions[name],
      mesh=trained.mesh,
      batch_size=batch_size,
    )
    for name in names
  }


def _teacher_function(config: Config, trained: Trained, workdir: str | pathlib.Path) -> Callable[[Array], Array]:
  """The embedding by the run's teacher, the first of several."""
  teacher = load_teachers(config, trained.num_identities, workdir)[0]
  teacher = jax.device_put(jax.device_get(teacher), replicated(trained.mesh))
  network = make_teacher_network(config, trained.num_identities)
  return functools.partial(embed_teacher_batch, network, teacher.params, teacher.batch_stats)


def compare(spaces: Mapping[str, FeatureSpace], real: ImageSet, generated: ImageSet) -> dict[str, dict[str, Any]]:
  """The Frechet distance of two sets in each of some spaces.

  Args:
    spaces: by name.
    real: at least two images.
    generated: likewise.

  Returns:
    For each name: distance, dimensions, num_real, num_generated, title, source, resizing.
  """
  results = {}
  for name, space in spaces.items():
    first, second = (space.gaussian(images) for images in (real, generated))
    dimensions = len(first.mean)
    for images, gaussian in ((real, first), (generated, second)):
      if not gaussian.full_rank_possible:
        logger.warning(
          f'{images.title}: {gaussian.count} images in {dimensions} dimensions: the covariance has no '
          'full rank and the distance comes out too large; compare it only with distances of as many images'
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
