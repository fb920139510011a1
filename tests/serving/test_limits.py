"""Clients that are slow, idle or many do not keep the server from others. Real sockets, without a model."""

import concurrent.futures
import contextlib
import json
import threading
import time

import numpy as np
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.serving import app, batching, endings, limits, server, uploads  # noqa: E402 (after the checks above)
from dgnet_jax.serving.batching import BatchFunction  # noqa: E402
from tests.serving.http_client import FORM, connect, form, is_open, post, send, served  # noqa: E402

RANK = f'POST /rank HTTP/1.1\r\nHost: localhost\r\nContent-Type: {FORM}\r\n'.encode()
SECONDS = 0.3  # stands for a limit of many
NOT_YET = 20 * SECONDS  # by then, what a limit ends has ended


def rank_request(image):
  body = form(images=image)
  return RANK + f'Content-Length: {len(body)}\r\n\r\n'.encode() + body


class Service:
  """Reads and ranks at once, unless an image says to wait for `proceed`."""

  def __init__(self):
    self.proceed = threading.Event()
    self.num_read = 0
    self.functions = {'embed': BatchFunction(self.embed, [1])}

  def health(self):
    return {}

  def check_gallery(self):
    pass

  def read(self, content, name):
    if content == b'slow image':
      assert self.proceed.wait(20)
    self.num_read += 1
    return content

  def embed(self, images):
    if images == [b'slow search']:
      assert self.proceed.wait(20)
    return images

  def rank(self, queries, count):
    return [query.decode() if query != b'large' else 'x' * 30_000_000 for query in queries]

  def thumbnail(self, index):
    assert self.proceed.wait(20)
    return np.zeros((2, 2, 3), np.uint8)


def answer(image):
  return 200, {'rankings': [image]}


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
  with concurrent.futures.ThreadPoolExecutor(limits.MAX_REQUESTS_PER_CLIENT + 2) as pool:
    yield pool
    service.proceed.set()


def received(connection):
  """All that the server sends before it closes the connection."""
  return b''.join(iter(lambda: connection.recv(10_000), b''))


def until(condition):
  start = time.monotonic()
  while not condition():
    assert time.monotonic() - start < NOT_YET, 'timed out'
    time.sleep(0.01)


@pytest.mark.parametrize('others', [1, 12], ids=['one client', 'many clients'])
@pytest.mark.parametrize('content', [b'', b'GET /hea'], ids=['idle', 'half a header'])
def test_idle_connections_do_not_starve_the_page(page, opened, others, content, monkeypatch):
  monkeypatch.setattr(limits, 'MAX_CONNECTIONS', 40)
  monkeypatch.setattr(limits, 'MAX_CONNECTIONS_PER_CLIENT', 20)
  connections = [opened(content, f'127.0.0.{1 + i % others}') for i in range(80)]
  assert send(page, 'GET', '/health')[0] == 200
  most = limits.MAX_CONNECTIONS if others > 1 else limits.MAX_CONNECTIONS_PER_CLIENT
  until(lambda: sum(map(is_open, connections)) <= most)
  assert is_open(connections[-1]) and not is_open(connections[0])


@pytest.mark.parametrize('before', [b'', b'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n'], ids=['new', 'kept alive'])
def test_a_header_must_arrive_in_time(monkeypatch, opened, before):
  monkeypatch.setattr(limits, 'IDLE_SECONDS', SECONDS)
  connection = opened(before)
  if before:
    assert connection.recv(10_000).startswith(b'HTTP/1.1 200')
  connection.sendall(b'GET /health HTTP/1.1\r\n')

  def is_closed():
    with contextlib.suppress(ConnectionError):
      connection.sendall(b'A: b\r\n')
      return not is_open(connection)
    return True

  until(is_closed)


def test_an_upload_must_arrive_in_time(monkeypatch, opened):
  monkeypatch.setattr(uploads, 'UPLOAD_SECONDS', SECONDS)
  connection = opened(RANK + b'Content-Length: 1000\r\n\r\nabc')
  answer = b''
  while not answer.endswith(b'}'):
    answer += connection.recv(10_000)
  assert answer.startswith(b'HTTP/1.1 408') and b'must arrive within 0.3 seconds' in answer


