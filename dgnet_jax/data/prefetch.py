"""From an iterator of batches to arrays on devices, one batch ahead of the consumer."""

from collections.abc import Iterator
import queue
import threading
from typing import Any, Generic, Self, TypeVar
import weakref

import jax

from dgnet_jax.sharding import batch_sharding, place_rows

CLOSE_SECONDS = 10.0  # how long closing waits for a source that is producing a batch

_Batch = TypeVar('_Batch')  # a pytree of arrays


class _End:
  """The last entry of the queue: the end of the batches and its cause."""

  def __init__(self, error: BaseException | None) -> None:
    self.error = error


def _feed(
  host_iterator: Iterator[_Batch],
  sharding: jax.sharding.NamedSharding,
  ready: 'queue.Queue[_Batch | _End]',
  stop: threading.Event,
) -> None:
  """The body of the thread. It holds no reference to the DeviceFeed, so that an unused feed can be collected.

  After `stop` is set it puts at most one more entry, for which `_stop` makes room, so it never blocks forever.
  """
  end = _End(None)
  try:
    for batch in host_iterator:
      if stop.is_set():
        break
      ready.put(place_rows(batch, sharding))
      if stop.is_set():
        break
  except BaseException as error:  # re-raised in the consumer's thread
    end = _End(error)
  finally:
    if hasattr(host_iterator, 'close'):
      host_iterator.close()
  if not stop.is_set():
    ready.put(end)


def _stop(thread: threading.Thread, ready: 'queue.Queue[Any]', stop: threading.Event) -> None:
  stop.set()
  try:
    ready.get_nowait()
  except queue.Empty:
    pass
  thread.join(CLOSE_SECONDS)


class DeviceFeed(Generic[_Batch]):
  """Iterator over batches on devices; a thread reads and transfers the next ones ahead of time. Close it when done."""

  def __init__(self, host_iterator: Iterator[_Batch], sharding: jax.sharding.NamedSharding) -> None:
    """Starts the thread.

    Args:
      host_iterator: pytrees of numpy arrays, the rows of this process; closed at the end. Arrays that have the
        sharding already pass through.
      sharding: sharding of the global arrays.
    """
    self._ready: queue.Queue[_Batch | _End] = queue.Queue(maxsize=1)  # one batch waits, another is in transfer
    stop = threading.Event()
    thread = threading.Thread(
      target=_feed, args=(host_iterator, sharding, self._ready, stop), name='device_feed', daemon=True
    )
    # Also runs at interpreter exit, so that no thread is inside JAX when JAX shuts down.
    self._finalizer = weakref.finalize(self, _stop, thread, self._ready, stop)
    thread.start()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> _Batch:
    if not self._finalizer.alive:
      raise StopIteration
    entry = self._ready.get()
    if not isinstance(entry, _End):
      return entry
    self.close()
    if entry.error is not None:
      raise entry.error
    raise StopIteration

  def close(self) -> None:
    """Ends the thread and the batches. Calling it again has no effect."""
    self._finalizer()


def device_batches(host_iterator: Iterator[_Batch], mesh: jax.sharding.Mesh) -> DeviceFeed[_Batch]:
  """Moves batches to devices, one ahead of the consumer.

  Args:
    host_iterator: pytrees of numpy arrays [B, ...], this process's rows of the global batch. Global arrays that are
      split along 'data' already, like those of loader device, pass through.
    mesh: mesh with the axis 'data'.

  Returns:
    An iterator of the same pytrees with global arrays, split along 'data'. It raises what `host_iterator` raises, after
    the batches before; and UserError for a batch that is not divisible by the number of devices. It has `close()`.
  """
  return DeviceFeed(host_iterator, batch_sharding(mesh))
