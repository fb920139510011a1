"""Clients that are slow, idle or many do not keep the page from others. Real sockets, without a model."""

import concurrent.futures
import contextlib
import threading
import time

import pytest

EXTRA = "the extra 'page' is not installed: pip install -e '.[page]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)

from dgnet_jax.page import limits, server  # noqa: E402 (after the checks above)
from tests.page.served_page import connect, is_open, send, served, upload  # noqa: E402

RANK = f'POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: {server.UPLOAD_TYPE}\r\n'.encode()
SECONDS = 0.3  # stands for a limit of many
NOT_YET = 20 * SECONDS  # by then, what a limit ends has ended


class Service:
  """Reads and ranks at once, unless an image says to wait for `proceed`."""

  def __init__(self):
    self.proceed = threading.Event()
    self.num_read = 0

  def about(self):
    return {}

  def read(self, content, name):
    if content == b'slow image':
      assert self.proceed.wait(20)
    self.num_read += 1
    return content

  def rank(self, query):
    if query == b'slow search':
      assert self.proceed.wait(20)
    return query.decode() if query != b'large' else 'x' * 30_000_000

  def show(self, matches):
    if matches == 'slow gallery':
      assert self.proceed.wait(20)
    return {'matches': matches}


@pytest.fixture
def service():
  service = Service()
  yield service
  service.proceed.set()


@pytest.fixture
def page(service):
  with served(service) as address:
    yield address
    service.proceed.set()


@pytest.fixture
def opened(page):
  """Opens connections that are closed at the end."""
  with contextlib.ExitStack() as stack:
    yield lambda *arguments: stack.enter_context(connect(page, *arguments))


@pytest.fixture
def pool(service):
  with concurrent.futures.ThreadPoolExecutor(limits.MAX_PER_CLIENT + 2) as pool:
    yield pool
    service.proceed.set()


def until(condition):
  start = time.monotonic()
  while not condition():
    assert time.monotonic() - start < NOT_YET, 'timed out'
    time.sleep(0.01)


@pytest.mark.parametrize('others', [1, 12], ids=['one client', 'many clients'])
@pytest.mark.parametrize('content', [b'', b'GET /abo'], ids=['idle', 'half a header'])
def test_idle_connections_do_not_starve_the_page(page, opened, others, content):
  connections = [opened(content, f'127.0.0.{1 + i % others}') for i in range(80)]
  assert send(page, 'GET', '/about')[0] == 200
  most = limits.MAX_CONNECTIONS if others > 1 else limits.MAX_PER_CLIENT
  until(lambda: sum(map(is_open, connections)) <= most)
  assert is_open(connections[-1]) and not is_open(connections[0])


@pytest.mark.parametrize('before', [b'', b'GET /about HTTP/1.1\r\nHost: localhost\r\n\r\n'], ids=['new', 'kept alive'])
def test_a_header_must_arrive_in_time(monkeypatch, opened, before):
  monkeypatch.setattr(limits, 'IDLE_SECONDS', SECONDS)
  connection = opened(before)
  if before:
    assert connection.recv(10_000).startswith(b'HTTP/1.1 200')
  connection.sendall(b'GET /about HTTP/1.1\r\n')

  def is_closed():
    with contextlib.suppress(ConnectionError):
      connection.sendall(b'A: b\r\n')
      return not is_open(connection)
    return True

  until(is_closed)


def test_an_upload_must_arrive_in_time(monkeypatch, opened):
  monkeypatch.setattr(server, 'UPLOAD_SECONDS', SECONDS)
  connection = opened(RANK + b'Content-Length: 1000\r\n\r\nabc')
  answer = b''
  while not answer.endswith(b'}'):
    answer += connection.recv(10_000)
  assert answer.startswith(b'HTTP/1.1 400') and b'must arrive within 0.3 seconds' in answer


def test_a_response_must_be_read_in_time(monkeypatch, opened):
  monkeypatch.setattr(limits, 'IDLE_SECONDS', SECONDS)
  monkeypatch.setattr(limits, 'REQUEST_SECONDS', SECONDS)
  connection = opened(RANK + b'Content-Length: 5\r\n\r\nlarge')
  received = 0
  with contextlib.suppress(ConnectionError):
    while part := connection.recv(100_000):  # all of it would take 6 seconds
      received += len(part)
      time.sleep(0.02)
  assert received < 30_000_000


def test_a_request_that_takes_too_long_is_closed(monkeypatch, opened):
  monkeypatch.setattr(limits, 'REQUEST_SECONDS', SECONDS)
  connection = opened(RANK + b'Content-Length: 11\r\n\r\nslow search')
  until(lambda: not is_open(connection))


def test_a_slow_image_keeps_nobody_waiting(page, service, pool):
  slow = [pool.submit(upload, page, '/rank', b'slow image') for _ in range(server.MAX_DECODED_PER_CLIENT - 1)]
  assert upload(page, '/rank', b'fast') == (200, {'matches': 'fast'})
  service.proceed.set()
  assert [request.result() for request in slow] == [(200, {'matches': 'slow image'})] * len(slow)


def test_a_slow_image_of_the_gallery_does_not_hold_the_model(page, service, pool):
  slow = pool.submit(upload, page, '/rank', b'slow gallery')
  until(lambda: service.num_read == 1)
  assert upload(page, '/rank', b'fast') == (200, {'matches': 'fast'}) and not slow.done()
  service.proceed.set()
  assert slow.result() == (200, {'matches': 'slow gallery'})


def test_slow_images_of_one_client_keep_no_other_waiting(page, opened, service):
  content = RANK + b'Content-Length: 10\r\n\r\nslow image'
  slow = [opened(content, '127.0.0.2') for _ in range(server.MAX_DECODED + 1)]
  assert upload(page, '/rank', b'fast') == (200, {'matches': 'fast'})
  assert all(map(is_open, slow))
  service.proceed.set()
  until(lambda: not any(map(is_open, slow)))


def test_waiting_for_the_model_has_an_end(monkeypatch, page, service, pool):
  slow = pool.submit(upload, page, '/rank', b'slow search')
  until(lambda: service.num_read == 1)
  monkeypatch.setattr(server, 'WAIT_SECONDS', SECONDS)
  assert upload(page, '/rank', b'fast')[0] == 503 and not slow.done()


def test_a_client_with_too_many_requests_is_refused(page, opened, service):
  busy = [opened(RANK + b'Content-Length: 11\r\n\r\nslow search') for _ in range(limits.MAX_PER_CLIENT)]
  until(lambda: service.num_read == len(busy))
  assert send(page, 'GET', '/about')[0] == 503
  assert all(map(is_open, busy))
  other = opened(b'GET /about HTTP/1.1\r\nHost: localhost\r\n\r\n', '127.0.0.2')
  assert other.recv(10_000).startswith(b'HTTP/1.1 200')