@pytest.mark.parametrize(
  ('headers', 'status'),
  [
    (RANK + b'Origin: http://elsewhere.org\r\n', 403),
    (RANK.replace(FORM.encode(), b'text/plain'), 415),
    (RANK.replace(b'localhost', b'elsewhere.org'), 400),
    (RANK.replace(b'/rank', b'/absent'), 404),
    (RANK, 413),
  ],
)
@pytest.mark.parametrize('size', [2**22, 60 * 2**20])
def test_the_client_of_a_refused_upload_gets_the_answer(opened, headers, status, size):
  """The client reads nothing before it has sent everything."""
  size += 2**25 if status == 413 else 0
  connection = opened(headers + f'Connection: close\r\nContent-Length: {size}\r\n\r\n'.encode())
  for _ in range(size // 2**20):
    connection.sendall(bytes(2**20))
  answer = received(connection)
  assert answer.startswith(f'HTTP/1.1 {status}'.encode()) and json.loads(answer.partition(b'\r\n\r\n')[2])['error']


def test_a_refused_upload_that_does_not_end_is_closed(monkeypatch, opened):
  monkeypatch.setattr(endings, 'DISCARD_SECONDS', SECONDS)
  connection = opened(RANK + b'Connection: close\r\nOrigin: http://elsewhere.org\r\nContent-Length: 1000\r\n\r\nabc')
  start = time.monotonic()
  answer = received(connection)
  assert answer.startswith(b'HTTP/1.1 403') and time.monotonic() - start < NOT_YET


def test_what_is_not_http_is_refused_with_json(opened):
  for content in (b'nonsense\r\n\r\n', b'GET / HTTP/1.1\r\n\r\n'):
    connection = opened(content)
    head, _, body = received(connection).partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 400') and b'x-content-type-options: nosniff' in head
    assert json.loads(body)['error']['code'] == 'malformed'


def test_an_upload_that_does_not_end_is_answered_when_the_server_stops(monkeypatch, service):
  monkeypatch.setattr(server, 'SHUTDOWN_SECONDS', 1)
  monkeypatch.setattr(endings, 'DISCARD_SECONDS', SECONDS)
  with served(service) as address:
    connection = connect(address, RANK + b'Content-Length: 1000\r\n\r\nabc')
    assert send(address, 'GET', '/health')[0] == 200  # the other request has begun
  with connection:
    answer = received(connection)
  assert answer.startswith(b'HTTP/1.1 503') and json.loads(answer.partition(b'\r\n\r\n')[2])['error']['code'] == 'busy'


def test_a_response_must_be_read_in_time(monkeypatch, opened):
  monkeypatch.setattr(limits, 'IDLE_SECONDS', SECONDS)
  monkeypatch.setattr(limits, 'REQUEST_SECONDS', SECONDS)
  connection = opened(rank_request(b'large'))
  received = 0
  with contextlib.suppress(ConnectionError):
    while part := connection.recv(100_000):  # all of it would take 6 seconds
      received += len(part)
      time.sleep(0.02)
  assert received < 30_000_000


def test_a_request_that_takes_too_long_is_closed(monkeypatch, opened):
  monkeypatch.setattr(limits, 'REQUEST_SECONDS', SECONDS)
  connection = opened(rank_request(b'slow search'))
  until(lambda: not is_open(connection))


def test_a_slow_image_keeps_nobody_waiting(page, service, pool):
  slow = [pool.submit(post, page, '/rank', images=b'slow image') for _ in range(app.MAX_DECODED_PER_CLIENT - 1)]
  assert post(page, '/rank', images=b'fast') == answer('fast')
  service.proceed.set()
  assert [request.result() for request in slow] == [answer('slow image')] * len(slow)


def test_a_slow_image_of_the_gallery_does_not_hold_the_model(page, service, pool):
  slow = pool.submit(send, page, 'GET', '/gallery/3')
  assert post(page, '/rank', images=b'fast') == answer('fast') and not slow.done()
  service.proceed.set()
  status, headers, _ = slow.result()
  assert (status, headers['content-type']) == (200, 'image/png')


def test_slow_images_of_one_client_keep_no_other_waiting(page, opened, service):
  content = rank_request(b'slow image')
  slow = [opened(content, '127.0.0.2') for _ in range(app.MAX_DECODED + 1)]
  assert post(page, '/rank', images=b'fast') == answer('fast')
  assert all(map(is_open, slow))
  service.proceed.set()
  until(lambda: not any(map(is_open, slow)))


def test_waiting_for_the_model_has_an_end(monkeypatch, page, service, pool):
  slow = pool.submit(post, page, '/rank', images=b'slow search')
  until(lambda: service.num_read == 1)
  monkeypatch.setattr(batching, 'WAIT_SECONDS', SECONDS)
  status, _, body = send(page, 'POST', '/rank', form(images=b'fast'), content_type=FORM)
  assert status == 503 and json.loads(body)['error']['code'] == 'busy' and not slow.done()


def test_images_of_clients_that_have_gone_are_not_computed(page, opened, service, pool):
  embedded = []
  service.functions['embed'] = BatchFunction(lambda images: embedded.extend(images) or service.embed(images), [1])
  with served(service) as address:
    slow = pool.submit(post, address, '/rank', images=b'slow search')
    until(lambda: embedded)
    gone = connect(address, rank_request(b'gone'))
    until(lambda: service.num_read == 2)
    gone.close()
    stays = pool.submit(post, address, '/rank', images=b'stays')
    until(lambda: service.num_read == 3)
    time.sleep(0.1)  # for the server to see what has been closed
    service.proceed.set()
    assert (slow.result(), stays.result()) == (answer('slow search'), answer('stays'))
  assert embedded == [b'slow search', b'stays']


def test_a_client_with_too_many_requests_is_refused(page, opened, service):
  busy = [opened(rank_request(b'slow search')) for _ in range(limits.MAX_REQUESTS_PER_CLIENT)]
  until(lambda: service.num_read == len(busy))
  status, headers, body = send(page, 'GET', '/health')
  assert status == 429 and json.loads(body)['error']['code'] == 'too_many_requests' and headers['retry-after'] == '1'
  assert all(map(is_open, busy))
  other = opened(b'GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n', '127.0.0.2')
  assert other.recv(10_000).startswith(b'HTTP/1.1 200')


def test_all_of_many_uploads_at_once_are_answered(page, service):
  """As many connections as a client may have, with bodies of several MiB, none of which waits for another."""
  body = form(images=bytes(3 * 2**20))
  with concurrent.futures.ThreadPoolExecutor(40) as pool:
    requests = [
      pool.submit(send, page, 'POST', '/rank', body, content_type=FORM, connection='close') for _ in range(40)
    ]
    statuses = [request.result()[0] for request in requests]
  assert set(statuses) <= {200, 429} and statuses.count(200) >= limits.MAX_REQUESTS_PER_CLIENT


def test_a_server_with_too_many_requests_says_so(monkeypatch, page, opened, service):
  monkeypatch.setattr(limits, 'MAX_REQUESTS', 1)
  busy = opened(rank_request(b'slow search'), '127.0.0.2')
  until(lambda: service.num_read == 1)
  status, _, body = send(page, 'GET', '/health')
  assert status == 503 and json.loads(body)['error']['code'] == 'busy' and is_open(busy)
