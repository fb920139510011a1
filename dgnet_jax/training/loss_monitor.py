"""Collects the metrics of training steps and checks that they are finite."""

from collections.abc import Mapping

import jax
import numpy as np

from dgnet_jax.errors import UserError
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
        self._fail(step, broken)
    current = pending[-1][1] if pending else {}
    return {
      name: float(np.mean([np.mean(metrics[name]) for _, metrics in pending if name in metrics])) for name in current
    }

  def _fail(self, step: int, broken: list[str]) -> None:
    latest = self._checkpoints.latest_step()
    good = 'there is no checkpoint yet' if latest is None else f'the last good checkpoint is step {latest}'
    raise UserError(
      f'step {step}: {", ".join(broken)} not finite; {good} in {self._checkpoints.folder}. {self._advice}, and run the '
      'same command again.'
    )
