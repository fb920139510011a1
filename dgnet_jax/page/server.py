"""Serves the page: the model works on one request at a time, uploads stay in memory, no other site is used."""

import asyncio
from collections.abc import AsyncIterator, Callable
import contextlib
import ipaddress
import logging
import pathlib
import re
import socket
from typing import TypeVar
import weakref

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
import uvicorn

from dgnet_jax.errors import UserError
from dgnet_jax.page.limits import LimitedProtocol
from dgnet_jax.page.service import MAX_BYTES, PageService

logger = logging.getLogger(__name__)
Result = TypeVar('Result')

STATIC = pathlib.Path(__file__).parent / 'static'
# Browsers send this type across sites only after a preflight request, which this server does not grant: other pages in
# the visitor's browser cannot use it.
UPLOAD_TYPE = 'application/octet-stream'
UPLOAD_SECONDS = 60  # from a request's header to the end of its images
WAIT_SECONDS = 60  # for the images of other requests to be decoded, and for the model; then status 503
MAX_DECODED = 4  # requests whose images are decoded at a time
MAX_DECODED_PER_CLIENT = 2  # of one address
SHUTDOWN_SECONDS = 3  # that running requests get to finish after Ctrl-C
HEADERS = {
  b'cache-control': b'no-store',  # no image stays in the browser's cache on disk
  # The browser enforces that nothing is loaded from other sites.
  b'content-security-policy': b"default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
  b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  b'referrer-policy': b'no-referrer',
  b'x-content-type-options': b'nosniff',
}


class _WithHeaders:
  """Adds `HEADERS` to every response."""

  def __init__(self, app: ASGIApp) -> None:
    self._app = app

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    async def send_more(message: Message) -> None:
      if message['type'] == 'http.response.start':
        message['headers'] = [*message['headers'], *HEADERS.items()]
      await send(message)

    await self._app(scope, receive, send_more)


def is_loopback(host: str) -> bool:
  """Returns True if a server at `host` can be reached from this machine only."""
  with contextlib.suppress(ValueError):
    return ipaddress.ip_address(host).is_loopback
  return host == 'localhost'


def listen(host: str, port: int) -> socket.socket:
  """Binds the port before the slow start-up, so that early browsers wait instead of failing.

  Args:
    host: name or address to listen at.
    port: 0 is any free port.

  Raises:
    UserError: the port is in use or not permitted, or the host is not one of this machine's.
  """
  if not 0 <= port < 2**16:
    raise UserError(f'{port=} must be in [0, {2**16 - 1}]; 0 is any free port')
  try:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listening = socket.socket(family, kind, protocol)
    try:
      listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      listening.bind(address)
      listening.listen()
    except OSError:
      listening.close()
      raise
  except OSError as error:
    raise UserError(f'{host} port {port}: {error.strerror or error}; use --host and --port to choose others') from error
  return listening


async def _upload(request: Request, limit: int) -> bytes:
  """Reads the body, and stops as soon as it is too large.

  Raises:
    UserError: the body is larger than `limit` bytes, takes too long, or has another content type.
  """
  if request.headers.get('content-type') != UPLOAD_TYPE:
    raise UserError(f'images must be sent as {UPLOAD_TYPE}')
  content = bytearray()
  try:
    async with asyncio.timeout(UPLOAD_SECONDS):
      async for part in request.stream():
        content += part
        if len(content) > limit:
          raise UserError(f'the upload is too large: an image may have at most {MAX_BYTES // 2**20} MiB')
  except TimeoutError:
    raise UserError(f'the upload takes too long: images must arrive within {UPLOAD_SECONDS} seconds') from None
  return bytes(content)


async def _pair(request: Request) -> dict[str, bytes]:
  """Reads two concatenated images, by their names; the query parameter `first` is the length of the first."""
  content = await _upload(request, 2 * MAX_BYTES)
  length = request.query_params.get('first', '')
  if not (re.fullmatch('[0-9]{1,9}', length) and int(length) <= len(content)):
    raise UserError(f'first={length[:20]!r} is not the length in bytes of the first of two images')
  return {'image A': content[: int(length)], 'image B': content[int(length) :]}


class _BusyError(Exception):
  """A request waited too long for its turn."""


