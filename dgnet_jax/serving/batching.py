"""Unites the work of concurrent requests: what arrives while the networks are busy is computed in one batch."""

import asyncio
import collections
from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from starlette.concurrency import run_in_threadpool

from dgnet_jax.serving.errors import Refused

WAIT_SECONDS = 60  # until the work on a request begins; then status 503


@dataclasses.dataclass(frozen=True)
class BatchFunction:
  """A function of the model.

  Attributes:
    compute: maps a list of rows to their results, in order.
    sizes: the numbers of rows that a call may have, 1 among them. A batch has the largest that is waiting, so that
      nothing is padded.
  """

  compute: Callable[[list[Any]], Sequence[Any]]
  sizes: Sequence[int]


class _Request:
  """The rows of one request, which may be computed in several batches."""

  def __init__(self, rows: Sequence[Any]) -> None:
    self.rows = rows
    self.results: list[Any] = [None] * len(rows)
    self.num_taken = 0
    self.num_missing = len(rows)
    self.started = asyncio.Event()
    self.done: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()

  def take(self) -> int:
    """Returns the number of the next row to compute."""
    self.started.set()
    self.num_taken += 1
    return self.num_taken - 1

  def put(self, row: int, result: Any) -> None:
    self.results[row] = result
    self.num_missing -= 1
    if not self.num_missing and not self.done.done():
      self.done.set_result(self.results)

  def fail(self, error: Exception) -> None:
    if not self.done.done():
      self.done.set_exception(error)


class BatchQueue:
  """Computes the rows of requests, one batch at a time in a thread.

  If the model is idle, work begins at once. A batch takes one row of each waiting request in turn, in order of arrival,
  so that a request of many images does not delay those of few; the functions take turns likewise.
  """

  def __init__(self, functions: Mapping[str, BatchFunction]) -> None:
    """Takes the functions by their names."""
    self._functions = functions
    self._waiting: dict[str, collections.deque[_Request]] = {name: collections.deque() for name in functions}
    self._worker: asyncio.Task[None] | None = None

  async def __call__(self, name: str, rows: Sequence[Any]) -> list[Any]:
    """Returns the results of a function for the rows of a request, at least one.

    If the caller is cancelled, the rows that are not being computed are dropped.

    Raises:
      Refused: the work on it does not begin within `WAIT_SECONDS`.
      Exception: what the function raises.
    """
    request = _Request(rows)
    waiting = self._waiting[name]
    waiting.append(request)
    if self._worker is None or self._worker.done():
      self._worker = asyncio.create_task(self._work())
    try:
      async with asyncio.timeout(WAIT_SECONDS):
        await request.started.wait()
      return await request.done
    except TimeoutError:
      raise Refused('busy', f'the server is busy: no turn within {WAIT_SECONDS} seconds; try again later') from None
    finally:
      if request in waiting:
        waiting.remove(request)

  async def _work(self) -> None:
    while any(self._waiting.values()):
      for name, function in self._functions.items():
        batch = _take(self._waiting[name], function.sizes)
        if batch:
          await _compute(function, batch, self._waiting[name])


def _take(waiting: collections.deque[_Request], sizes: Sequence[int]) -> list[tuple[_Request, int]]:
  """Takes requests, each with the number of one of its rows, for one batch."""
  num_rows = sum(len(request.rows) - request.num_taken for request in waiting)
  size = max((size for size in sizes if size <= num_rows), default=0)
  batch: list[tuple[_Request, int]] = []
  while len(batch) < size:
    request = waiting.popleft()
    batch.append((request, request.take()))
    if request.num_taken < len(request.rows):
      waiting.append(request)
  return batch


async def _compute(
  function: BatchFunction, batch: Sequence[tuple[_Request, int]], waiting: collections.deque[_Request]
) -> None:
  rows = [request.rows[row] for request, row in batch]
  try:
    results = await run_in_threadpool(function.compute, rows)
  except Exception as error:  # the worker goes on with other requests
    for request, _ in batch:
      request.fail(error)
      if request in waiting:
        waiting.remove(request)
    return
  for (request, row), result in zip(batch, results, strict=True):
    request.put(row, result)
