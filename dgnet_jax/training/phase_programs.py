"""The compiled training step of each phase of a run: the next one compiles while the current one trains."""

from collections.abc import Callable, Sequence
import concurrent.futures
import dataclasses
import logging
from typing import Any

import jax

from dgnet_jax.training.step import Metrics, TrainStep
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher, TrainState

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Phases:
  """The phases of a run.

  Attributes:
    starts: the first step of each phase but the first, in order; none beyond the end of the run.
    active: maps a step to what its phase trains.
    name: maps what a phase trains to its name in the log.
    batch: maps any batch, and what a phase trains, to a batch with the structure of that phase; sees shapes only.
  """

  starts: Sequence[int]
  active: Callable[[int], ActiveTerms]
  name: Callable[[ActiveTerms], str]
  batch: Callable[[PixelBatch, ActiveTerms], PixelBatch]


@dataclasses.dataclass(frozen=True)
class _Ahead:
  """A program that compiles in the background, and the arguments that it is compiled for."""

  active: ActiveTerms
  arguments: tuple[Any, ...]
  program: concurrent.futures.Future[Callable[..., tuple[TrainState, Metrics]]]


class PhasePrograms:
  """Runs training steps, each with the program of its phase. Close it when done.

  The program of the first phase that is run compiles when it is needed. After the first step of a phase a thread
  compiles the program of the next one, in the same way, so results do not depend on it.
  """

  def __init__(self, step_fn: TrainStep, phases: Phases) -> None:
    """Initializes without compiling.

    Args:
      step_fn: the jitted step, from `make_train_step`.
      phases: the phases of the run.
    """
    self._step_fn, self._phases = step_fn, phases
    self._programs: dict[ActiveTerms, Callable[..., tuple[TrainState, Metrics]]] = {}
    self._ahead: _Ahead | None = None
    # Its thread is not a daemon: an interpreter that exits while XLA compiles in one aborts.
    self._executor = concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix='next_phase')

  def step(
    self, step: int, state: TrainState, teachers: Sequence[Teacher], pixels: PixelBatch
  ) -> tuple[TrainState, Metrics]:
    """Runs one step. The state is donated."""
    active = self._phases.active(step)
    is_first = active not in self._programs
    if is_first:
      self._programs[active] = self._program(step, active, _shapes((state, teachers, pixels)))
    state, metrics = self._programs[active](state, teachers, pixels)
    if is_first:
      self._compile_next(step, _shapes((state, teachers, pixels)))
    return state, metrics

  def close(self) -> None:
    """Waits for a compilation that is still running, which cannot be stopped; an error in it is dropped."""
    if self._ahead is not None and not self._ahead.program.done():
      logger.info('waiting for the compilation in the background, which cannot be stopped')
    self._executor.shutdown()

  def _program(
    self, step: int, active: ActiveTerms, arguments: tuple[Any, ...]
  ) -> Callable[..., tuple[TrainState, Metrics]]:
    """Returns the program of a phase: the one from the background, or one that compiles at its first call."""
    ahead, name = self._ahead, self._phases.name(active)
    if ahead is not None and (ahead.active, ahead.arguments) == (active, arguments):
      ready = ahead.program.done()
      logger.info(f'step {step}: {"the program is ready" if ready else "waiting for the program"} for {name}')
      try:
        return ahead.program.result()
      except Exception as error:  # for example, the device had no memory left beside the step that was running
        logger.warning(f'step {step}: compiling in the background failed ({error}), so it is tried again')
    logger.info(f'step {step}: compiling for {name}')
    return lambda state, teachers, pixels: self._step_fn(state, teachers, pixels, active)

  def _compile_next(self, step: int, arguments: tuple[Any, ...]) -> None:
    """Starts to compile for the phase after that of `step`, if the run reaches one.

    Args:
      step: first step of a phase.
      arguments: shapes of what it returned and of its inputs.
    """
    start = next((start for start in self._phases.starts if start > step), None)
    if start is None or (active := self._phases.active(start)) in self._programs:
      return
    # The thread does not see settings that hold in a `with` block of the caller, so it would compile another program.
    if _settings_of_a_thread() != _settings():
      return
    state, teachers, pixels = arguments
    arguments = state, teachers, self._phases.batch(pixels, active)
    logger.info(f'step {step}: compiling in the background for {self._phases.name(active)}, from step {start} on')
    self._ahead = _Ahead(active, arguments, self._executor.submit(self._compile, arguments, active))

  def _compile(self, arguments: tuple[Any, ...], active: ActiveTerms) -> Callable[..., tuple[TrainState, Metrics]]:
    program: jax.stages.Compiled = self._step_fn.trace(*arguments, active).lower().compile()  # type: ignore[attr-defined]
    return program


def _settings_of_a_thread() -> dict[str, Any]:
  """Returns JAX's settings as a new thread sees them."""
  with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
    return executor.submit(_settings).result()


def _settings() -> dict[str, Any]:
  """Returns JAX's settings as this thread sees them."""
  values: dict[str, Any] = jax.config.values
  return values


def _shapes(tree: Any) -> Any:
  """Returns the shape, dtype and sharding of every array, and whether its dtype is weak."""

  def shape_of(x: jax.Array) -> jax.ShapeDtypeStruct:
    weak_type = getattr(x, 'weak_type', False)  # random keys have no such attribute
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding, weak_type=weak_type)  # type: ignore[no-untyped-call]

  return jax.tree.map(shape_of, tree)
