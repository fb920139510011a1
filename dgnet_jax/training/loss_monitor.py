"""Collects the metrics of training steps and checks that they are finite."""

from collections.abc import Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoint_arrays import not_finite
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.types import Array


class LossMonitor:
  """Keeps the metrics of steps on the device until their means are needed, so that no step waits for the host."""

  def __init__(self, checkpoints: Checkpoints, *, advice: str) -> None:
    """Args:
    checkpoints: the run's checkpoints; an error names the latest.
    advice: what to change if a loss is not finite.
    """
    self._checkpoints = checkpoints
    self._advice = advice
    self._pending: list[tuple[int, Mapping[str, Array]]] = []

  def add(self, step: int, metrics: Mapping[str, Array]) -> None:
    """Adds the metrics of the iteration that starts after `step` iterations."""
    self._pending.append((step, metrics))

  @property
  def has_pending(self) -> bool:
    """Returns True if metrics were added since the last call of `means`."""
    return bool(self._pending)

  def means(self) -> dict[str, float]:
    """Returns the mean of each current term over the steps since the last call, and over streams.

    Raises:
      UserError: a term is not finite; names the step, the term and the last good checkpoint.
    """
    pending = jax.device_get(self._pending)
    self._pending.clear()
    for step, metrics in pending:
      broken = sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))
      if broken:
        self._fail(step, broken, first_bad=step)  # the losses are those before the update
    current = pending[-1][1] if pending else {}
    return {
      name: float(np.mean([np.mean(metrics[name]) for _, metrics in pending if name in metrics])) for name in current
    }

  def check_state(self, done: int, state: Any) -> None:
    """Checks a state that is about to be saved: the losses of a step say nothing about its update.

    Args:
      done: number of iterations done.
      state: pytree of arrays and typed keys.

    Raises:
      UserError: an array is not finite; names the step, the array and the last good checkpoint.
    """
    broken = not_finite(state)
    if broken:
      more = f' and {len(broken) - 1} more arrays' if len(broken) > 1 else ''
      self._fail(done - 1, [f'after its update, {broken[0]}{more}'], first_bad=done)

  def _fail(self, step: int, broken: list[str], *, first_bad: int) -> NoReturn:
    """Raises the error of a step; the state after `first_bad` iterations is the first that is of no use."""
    folder, saved = self._checkpoints.folder, self._checkpoints.steps()
    good = max((done for done in saved if done < first_bad), default=None)
    latest = 'there is no good checkpoint yet' if good is None else f'the last good checkpoint is step {good}'
    advice = f'{self._advice}, and run the same command again'
    if first_bad in saved:
      advice = f'Remove {folder / str(first_bad)}, whose losses these are. {advice}'
    elif first_bad == 0:
      advice = 'Nothing was updated yet: check the pretrained weights and the loss weights'
    raise UserError(f'step {step}: {", ".join(broken)} not finite; {latest} in {folder}. {advice}.')
