"""What training needs before it has a state: data, devices, networks and optimizers, made in the order that works.

A training loop of your own starts here, like the package's:

    setup = set_up(config, workdir)
    teachers = setup.placement.put(train_teacher(config, setup.index, workdir, source=setup.source))  # does not rank
    state = fresh_state(setup.context, setup.placement)
    step = make_train_step(setup.context, setup.mesh)
"""

import dataclasses
import pathlib

from jax.sharding import Mesh

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training.agreement import in_all_processes
from dgnet_jax.training.learning import StepContext
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.step import make_step_context
from dgnet_jax.training.training_data import open_training_data


@dataclasses.dataclass(frozen=True)
class Setup:
  """The parts of a training job that do not change.

  Attributes:
    index: of the data set; its training identities are the classes.
    source: yields the training images. Teacher and main job share it, because some loaders keep all images in memory.
    mesh: all devices.
    context: networks, optimizers and config.
    placement: puts states and teachers on the mesh, which has to happen before the first step: a step compiles once
      for arrays in one place.
  """

  index: DatasetIndex
  source: Source
  mesh: Mesh
  context: StepContext
  placement: Placement


def set_up(config: Config, workdir: str | pathlib.Path) -> Setup:
  """Opens the training data, and makes networks and optimizers for them.

  Args:
    config: of the run.
    workdir: of the run; gets the record of the data, and rendered images of the built-in data.

  Raises:
    UserError: as from `open_training_data`.
  """
  index = in_all_processes(lambda: open_training_data(config, workdir))
  source = in_all_processes(lambda: make_source(index.train, config))
  mesh = make_mesh(model_devices=config.model_devices)
  return Setup(
    index,
    source,
    mesh,
    make_step_context(config, index.num_identities),
    Placement(mesh, index.num_identities),
  )
