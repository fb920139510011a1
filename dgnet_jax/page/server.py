"""Serves the page: one request at a time for the model, uploads in memory only, nothing from elsewhere."""

import asyncio
from collections.abc import Callable
import contextlib
import ipaddress
import logging
import pathlib
import re
import socket

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
from dgnet_jax.page.answers import MAX_BYTES, Answer, Answers

logger = logging.getLogger(__name__)


STATIC = pathlib.Path(__file__).parent / 'static'
# Browsers send this type to another site's server only after asking it, and this one does not agree: other pages in
# the visitor's browser cannot make it work.
UPLOAD_TYPE = 'application/octet-stream'
MAX_CONNECTIONS = 64  # a browser has up to 6; beyond it is told to come back
SHUTDOWN_SECONDS = 3  # that requests are given to end after Ctrl-C
HEADERS = {
  b'cache-control': b'no-store',  # no image stays in a browser's cache on disk
  # The browser itself sees to it that nothing is loaded from elsewhere.
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
  """Whether only this machine reaches a server at `host`."""
  with contextlib.suppress(ValueError):
    return ipaddress.ip_address(host).is_loopback
  return host == 'localhost'


def listen(host: str, port: int) -> socket.socket:
  """Takes the port before the long work starts; browsers that come early wait.

  Raises:
    UserError: the port is taken or forbidden, or the host is none of this machine's.
  """
  if not 0 <= port < 2**16:
    raise UserError(f'{port=} must be 0 (any that is free) to {2**16 - 1}')
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
    raise UserError(f'{host} port {port}: {error.strerror or error}; --host and --port choose others') from error
  return listening


async def _upload(request: Request, limit: int) -> bytes:
  """The body, given up as soon as it is too large.

  Raises:
    UserError: it is larger than `limit` bytes, or of another type.
  """
  if request.headers.get('content-type') != UPLOAD_TYPE:
    raise UserError(f'images are sent as {UPLOAD_TYPE}')
  contents = bytearray()
  async for part in request.stream():
    contents += part
    if len(contents) > limit:
      raise UserError(f'an image may have {MAX_BYTES // 2**20} MiB; this is more')
  return bytes(contents)


async def _pair(request: Request) -> tuple[bytes, bytes]:
  """Two images behind one another, the first one's length in the address."""
  contents = await _upload(request, 2 * MAX_BYTES)
  length = request.query_params.get('first', '')
  if not (re.fullmatch('[0-9]{1,9}', length) and int(length) <= len(contents)):
    raise UserError(f'first={length[:20]!r} is not the number of bytes of the first of two images')
  return contents[: int(length)], contents[int(length) :]


def make_app(answers: Answers, host: str) -> Starlette:
  """The page as an ASGI application.

  Args:
    answers: to be asked, by one request at a time; those that wait are served in the order of their coming.
    host: that is listened at. Where it is this machine's alone, requests that name another are refused: else a foreign
      site could have its name resolved to this machine and read the gallery.
  """
  turn = asyncio.Lock()

  async def answer(request: Request, function: Callable[..., Answer], *arguments: object) -> JSONResponse:
    async with turn:
      if await request.is_disconnected():  # while it waited
        raise ClientDisconnect
      return JSONResponse(await run_in_threadpool(function, *arguments))

  async def about(request: Request) -> JSONResponse:
    return JSONResponse(answers.about())

  async def swap(request: Request) -> JSONResponse:
    return await answer(request, answers.swap, *await _pair(request))

  async def interpolate(request: Request) -> JSONResponse:
    return await answer(request, answers.interpolate, request.query_params.get('what', ''), *await _pair(request))

  async def rank(request: Request) -> JSONResponse:
    return await answer(request, answers.rank, await _upload(request, MAX_BYTES))

  async def refused(request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({'error': str(error) or 'the browser has gone'}, status_code=400)

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
      Middleware(TrustedHostMiddleware, allowed_hosts=_names(host), www_redirect=False),
    ],
    exception_handlers={UserError: refused, ClientDisconnect: refused},
  )


def _names(host: str) -> list[str]:
  """What requests may call this server."""
  return ['localhost', '127.0.0.1', '::1', '[::1]', host] if is_loopback(host) else ['*']


def make_server(answers: Answers, host: str) -> uvicorn.Server:
  """A server that keeps no list of requests."""
  config = uvicorn.Config(
    make_app(answers, host),
    access_log=False,
    http='h11',
    lifespan='off',
    limit_concurrency=MAX_CONNECTIONS,
    log_config=None,
    log_level='error',
    loop='asyncio',
    proxy_headers=False,
    server_header=False,
    timeout_graceful_shutdown=SHUTDOWN_SECONDS,
    ws='none',
  )
  return uvicorn.Server(config)


def serve(answers: Answers, listening: socket.socket, host: str) -> None:
  """Serves until Ctrl-C.

  Args:
    answers: to be asked.
    listening: from `listen`.
    host: as given to it.
  """
  logger.info('compiling')
  answers.warm_up()
  shown = f'[{host}]' if ':' in host else host
  logger.info(f'the page: http://{shown}:{listening.getsockname()[1]}/ (Ctrl-C ends it)')
  with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises it once all is closed
    make_server(answers, host).run(sockets=[listening])
