"""From a host iterator of numpy batches to arrays on devices, one batch ahead of the consumer."""

from collections.abc import Iterator
import queue
import threading
from typing import Any, Self
import weakref

import jax

from dgnet_jax.errors import UserError
from dgnet_jax.sharding import batch_sharding

CLOSE_SECONDS = 10.0  # how long closing waits for a source that is in the middle of a batch


def _put(batch: Any, sharding: jax.sharding.NamedSharding) -> Any:
  rows, devices = len(jax.tree.leaves(batch)[0]), len(sharding.mesh.local_devices)
  if rows % devices:
    raise UserError(f'a batch of {rows} does not divide among {devices} devices; change batch_size')
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


class _End:
  """The last thing in the queue: why there is no more."""

  def __init__(self, error: BaseException | None) -> None:
    self.error = error


def _feed(host_iterator: Iterator[Any], sharding: jax.sharding.NamedSharding, ready: queue.Queue, stop: Any) -> None:
  """The thread's work. Knows nothing of the DeviceFeed, so that a forgotten one can be collected.

  After `stop` is set it puts at most once more, and whoever sets it makes room for that: it never blocks for ever.
  """
  end = _End(None)
  try:
    for batch in host_iterator:
      if stop.is_set():
        break
      ready.put(_put(batch, sharding))
      if stop.is_set():
        break
  except BaseException as error:  # the consumer's thread shall see whatever it is
    end = _End(error)
  finally:
    if hasattr(host_iterator, 'close'):
      host_iterator.close()
  if not stop.is_set():
    ready.put(end)


def _stop(thread: threading.Thread, ready: queue.Queue, stop: threading.Event) -> None:
  stop.set()
  try:
    ready.get_nowait()
  except queue.Empty:
    pass
  thread.join(CLOSE_SECONDS)


class DeviceFeed:
  """Iterator of batches on devices; a thread reads and transfers the next ones meanwhile. Close it when done."""

  def __init__(self, host_iterator: Iterator[Any], sharding: jax.sharding.NamedSharding) -> None:
    """Args:
    host_iterator: of pytrees of numpy arrays, this process's rows; closed at the end.
    sharding: of the global arrays.
    """
    self._ready: queue.Queue = queue.Queue(maxsize=1)  # one waits on the device, one is on its way
    stop = threading.Event()
    thread = threading.Thread(
      target=_feed, args=(host_iterator, sharding, self._ready, stop), name='device_feed', daemon=True
    )
    # Also runs when the interpreter ends, before a thread inside JAX could outlive JAX.
    self._finalizer = weakref.finalize(self, _stop, thread, self._ready, stop)
    thread.start()

  def __iter__(self) -> Self:
    return self

  def __next__(self) -> Any:
    if not self._finalizer.alive:
      raise StopIteration
    batch = self._ready.get()
    if not isinstance(batch, _End):
      return batch
    self.close()
    if batch.error is not None:
      raise batch.error
    raise StopIteration

  def close(self) -> None:
    """Ends the thread; no batch comes after it. Closing twice is fine."""
    self._finalizer()


def device_batches(host_iterator: Iterator[Any], mesh: jax.sharding.Mesh) -> DeviceFeed:
  """Moves batches to devices, one ahead of the consumer.

  Args:
    host_iterator: of pytrees of numpy arrays [B, ...]: this process's rows of the global batch.
    mesh: with the axis 'data'.

  Returns:
    An iterator of the same pytrees with global arrays, split along 'data'. What `host_iterator` raises is raised by the
    iterator, in order; so is UserError for a batch that does not divide among the devices. Has `close()`.
  """
  return DeviceFeed(host_iterator, batch_sharding(mesh))
