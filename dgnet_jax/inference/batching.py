"""Applies functions of batches to sequences of any length."""

from collections.abc import Callable, Iterator
import logging
from typing import Any

import jax
import numpy as np

from dgnet_jax.sharding import batch_sharding
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)


class BatchedFunction:
  """Applies a function to long sequences in batches of one size, so that it is compiled once.

  The last batch is padded with zeros, and the output of the padding is dropped. The next batch is read while the device
  computes the last one. Inputs and outputs are pytrees with one row per example in every leaf; the leaves of inputs may
  be read lazily (`data.lazy_images.ImageSequence`).

  Args:
    function: jitted; maps pytrees of arrays with a leading batch axis to one.
    batch_size: examples per call, rounded up to a multiple of the number of devices.
    mesh: devices that each batch is split over.
  """

  def __init__(self, function: Callable[..., Any], *, batch_size: int, mesh: jax.sharding.Mesh) -> None:
    self._function = function
    self._batch_size = -(-batch_size // mesh.size) * mesh.size
    self._sharding = batch_sharding(mesh)

  def __call__(self, *inputs: Any, label: str) -> Any:
    """Returns the outputs for all rows as NumPy arrays.

    Args:
      *inputs: one pytree per argument of the function, all with the same number N > 0 of rows.
      label: names the work in progress lines.
    """
    return jax.tree.map(lambda *parts: np.concatenate(parts), *self.batches(*inputs, label=label))

  def batches(self, *inputs: Any, label: str) -> Iterator[Any]:
    """Like `__call__`, but yields the outputs batch by batch, in bounded memory.

    Raises:
      ValueError: at the call, if the inputs have different numbers of rows.
    """
    lengths = [len(leaf) for leaf in jax.tree.leaves(inputs)]
    if len(set(lengths)) != 1:
      raise ValueError(f'{label}: inputs of different lengths, {lengths}')
    return self._batches(inputs, lengths[0], label)

  def _batches(self, inputs: tuple[Any, ...], total: int, label: str) -> Iterator[Any]:
    progress = ProgressLog(logger, label, total, 'images')
    pending: tuple[Any, int] | None = None
    for start in range(0, total, self._batch_size):
      count = min(self._batch_size, total - start)
      batch = jax.tree.map(lambda rows, start=start: self._padded(rows[start : start + self._batch_size]), inputs)
      running = self._function(*jax.device_put(batch, self._sharding)), count
      if pending:
        yield _on_host(*pending)
      pending = running
      progress.update(start)
    if pending:
      yield _on_host(*pending)

  def _padded(self, rows: np.ndarray) -> np.ndarray:
    missing = self._batch_size - len(rows)
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def _on_host(outputs: Any, count: int) -> Any:
  """Returns the first `count` rows of every leaf."""
  return jax.tree.map(lambda leaf: np.asarray(leaf)[:count], outputs)
