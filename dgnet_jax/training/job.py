"""The loop that both training jobs run, DG-Net's and its teacher's: steps, reports, checkpoints, interruption."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
from typing import Generic, Protocol, TypeVar

from dgnet_jax.config.schema import LogConfig
from dgnet_jax.errors import Interrupted
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.loss_monitor import LossMonitor, Reporter
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.preemption import agreed_stop_signals
from dgnet_jax.training.validation import Validation, scores_text
from dgnet_jax.types import Array
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


class HasStep(Protocol):
  """A training state that counts the steps done."""

  @property
  def step(self) -> Array: ...


State = TypeVar('State', bound=HasStep)


@dataclasses.dataclass(frozen=True)
class Report:
  """A report of the steps since the last one.

  Attributes:
    summary: text for the progress line.
    scalars: numbers to write, by name.
    warnings: what to tell the user about them.
  """

  summary: str
  scalars: Mapping[str, float]
  warnings: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class Job(Generic[State]):
  """The parts in which training jobs differ.

  Attributes:
    name: shown at the start of progress lines; may be empty.
    num_steps: length of the run.
    advice: what to change if a loss is not finite.
    take_step: maps a state and the number of steps done to the next state and its metrics.
    report: maps the number of steps done and the mean metrics since the last report to a report.
    after_step: called with the number of steps done and the new state; None for nothing.
    max_skipped: how many updates of the run may be skipped, because they are not finite.
    skipped: how many were, before this start.
    reporter: writes a report on a step that is not finite, and returns a sentence on it; None for none.
    whole: makes of a state what is saved; `Placement.whole`.
    validation: ranks states during training; None for none.
  """

  name: str
  num_steps: int
  advice: str
  take_step: Callable[[State, int], tuple[State, Mapping[str, Array]]]
  report: Callable[[int, Mapping[str, float]], Report]
  after_step: Callable[[int, State], None] | None = None
  max_skipped: int = 0
  skipped: int = 0
  reporter: Reporter | None = None
  whole: Callable[[State], State] = lambda state: state
  validation: Validation[State] | None = None

  @property
  def prefix(self) -> str:
    """The start of its lines in the log."""
    return f'{self.name} ' if self.name else ''

  def is_to_be_ranked(self, done: int) -> bool:
    """Returns True if the state after `done` steps is to be ranked, and was not yet."""
    return self.validation is not None and self.validation.is_due(done, last=done >= self.num_steps)


def run_job(job: Job[State], state: State, *, log: LogConfig, checkpoints: Checkpoints, writer: MetricWriter) -> State:
  """Trains from `state` to the end of the job.

  Every checkpoint comes with a report, so that each step is in the mean of exactly one report, even if the run is
  stopped and resumed there. A state is saved before it is ranked, which may take long or fail; a resumed run first
  ranks what an unbroken one would have.

  Args:
    job: what to run.
    state: a state at any step up to `job.num_steps`.
    log: how often to report and to save.
    checkpoints: where the state is saved: at intervals, before each ranking, at the end, and on interruption.
    writer: receives the reports.

  Returns:
    The state after the last step.

  Raises:
    UserError: a loss or a state to save is not finite, or too many updates were skipped.
    Interrupted: SIGINT or SIGTERM was received; the state is saved.
  """
  start = int(state.step)
  monitor = LossMonitor(
    checkpoints, advice=job.advice, max_skipped=job.max_skipped, skipped=job.skipped, reporter=job.reporter
  )
  progress = Progress(job.num_steps, start)

  def report(done: int) -> None:
    current = job.report(done, monitor.means(state))
    logger.info(job.prefix + progress.line(done, current.summary))
    for warning in current.warnings:
      logger.warning(f'{job.prefix}step {done}: {warning}')
    writer.write_scalars(done, current.scalars)

  with agreed_stop_signals() as stopped:
    if job.is_to_be_ranked(start):
      _rank(job, state, start, checkpoints, writer)
      if stopped():
        raise _interruption(job, start, checkpoints)
    for step in range(start, job.num_steps):
      state, metrics = job.take_step(state, step)
      monitor.add(step, metrics)
      done = step + 1
      if done % log.progress_every_steps == 0:
        report(done)
      if job.after_step:
        job.after_step(done, state)
      stopping, last = stopped(), done == job.num_steps
      ranked = job.is_to_be_ranked(done) and not stopping
      if stopping or last or ranked or done % log.checkpoint_every_steps == 0:
        if monitor.has_pending:
          report(done)
        saved = job.whole(state)
        monitor.check_state(done, saved)
        checkpoints.save(done, saved, wait=stopping or last)
      if ranked:
        _rank(job, state, done, checkpoints, writer)
        stopping = stopped()  # meanwhile; the state is saved
      if stopping:
        raise _interruption(job, done, checkpoints)
  return state


def _rank(job: Job[State], state: State, done: int, checkpoints: Checkpoints, writer: MetricWriter) -> None:
  """Ranks a state that is saved, and keeps its checkpoint if it is the best."""
  validation = job.validation
  assert validation is not None
  scores, note = validation.scores(done, state), ''
  if validation.best_step == done:
    note = ', the best so far; its checkpoint is kept' if validation.keeps_best else ', the best so far'
  logger.info(f'{job.prefix}step {done}: {scores_text(scores)}{note}')
  writer.write_scalars(done, scores)
  if validation.keeps_best:
    checkpoints.keep_best(validation.best_step)


def _interruption(job: Job[State], done: int, checkpoints: Checkpoints) -> Interrupted:
  return Interrupted(
    f'{job.prefix}stopped at step {done} of {job.num_steps}; saved in {checkpoints.folder}. Run the same command to '
    'resume.'
  )
