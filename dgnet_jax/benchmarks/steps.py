"""Time of training steps, compared with XLA's default options, or with the steps of another config."""

from collections.abc import Callable, Iterator, Mapping
import dataclasses
import inspect
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.benchmarks.timing import Alternative, median_seconds, print_ratios
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.schedules import active_terms, phase_boundaries
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import make_step_context, make_train_step
from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step
from dgnet_jax.training.teacher_store import teacher_folders
from dgnet_jax.types import Array, PixelBatch, Teacher

STEPS_PER_EPOCH = 100  # of the teacher's schedule; does not affect the time


@dataclasses.dataclass(frozen=True)
class _Program:
  """A jitted step with its arguments.

  Attributes:
    name: name that is printed.
    batch_size: examples per step.
    step: (state, *inputs, *static) -> (state, metrics).
    new_state: makes an initial state.
    inputs: arguments on the device.
    static: static arguments.
  """

  name: str
  batch_size: int
  step: Callable[..., tuple[Any, Any]]
  new_state: Callable[[], Any]
  inputs: tuple[Any, ...]
  static: tuple[Any, ...] = ()


class _RandomBatches:
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


def benchmark_steps(config: Config, *, people: int, steps: int, rounds: int) -> None:
  """Prints the time of a step of the teacher, and of each phase of DG-Net. Compiles every program twice.

  Args:
    config: the run's config.
    people: identities that the networks distinguish.
    steps: number of steps in each turn.
    rounds: number of turns that count.

  Raises:
    UserError: a batch does not divide among the devices.
  """
  _check_batches(config)
  mesh = make_mesh()
  print(_heading(config, people))
  batches = _RandomBatches(config, people, mesh)
  for program in (_teacher_program(config, people, batches, mesh), *_phases(config, people, batches, mesh)):
    print(f'{program.name}, batch {program.batch_size}')
    alternatives = {
      'as trained': _turn(program, program.step, mesh, steps),
      'XLA defaults': _turn(program, _with_defaults(program, mesh), mesh, steps),
    }
    seconds = median_seconds(alternatives, rounds)
    print_ratios(seconds, 'XLA defaults')
    print(f'  {program.batch_size / seconds["as trained"]:.1f} examples/s as trained', flush=True)


def compare_configs(configs: Mapping[str, Config], *, people: int, steps: int, rounds: int) -> None:
  """Prints the time of a step of every phase of DG-Net in several configs; all of them take turns.

  Args:
    configs: by the name to print. Ratios are to the first phase of the last one.
    people: identities that the networks distinguish.
    steps: number of steps in each turn.
    rounds: number of turns that count.

  Raises:
    UserError: a batch does not divide among the devices.
  """
  for config in configs.values():
    _check_batches(config)
  mesh = make_mesh()
  alternatives: dict[str, Alternative] = {}
  for name, config in configs.items():
    print(f'{name}: {_heading(config, people)}, batch {config.batch_size}', flush=True)
    programs = list(_phases(config, people, _RandomBatches(config, people, mesh), mesh))
    alternatives |= {f'{name}, {program.name}': _turn(program, program.step, mesh, steps) for program in programs}
    reference = f'{name}, {programs[0].name}'
  print_ratios(median_seconds(alternatives, rounds), reference)


def _check_batches(config: Config) -> None:
  for field, batch_size in {'batch_size': config.batch_size, 'teacher.batch_size': config.teacher.batch_size}.items():
    if batch_size % jax.device_count():
      raise UserError(f'{field}: {batch_size} does not divide among {jax.device_count()} devices')


def _heading(config: Config, people: int) -> str:
  height, width = config.data.image_size_hw
  return f'{height}x{width}, {people} identities, {jax.device_count()} {jax.default_backend()}'


def _phases(config: Config, people: int, batches: _RandomBatches, mesh: jax.sharding.Mesh) -> Iterator[_Program]:
  """Yields the step of each phase of DG-Net."""
  for start in (0, *phase_boundaries(config.ramps, config.num_steps, config.optimizer.generator_steps)):
    yield _dgnet_program(config, people, batches, mesh, start)


def _teacher_program(config: Config, people: int, batches: _RandomBatches, mesh: jax.sharding.Mesh) -> _Program:
  network = make_teacher_network(config, people)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, STEPS_PER_EPOCH)
  batch_size = config.teacher.batch_size
  return _Program(
    name='teacher',
    batch_size=batch_size,
    step=make_teacher_step(network, optimizer, config, mesh),
    new_state=lambda: create_teacher_state(network, optimizer, seed=0),
    inputs=(batches.images(batch_size), batches.identity(batch_size)),
  )


def _dgnet_program(
  config: Config, people: int, batches: _RandomBatches, mesh: jax.sharding.Mesh, start: int
) -> _Program:
  """Returns the step of the phase that begins at step `start`."""
  context, batch_size = make_step_context(config, people), config.batch_size
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
  return _Program(
    name=f'{"DG-Net" if config.joint else "re-id network alone"} from step {start}',
    batch_size=batch_size,
    step=make_train_step(context, mesh),
    new_state=lambda: dataclasses.replace(
      create_train_state(context.networks, context.optimizers, seed=0), step=jnp.int32(start)
    ),
    inputs=(jax.device_put(teachers, replicated(mesh)), pixels),
    static=(active,),
  )


def _with_defaults(program: _Program, mesh: jax.sharding.Mesh) -> Callable[..., tuple[Any, Any]]:
  """Returns the program's step, compiled with XLA's default options."""
  first_static = 1 + len(program.inputs)
  return jax.jit(
    inspect.unwrap(program.step),
    static_argnums=range(first_static, first_static + len(program.static)),
    donate_argnums=0,
    out_shardings=replicated(mesh),
  )


def _turn(
  program: _Program, step: Callable[..., tuple[Any, Any]], mesh: jax.sharding.Mesh, steps: int
) -> Callable[[], float]:
  """Returns a function that takes `steps` steps and returns the seconds of one."""
  state = jax.device_put(program.new_state(), replicated(mesh))

  def turn() -> float:
    nonlocal state
    start = time.perf_counter()
    for _ in range(steps):
      state, metrics = step(state, *program.inputs, *program.static)
    jax.block_until_ready((state, metrics))  # type: ignore[no-untyped-call]
    return (time.perf_counter() - start) / steps

  return turn
