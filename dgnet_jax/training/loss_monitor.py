"""Collects the metrics of training steps and checks that they are finite."""

from collections.abc import Callable, Mapping, Sequence
import logging
from typing import Any, NoReturn

import jax
import numpy as np

from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoint_arrays import not_finite
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.non_finite import NonFinite
from dgnet_jax.training.skipped_updates import SKIPPED
from dgnet_jax.types import Array

logger = logging.getLogger(__name__)
Reporter = Callable[[NonFinite], str]


def broken_terms(metrics: Mapping[str, Any]) -> list[str]:
  """Returns the names of the losses that are not finite; metrics are on the host."""
  return sorted(name for name, value in metrics.items() if not np.all(np.isfinite(value)))


def broken_networks(metrics: Mapping[str, Any]) -> list[str]:
  """Returns the networks whose gradient or update is not finite, as the metrics of a skipped update name them."""
  flags = {name.removeprefix(f'{SKIPPED}/'): value for name, value in metrics.items() if name.startswith(f'{SKIPPED}/')}
  return [name for name, value in flags.items() if value]


class LossMonitor:
  """Keeps the metrics of steps on the device until their means are needed, so that no step waits for the host."""

  def __init__(
    self,
    checkpoints: Checkpoints,
    *,
    advice: str,
    max_skipped: int = 0,
    skipped: int = 0,
    reporter: Reporter | None = None,
  ) -> None:
    """Args:
    checkpoints: the run's checkpoints; an error names the latest.
    advice: what to change if a loss is not finite.
    max_skipped: how many updates of the run may be skipped.
    skipped: how many were, before this start.
    reporter: writes a report before the error is raised, and returns a sentence on it.
    """
    self._checkpoints = checkpoints
    self._advice = advice
    self._max_skipped, self._skipped = max_skipped, skipped
    self._reporter = reporter
    self._pending: list[tuple[int, Mapping[str, Array]]] = []

  def add(self, step: int, metrics: Mapping[str, Array]) -> None:
    """Adds the metrics of the iteration that starts after `step` iterations."""
    self._pending.append((step, metrics))

  @property
  def has_pending(self) -> bool:
    """Returns True if metrics were added since the last call of `means`."""
    return bool(self._pending)

  def means(self, state: Any) -> dict[str, float]:
    """Returns the mean of each current term over the steps since the last call, and over streams.

    If updates may be skipped, steps whose update was are left out, and `skipped` is their number.

    Args:
      state: state after the last step, pytree of arrays; searched if a term is not finite.

    Raises:
      UserError: a term is not finite, or too many updates were skipped; names the step, the terms, the networks and the
        last good checkpoint.
    """
    pending = jax.device_get(self._pending)
    self._pending.clear()
    kept = []
    for step, metrics in pending:
      broken = broken_terms(metrics)
      if metrics.get(SKIPPED):
        self._skip(step, broken, broken_networks(metrics), noticed_after=pending[-1][0] + 1)
      elif broken:
        arrays = not_finite(state)
        # The losses are those before the update.
        self._fail(step, broken, arrays, first_bad=step, noticed_after=pending[-1][0] + 1)
      else:
        kept.append(metrics)
    current = pending[-1][1] if pending else {}
    means = {}
    for name in current:
      values = [np.mean(metrics[name]) for metrics in kept if name in metrics]
      if values and name.split('/')[0] != SKIPPED:
        means[name] = float(np.mean(values))
    return means | ({SKIPPED: float(len(pending) - len(kept))} if SKIPPED in current else {})

  def check_state(self, done: int, state: Any) -> None:
    """Checks a state that is about to be saved: the losses of a step say nothing about its update.

    Args:
      done: number of iterations done.
      state: pytree of arrays and typed keys.

    Raises:
      UserError: an array is not finite; names the step, the array and the last good checkpoint.
    """
    if arrays := not_finite(state):
      self._fail(done - 1, [], arrays, first_bad=done, noticed_after=done)

  def _skip(self, step: int, terms: list[str], networks: list[str], *, noticed_after: int) -> None:
    """Counts and reports a skipped update; raises UserError if it is one too many."""
    self._skipped += 1
    what = [*terms, *(f'gradient or update of {name}' for name in networks)]
    cause = f'step {step}: {", ".join(what)} not finite'
    if self._skipped <= self._max_skipped:
      logger.warning(f'{cause}; its update is skipped, {self._skipped} of at most {self._max_skipped}')
      return
    problem = f'{cause}, and optimizer.skip_non_finite={self._max_skipped} updates of the run have been skipped'
    found = NonFinite(step, tuple(terms), tuple(networks), noticed_after, self._before(step + 1))
    # Nothing that is saved is bad.
    self._stop(problem, found, first_bad=noticed_after + 1)

  def _fail(
    self, step: int, terms: list[str], arrays: Sequence[str], *, first_bad: int, noticed_after: int
  ) -> NoReturn:
    """Raises the error of a step; the state after `first_bad` iterations is the first that is of no use."""
    parts = [name.split('/')[0] for name in arrays]
    if terms:
      problem = f'step {step}: {", ".join(terms)} not finite'
      if arrays:
        counts = ', '.join(f'{name} ({parts.count(name)} arrays)' for name in dict.fromkeys(parts))
        problem += f', and after step {noticed_after - 1} the state of {counts}'
    else:
      more = f' and {len(arrays) - 1} more arrays' if len(arrays) > 1 else ''
      problem = f'step {step}: after its update, {arrays[0]}{more} not finite'
    found = NonFinite(step, tuple(terms), tuple(dict.fromkeys(parts)), noticed_after, self._before(step + 1))
    self._stop(problem, found, first_bad=first_bad)

  def _before(self, done: int) -> int | None:
    """Returns the newest checkpoint after fewer than `done` iterations."""
    return max((saved for saved in self._checkpoints.steps() if saved < done), default=None)

  def _stop(self, problem: str, found: NonFinite, *, first_bad: int) -> NoReturn:
    """Writes the report, and raises the error; states from `first_bad` iterations on are of no use."""
    folder, good = self._checkpoints.folder, self._before(first_bad)
    latest = 'there is no good checkpoint yet' if good is None else f'the last good checkpoint is step {good}'
    advice = f'{self._advice}, and run the same command again'
    if first_bad in self._checkpoints.steps():
      advice = f'Remove {folder / str(first_bad)}, whose losses these are. {advice}'
    elif first_bad == 0:
      advice = 'Nothing was updated yet: check the pretrained weights and the loss weights'
    report = f' {self._reporter(found)}' if self._reporter else ''
    raise UserError(f'{problem}; {latest} in {folder}. {advice}.{report}')
