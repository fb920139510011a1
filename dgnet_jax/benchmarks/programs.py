"""The programs that a run trains with, on random images: a step of the teacher, and one of each phase of DG-Net."""

from collections.abc import Callable, Iterator
import dataclasses
import functools
import inspect
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.benchmarks.costs import Cost, cost_of
from dgnet_jax.benchmarks.plain_step import plain_update
from dgnet_jax.config.schema import Config
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import batch_sharding
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.schedules import active_terms, phase_boundaries
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, make_train_step
from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step
from dgnet_jax.training.teacher_store import teacher_folders
from dgnet_jax.types import ActiveTerms, Array, PixelBatch, Teacher, TrainState
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options

STEPS_PER_EPOCH = 100  # of the teacher's schedule; does not affect the time
PAIR_IMAGES = 4  # of an example of DG-Net: two streams, each with a positive


@dataclasses.dataclass(frozen=True)
class Program:
  """A jitted step with its arguments.

  Attributes:
    name: name that is printed.
    num_images: images read for a step.
    step: jitted function (state, *inputs, *static) -> (state, outputs), with the state donated.
    new_state: makes an initial state.
    inputs: arguments on the device.
    static: static arguments.
    constants: the number of leading `inputs` that are not a batch of images: the teachers.
    placement: where the state is.
  """

  name: str
  num_images: int
  step: Callable[..., tuple[Any, Any]]
  new_state: Callable[[], Any]
  inputs: tuple[Any, ...]
  placement: Placement
  static: tuple[Any, ...] = ()
  constants: int = 0


class RandomBatches:
  """Random images and identities, sharded over the devices."""

  def __init__(self, config: Config, people: int, mesh: jax.sharding.Mesh) -> None:
    self._rng = np.random.default_rng(0)
    self._size_hw, self._people, self._sharding = config.data.image_size_hw, people, batch_sharding(mesh)

  def images(self, *shape: int) -> Array:
    return self._on_devices(self._rng.integers(0, 256, (*shape, *self._size_hw, 3), np.uint8))

  def identity(self, *shape: int) -> Array:
    return self._on_devices(self._rng.integers(0, self._people, shape, np.int32))

  def _on_devices(self, values: np.ndarray) -> Array:
    array: Array = jax.device_put(values, self._sharding)
    return array


def teacher_program(config: Config, people: int, mesh: jax.sharding.Mesh) -> Program:
  """Returns the step of the teacher."""
  batches = RandomBatches(config, people, mesh)
  network = make_teacher_network(config, people)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, STEPS_PER_EPOCH)
  batch_size = config.teacher.batch_size
  return Program(
    name='teacher',
    num_images=batch_size,
    step=make_teacher_step(network, optimizer, config, mesh),
    new_state=lambda: create_teacher_state(network, optimizer, seed=0),
    inputs=(batches.images(batch_size), batches.identity(batch_size)),
    placement=Placement(mesh, people),
  )


def phase_starts(config: Config) -> list[int]:
  """Returns the first step of each phase of DG-Net."""
  return [0, *phase_boundaries(config.ramps, config.num_steps, config.optimizer.generator_steps)]


def phase_program(config: Config, people: int, mesh: jax.sharding.Mesh, start: int) -> Program:
  """Returns the step of the phase that begins at step `start`."""
  context, batch_size = make_step_context(config, people), config.batch_size
  batches, placement = RandomBatches(config, people, mesh), Placement(mesh, people)
  active = active_terms(config.ramps, start, config.optimizer.generator_steps)
  needs_ground_truth = active.teaching and config.teaching.images == 'ground_truth'
  pixels = PixelBatch(
    image=batches.images(batch_size, 2),
    positive=batches.images(batch_size, 2),
    identity=batches.identity(batch_size, 2),
    cross_ground_truth=batches.images(batch_size, 2) if needs_ground_truth else None,
  )
  num_teachers = len(teacher_folders(config.teacher, pathlib.Path()))
  teachers = tuple(Teacher(*context.teacher_network.init(jax.random.key(i))) for i in range(num_teachers))
  return Program(
    name=f'{"DG-Net" if config.joint else "re-id network alone"} from step {start}',
    num_images=PAIR_IMAGES * batch_size,
    step=make_train_step(context, mesh),
    new_state=lambda: dataclasses.replace(
      create_train_state(context.networks, context.optimizers, seed=0), step=jnp.int32(start)
    ),
    inputs=(placement.put(teachers), pixels),
    placement=placement,
    static=(active,),
    constants=1,
  )


def with_default_options(program: Program) -> Program:
  """Returns the program without the options of `dgnet_jax.utils.xla_options`."""
  first_static = 1 + len(program.inputs)
  step = jax.jit(
    inspect.unwrap(program.step),
    static_argnums=range(first_static, first_static + len(program.static)),
    donate_argnums=0,
    out_shardings=program.placement.step_outputs(program.new_state),
  )
  return dataclasses.replace(program, step=step)


def plain_phase(program: Program, config: Config, people: int) -> Program:
  """Returns a phase of DG-Net in the plain formulation, with the same inputs and compiler options."""
  context, placement = make_step_context(config, people), program.placement

  @functools.partial(
    jax.jit,
    static_argnums=3,
    donate_argnums=0,
    out_shardings=placement.step_outputs(program.new_state),
    compiler_options=accepted_options(CONVOLUTIONS),
  )
  def step(
    state: TrainState, teachers: tuple[Teacher, ...], pixels: PixelBatch, active: ActiveTerms
  ) -> tuple[TrainState, Any]:
    state, teachers = placement.within_step((state, teachers))
    batch, draws = draw_step(context, state, pixels)
    state, *others = plain_update(context, state, teachers, batch, draws, active)
    return placement.after_step(state), others

  return dataclasses.replace(program, step=step)


def compiled(
  program: Program, progress: Callable[[str], None] = lambda stage: None
) -> tuple[jax.stages.Compiled, Cost]:
  """Compiles a program.

  Args:
    program: the program.
    progress: is called with the name of each stage before it begins.

  Returns:
    A function (state, *inputs) -> (state, outputs), and what the program costs.
  """
  start = time.perf_counter()
  state = program.placement.shapes(jax.eval_shape(program.new_state))
  progress('tracing')
  traced = program.step.trace(state, *program.inputs, *program.static)  # type: ignore[attr-defined]
  progress('lowering')
  lowered = traced.lower()
  progress('compiling')
  executable = lowered.compile()
  return executable, cost_of(traced, executable, time.perf_counter() - start)


def turn_of(
  program: Program,
  executable: Callable[..., tuple[Any, Any]],
  *,
  steps: int,
  batches: Iterator[Any] | None = None,
) -> Callable[[], float]:
  """Prepares a measurement.

  Args:
    program: the program.
    executable: from `compiled`.
    steps: number of steps in a turn.
    batches: batches to read for them; None takes the program's own batch again and again.

  Returns:
    A function that takes `steps` steps and returns the seconds of one.
  """
  state = program.placement.put(program.new_state())
  constants, same = program.inputs[: program.constants], program.inputs[program.constants :]

  def turn() -> float:
    nonlocal state
    start = time.perf_counter()
    for _ in range(steps):
      state, outputs = executable(state, *constants, *(same if batches is None else [next(batches)]))
    jax.block_until_ready((state, outputs))  # type: ignore[no-untyped-call]
    return (time.perf_counter() - start) / steps

  return turn
