"""The embedding during training: ranked at intervals, with a record of the step with the best mAP.

The record is in metrics.jsonl, with the other numbers of each step: what a resumed run repeats is dropped from it, so
that it finds the same best step as an unbroken one.
"""

from collections.abc import Callable, Mapping
import dataclasses
import math
import pathlib
from typing import Generic, TypeVar

from dgnet_jax.errors import UserError
from dgnet_jax.plots.curves import EVALUATED, METRICS, read_numbers
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.training.data_record import saved_steps

MEASURE = 'mAP'

State = TypeVar('State')


@dataclasses.dataclass
class Validation(Generic[State]):
  """Decides when to measure, and which step is the best so far.

  Attributes:
    measure: ranks the split with the networks of a state, in all processes; returns mAP and others, in [0, 1].
    split: the name of the split, in `EVALUATED`.
    every_steps: measure after so many steps, and after the last.
    best: the best step so far and its mAP; None before the first.
  """

  measure: Callable[[State], Mapping[str, float]]
  split: str
  every_steps: int
  best: tuple[int, float] | None = None

  @property
  def best_step(self) -> int | None:
    """The best step so far."""
    return self.best[0] if self.best else None

  def is_due(self, done: int, *, last: bool) -> bool:
    """Returns True if the state after `done` steps is to be measured."""
    return last or done % self.every_steps == 0

  def scores(self, done: int, state: State) -> dict[str, float]:
    """Measures a state, and remembers it if it is the best so far; of equal ones the first is.

    Returns:
      The numbers to write, by name: SPLIT/MEASURE.
    """
    measured = self.measure(state)
    value = measured[MEASURE]
    if self.best is None or value > self.best[1]:
      self.best = done, value
    return {f'{self.split}/{name}': number for name, number in measured.items()}


def scores_text(scores: Mapping[str, float]) -> str:
  """Formats numbers of `Validation.scores`, in percent: validation mAP 70.30%, rank-1 74.74%."""
  split = next(iter(scores)).partition('/')[0]
  parts = [f'{name.partition("/")[2].replace("_", "-")} {value:.2%}' for name, value in scores.items()]
  return f'{split} {", ".join(parts)}'


def best_step(workdir: pathlib.Path, split: str = '', *, up_to: int | None = None) -> tuple[int, float] | None:
  """Finds the checkpoint with the best mAP of those that were measured during training.

  Args:
    workdir: work folder of the run.
    split: measured split; by default the first of `EVALUATED` that the run has measured.
    up_to: last step to look at; None: all.

  Returns:
    Its step and its mAP, in [0, 1]; None if no checkpoint was measured.

  Raises:
    UserError: metrics.jsonl cannot be read.
  """
  saved = set(saved_steps(workdir / 'checkpoints'))
  numbers = read_numbers(workdir / METRICS) if (workdir / METRICS).is_file() else {}
  for name in [split] if split else EVALUATED:
    values = numbers.get(f'{name}/{MEASURE}', {})
    measured = [(step, value) for step, value in values.items() if step in saved and not math.isnan(value)]
    measured = [(step, value) for step, value in measured if up_to is None or step <= up_to]
    if measured:
      return max(measured, key=lambda pair: (pair[1], -pair[0]))
  return None


def resumed_best(workdir: pathlib.Path, start: int, split: str = '') -> tuple[int, float] | None:
  """Returns what `Validation.best` was after `start` steps, the same in all processes; `split` as for `best_step`."""
  best = from_first_process(lambda: best_step(workdir, split, up_to=start))
  return (best[0], best[1]) if best else None


def require_best_step(workdir: pathlib.Path) -> int:
  """Returns the step of `best_step`.

  Raises:
    UserError: no checkpoint of the run was measured.
  """
  best = best_step(workdir)
  if best is None:
    raise UserError(
      f'{workdir}: no checkpoint was evaluated during training, so none is known to be the best; train with '
      'evaluation.every_steps, or name a step'
    )
  return best[0]
