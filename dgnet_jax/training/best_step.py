"""The best checkpoint of a run that was ranked during training. Without JAX, which reports do not need."""

import math
import pathlib

from dgnet_jax.errors import UserError
from dgnet_jax.plots.curves import EVALUATED, METRICS, read_numbers
from dgnet_jax.training.data_record import saved_steps

MEASURE = 'mAP'


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
