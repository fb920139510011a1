"""What evaluation and generation take from a training run: the networks' parameters, and people to show."""

from collections.abc import Iterator
import contextlib
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.config.loading import changed_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex, Split
from dgnet_jax.data.lazy_images import Pixels
from dgnet_jax.errors import UserError
from dgnet_jax.inference import functions
from dgnet_jax.models.build import Networks, make_networks
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.types import Params

ELSEWHERE = ('data.layout:', 'data.root:', 'data.boxes:')  # fields that say which data these are


@dataclasses.dataclass(frozen=True)
class Trained:
  """Networks with the parameters of a checkpoint, on this process's devices.

  num_identities: people they were trained to tell apart. trained_generator: None after a run without one
  (joint=False). step: iterations done when it was saved. mesh: the devices; every process has the whole on its own.
  """

  networks: Networks
  num_identities: int
  trained_generator: Params | None
  reid: Params
  reid_stats: Params
  step: int
  mesh: jax.sharding.Mesh
  batch_size: int

  @property
  def generator(self) -> Params:
    """Parameters of structure encoder and decoder.

    Raises:
      UserError: the run trained none.
    """
    if self.trained_generator is None:
      raise UserError('this run learned from real images only (joint=False): it has no generator to make images with')
    return self.trained_generator

  def swap_images(self, structures: Pixels, appearances: Pixels, **options: Any) -> Iterator[np.ndarray]:
    """`functions.swap_images` with these networks; the option is `what`."""
    return functions.swap_images(
      self.networks,
      self.generator,
      self.reid,
      self.reid_stats,
      structures=structures,
      appearances=appearances,
      batch_size=self.batch_size,
      mesh=self.mesh,
      **options,
    )

  def embed(self, images: Pixels, **options: Any) -> np.ndarray:
    """`functions.embed` with these networks; the option is `what`."""
    return functions.embed(
      self.networks, self.reid, self.reid_stats, images, self.batch_size, mesh=self.mesh, **options
    )


def load_trained(config: Config, workdir: str | pathlib.Path) -> Trained:
  """Restores the newest whole checkpoint of a run; the discriminator and the optimisers are not read.

  Args:
    config: of the run; its data may be others than those that the run was trained on.
    workdir: of the run.

  Raises:
    UserError: there is no checkpoint, all are damaged, or they do not fit the config.
  """
  with contextlib.closing(Checkpoints(pathlib.Path(workdir) / 'checkpoints', config=config)) as checkpoints:
    return restore_trained(config, checkpoints, batch_size=config.evaluation.batch_size)


def restore_trained(config: Config, checkpoints: Checkpoints, *, batch_size: int, step: int | None = None) -> Trained:
  """As `load_trained`, from an open folder of checkpoints.

  Args:
    config: of the run.
    checkpoints: of the run.
    batch_size: images at a time.
    step: take this checkpoint and no other.
  """
  if checkpoints.latest_step() is None:
    raise UserError(f'{checkpoints.folder}: no checkpoint of DG-Net; --mode=train makes one')
  mesh = make_mesh(jax.local_devices())
  num_identities = checkpoints.num_identities(step)
  networks = make_networks(config, num_identities)
  key = jax.random.key(0)
  reid, reid_stats = jax.eval_shape(networks.init_reid, key)
  template = {
    'step': jax.ShapeDtypeStruct((), np.int32),
    'generator': {'params': jax.eval_shape(networks.init_generator, key)},
    'reid': {'params': reid, 'batch_stats': reid_stats},
  }
  place = functools.partial(jax.ShapeDtypeStruct, sharding=replicated(mesh))
  state = checkpoints.restore_part(jax.tree.map(lambda leaf: place(leaf.shape, leaf.dtype), template), step)
  return Trained(
    networks=networks,
    num_identities=num_identities,
    trained_generator=state['generator']['params'] if checkpoints.saved_config(step).get('joint', True) else None,
    reid=state['reid']['params'],
    reid_stats=state['reid']['batch_stats'],
    step=int(state['step']),
    mesh=mesh,
    batch_size=batch_size,
  )


def results_folder(config: Config, index: DatasetIndex, workdir: str | pathlib.Path, name: str) -> pathlib.Path:
  """`<workdir>/<name>` for the data that the run was trained on; for others a folder of their own in it.

  Args:
    config: as it is now; the run's own is in `workdir`.
    index: of the data.
    workdir: of the run.
    name: of the folder.
  """
  folder = pathlib.Path(workdir) / name
  changed = changed_fields(pathlib.Path(workdir) / 'config.json', config)
  if not any(line.startswith(ELSEWHERE) for line in changed):
    return folder
  parts = [index.name, pathlib.Path(config.data.root).resolve().name, index.variant.replace(' ', '_')]
  return folder / '_'.join(['on', *filter(None, parts)])


def one_image_each(split: Split, count: int | None = None) -> np.ndarray:
  """Images of different people, one each, junk and distractors left out: always the same ones.

  Args:
    split: to choose from.
    count: at most so many people, evenly spread over the sorted identities; None is all.

  Returns:
    i64[at most count], indices into the split, in the order of their identities.
  """
  identities, first = np.unique(split.identity, return_index=True)
  first = first[identities > DISTRACTOR]
  if count is None or count >= len(first):
    return first
  return first[np.linspace(0, len(first) - 1, count).round().astype(int)]