@contextlib.asynccontextmanager
async def _turn(request: Request, *locks: asyncio.Lock | asyncio.Semaphore) -> AsyncIterator[None]:
  """Holds the locks, which are acquired in this order.

  Raises:
    _BusyError: that takes too long.
    ClientDisconnect: the client has gone meanwhile.
  """
  async with contextlib.AsyncExitStack() as held:
    try:
      async with asyncio.timeout(WAIT_SECONDS):
        for lock in locks:
          await held.enter_async_context(lock)
    except TimeoutError:
      raise _BusyError from None
    if await request.is_disconnected():
      raise ClientDisconnect
    yield


def make_app(service: PageService, host: str) -> Starlette:
  """Returns the page as an ASGI application.

  Args:
    service: reads the images of a few requests at a time, so that no image keeps the others waiting; everything else is
      done for one request at a time, in order of arrival.
    host: where the server listens. If it is this machine only, requests that name another host are refused; otherwise
      another site could resolve its name to this machine and read the gallery.
  """
  model, decoders = asyncio.Lock(), asyncio.Semaphore(MAX_DECODED)
  by_client: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

  async def read(request: Request, contents: dict[str, bytes]) -> list[np.ndarray]:
    address = request.client.host if request.client else ''
    of_client = by_client.setdefault(address, asyncio.Semaphore(MAX_DECODED_PER_CLIENT))
    async with _turn(request, of_client, decoders):
      return [await run_in_threadpool(service.read, content, name) for name, content in contents.items()]

  async def compute(request: Request, function: Callable[..., Result], *arguments: object) -> Result:
    async with _turn(request, model):
      return await run_in_threadpool(function, *arguments)

  async def about(request: Request) -> JSONResponse:
    return JSONResponse(service.about())

  async def swap(request: Request) -> JSONResponse:
    return JSONResponse(await compute(request, service.swap, *await read(request, await _pair(request))))

  async def interpolate(request: Request) -> JSONResponse:
    people = await read(request, await _pair(request))
    change = request.query_params.get('change', '')
    return JSONResponse(await compute(request, service.interpolate, change, *people))

  async def rank(request: Request) -> JSONResponse:
    query = {'the image': await _upload(request, MAX_BYTES)}
    matches = await compute(request, service.rank, *await read(request, query))
    async with _turn(request, decoders):
      return JSONResponse(await run_in_threadpool(service.show, matches))

  async def refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({'error': str(error) or 'the browser disconnected'}, status_code=400)

  async def busy(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({'error': 'the server is busy'}, status_code=503)

  return Starlette(
    routes=[
      Route('/about', about),
      Route('/swap', swap, methods=['POST']),
      Route('/interpolate', interpolate, methods=['POST']),
      Route('/rank', rank, methods=['POST']),
      Mount('/', StaticFiles(directory=STATIC, html=True)),
    ],
    middleware=[
      Middleware(_WithHeaders),
      Middleware(TrustedHostMiddleware, allowed_hosts=_allowed_hosts(host), www_redirect=False),
    ],
    exception_handlers={UserError: refused, ClientDisconnect: refused, _BusyError: busy},
  )


def _allowed_hosts(host: str) -> list[str]:
  """Returns the host names that requests may use."""
  return ['localhost', '127.0.0.1', '::1', '[::1]', host] if is_loopback(host) else ['*']


def make_server(service: PageService, host: str) -> uvicorn.Server:
  """Returns a server of the page, without an access log."""
  config = uvicorn.Config(
    make_app(service, host),
    access_log=False,
    http=LimitedProtocol,
    lifespan='off',
    log_config=None,
    log_level='error',
    loop='asyncio',
    proxy_headers=False,
    server_header=False,
    timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    ws='none',
  )
  return uvicorn.Server(config)


def serve(service: PageService, listening: socket.socket, host: str) -> None:
  """Serves the page until Ctrl-C.

  Args:
    service: computes the responses.
    listening: from `listen`.
    host: the argument of `listen`.
  """
  logger.info('compiling')
  service.warm_up()
  url_host = f'[{host}]' if ':' in host else host
  logger.info(f'serving the page at http://{url_host}:{listening.getsockname()[1]}/ (stop with Ctrl-C)')
  with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it after it has closed everything
    make_server(service, host).run(sockets=[listening])
