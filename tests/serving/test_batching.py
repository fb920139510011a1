"""Requests that arrive while the model is busy are computed together, in turn, and each gets its own results."""

import asyncio
import threading

import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.serving import batching  # noqa: E402 (after the checks above)
from dgnet_jax.serving.batching import BatchFunction, BatchQueue  # noqa: E402
from dgnet_jax.serving.errors import Refused  # noqa: E402


class Doubling:
  """Doubles rows; keeps the batches, and waits for `proceed` before the first one is answered."""

  def __init__(self):
    self.batches = []
    self.proceed = threading.Event()
    self.is_running = threading.Lock()

  def __call__(self, rows):
    with self.is_running:
      self.batches.append(list(rows))
      assert self.proceed.wait(20)
      if 'bad' in rows:
        raise ValueError('bad row')
      return [2 * row for row in rows]


@pytest.fixture
def doubling():
  doubling = Doubling()
  yield doubling
  doubling.proceed.set()


async def started(doubling):
  while not doubling.batches:
    await asyncio.sleep(0.001)


async def submitted(queue, *requests):
  """Tasks of requests that have arrived in this order."""
  tasks = [asyncio.create_task(queue('double', rows)) for rows in requests]
  await asyncio.sleep(0.01)
  return tasks


def queue_of(function, sizes=(1, 2, 4)):
  return BatchQueue({'double': BatchFunction(function, sizes), 'other': BatchFunction(function, [1])})


def test_waiting_rows_are_computed_together_one_of_each_request_in_turn(doubling):
  async def main():
    queue = queue_of(doubling)
    first = asyncio.create_task(queue('double', [1]))
    await started(doubling)  # an idle model begins at once, with what there is
    large, *small = await submitted(queue, [10, 11, 12, 13, 14, 15], [20], [30, 31])
    doubling.proceed.set()
    assert await asyncio.gather(first, large, *small) == [[2], [20, 22, 24, 26, 28, 30], [40], [60, 62]]

  asyncio.run(main())
  # Nine rows: the sizes are 1, 2 and 4.
  assert doubling.batches == [[1], [10, 20, 30, 11], [31, 12, 13, 14], [15]]


def test_functions_take_turns(doubling):
  async def main():
    queue = queue_of(doubling, sizes=(1,))
    first = asyncio.create_task(queue('double', [1]))
    await started(doubling)
    tasks = [*await submitted(queue, [2, 3, 4]), asyncio.create_task(queue('other', [5]))]
    await asyncio.sleep(0.01)
    doubling.proceed.set()
    await asyncio.gather(first, *tasks)

  asyncio.run(main())
  assert doubling.batches == [[1], [5], [2], [3], [4]]


def test_rows_of_cancelled_requests_are_not_computed(doubling):
  async def main():
    queue = queue_of(doubling, sizes=(1, 2))
    running = asyncio.create_task(queue('double', [1, 2, 3]))
    await started(doubling)
    gone, stays = await submitted(queue, [4, 5, 6], [7])
    gone.cancel()
    running.cancel()
    await asyncio.sleep(0.01)
    doubling.proceed.set()
    assert await stays == [14]

  asyncio.run(main())
  assert doubling.batches == [[1, 2], [7]]


def test_an_error_ends_the_requests_of_its_batch_only(doubling):
  async def main():
    queue = queue_of(doubling, sizes=(1, 2))
    first = asyncio.create_task(queue('double', [1]))
    await started(doubling)
    tasks = await submitted(queue, ['bad', 2, 3], [4], [5])
    doubling.proceed.set()
    return await asyncio.gather(first, *tasks, return_exceptions=True)

  first, bad, beside, later = asyncio.run(main())
  assert (first, later) == ([2], [10]) and str(bad) == str(beside) == 'bad row'
  assert doubling.batches == [[1], ['bad', 4], [5]]


def test_waiting_has_an_end(doubling, monkeypatch):
  async def main():
    queue = queue_of(doubling)
    first = asyncio.create_task(queue('double', [1]))
    await started(doubling)
    monkeypatch.setattr(batching, 'WAIT_SECONDS', 0.05)
    with pytest.raises(Refused, match='busy') as caught:
      await queue('double', [2])
    doubling.proceed.set()
    assert caught.value.code == 'busy' and await first == [2]  # what has begun has no such limit

  asyncio.run(main())
  assert doubling.batches == [[1]]
