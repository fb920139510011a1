"""The embedding during training: ranked at intervals, with a record of the step with the best mAP.

The record is in metrics.jsonl, with the other numbers of each step: what a resumed run repeats is dropped from it, so
that it finds the same best step as an unbroken one. A step that was saved, but not measured before the run stopped, is
measured when it is resumed.
"""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import pathlib
from typing import Any, Generic, TypeVar

from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.data.dataset import split_to_rank_in_training
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.plots.curves import METRICS, read_numbers
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.training.best_step import MEASURE, best_step
from dgnet_jax.training.teacher_step import TeacherState
from dgnet_jax.types import TrainState

logger = logging.getLogger(__name__)

SETTINGS = ('evaluation.protocol', 'evaluation.alpha', 'evaluation.tracklets')  # on which its values depend

# Ranks a split with networks and a state of their training, in all processes; returns mAP and others, in [0, 1].
Measure = Callable[[Networks | TeacherNetwork, TrainState | TeacherState], Mapping[str, float]]
# Makes of a config and a split to rank such a function: `reports.validation.make_measure`.
MakeMeasure = Callable[[Config, DatasetIndex], Measure]

State = TypeVar('State')


@dataclasses.dataclass
class Validation(Generic[State]):
  """Decides when to measure, and which step is the best so far.

  Attributes:
    measure: ranks the split with the networks of a state, in all processes; returns mAP and others, in [0, 1].
    split: the name of the split, in `EVALUATED`.
    every_steps: measure after so many steps, and after the last.
    best: the best step so far and its mAP; None before the first.
    last: the last step that was measured; 0 before the first.
    keeps_best: keep the checkpoint of the best step beside the newest ones.
  """

  measure: Callable[[State], Mapping[str, float]]
  split: str
  every_steps: int
  best: tuple[int, float] | None = None
  last: int = 0
  keeps_best: bool = True

  def resume(self, workdir: pathlib.Path, start: int) -> None:
    """Remembers what was measured in the first `start` steps of the run in a folder; all processes call it."""
    self.best = resumed_best(workdir, start, self.split)
    self.last = last_measured(workdir, start, self.split)

  @property
  def best_step(self) -> int | None:
    """The best step so far."""
    return self.best[0] if self.best else None

  def is_due(self, done: int, *, last: bool) -> bool:
    """Returns True if the state after `done` steps is to be measured, and was not yet."""
    return done > self.last and (last or done % self.every_steps == 0)

  def scores(self, done: int, state: State) -> dict[str, float]:
    """Measures a state, and remembers it if it is the best so far; of equal ones the first is.

    Returns:
      The numbers to write, by name: SPLIT/MEASURE.
    """
    measured = self.measure(state)
    value, self.last = measured[MEASURE], done
    if self.best is None or value > self.best[1]:
      self.best = done, value
    return {f'{self.split}/{name}': number for name, number in measured.items()}


def check_measure(config: Config, make_measure: MakeMeasure | None) -> None:
  """Raises ValueError if training has to rank, but is not told how."""
  if config.evaluation.every_steps and make_measure is None:
    raise ValueError('evaluation.every_steps needs make_measure, like reports.validation.make_measure')


def make_validation(
  config: Config, index: DatasetIndex, make_measure: MakeMeasure | None, networks: Networks | TeacherNetwork
) -> Validation[Any] | None:
  """Returns what ranks states during training, if anything is to.

  Args:
    config: of the run.
    index: of the data set.
    make_measure: not None if anything is to be ranked.
    networks: for the parameters of a state; no embedding depends on a classifier, so the part that the first device
      has of a split one will do.

  Raises:
    UserError: there is nothing to rank.
  """
  if make_measure is None or not config.evaluation.every_steps:
    return None
  split, ranked = split_to_rank_in_training(index)
  measure = make_measure(config, ranked)
  return Validation(lambda state: measure(networks, state), split, config.evaluation.every_steps)


def warn_of_other_measure(saved_config: Mapping[str, Any], config: Config) -> None:
  """Warns if the steps before a resumption were measured in another way than those after it will be."""
  now = dict(leaves(config.to_dict()))
  before = now | dict(leaves(saved_config))  # an earlier version lacked some of the fields
  changes = [f'{name} {before[name]} -> {now[name]}' for name in SETTINGS if before[name] != now[name]]
  if changes:
    logger.warning(
      f'{", ".join(changes)}: the mAP of earlier steps was measured with the former setting, so the best step may be '
      'wrong; restore the setting, or compare checkpoints with `dgnet evaluate --step=STEP`'
    )


def scores_text(scores: Mapping[str, float]) -> str:
  """Formats numbers of `Validation.scores`, in percent: validation mAP 70.30%, rank-1 74.74%."""
  split = next(iter(scores)).partition('/')[0]
  parts = [f'{name.partition("/")[2].replace("_", "-")} {value:.2%}' for name, value in scores.items()]
  return f'{split} {", ".join(parts)}'


def resumed_best(workdir: pathlib.Path, start: int, split: str = '') -> tuple[int, float] | None:
  """Returns what `Validation.best` was after `start` steps, the same in all processes; `split` as for `best_step`."""
  best = from_first_process(lambda: best_step(workdir, split, up_to=start))
  return (best[0], best[1]) if best else None


def last_measured(workdir: pathlib.Path, start: int, split: str) -> int:
  """Returns what `Validation.last` was after `start` steps, the same in all processes."""

  def find() -> int:
    numbers = read_numbers(workdir / METRICS) if (workdir / METRICS).is_file() else {}
    return max((step for step in numbers.get(f'{split}/{MEASURE}', {}) if step <= start), default=0)

  return from_first_process(find)
