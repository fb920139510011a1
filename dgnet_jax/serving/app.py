"""The HTTP interface: its endpoints, as `openapi.py` describes them."""

import asyncio
import base64
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
import contextlib
import pathlib
from typing import Any, TypeVar
import weakref

import numpy as np
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from dgnet_jax.serving.batching import WAIT_SECONDS, BatchQueue
from dgnet_jax.serving.docs_page import docs_page
from dgnet_jax.serving.errors import Refused
from dgnet_jax.serving.guard import LOOPBACK_HOSTS, Guard
from dgnet_jax.serving.images import encode_png
from dgnet_jax.serving.openapi import ENDPOINTS, document
from dgnet_jax.serving.responses import error_response
from dgnet_jax.serving.service import ModelService
from dgnet_jax.serving.uploads import Upload, read_upload
from dgnet_jax.utils.text import shortened

Result = TypeVar('Result')
Answer = Callable[[Request, Upload], Coroutine[Any, Any, Response]]

MEDIA_TYPES = {'.css': 'text/css', '.html': 'text/html', '.js': 'text/javascript'}
STATIC = pathlib.Path(__file__).parent / 'static'
MAX_DIGITS = 18  # of the index of a gallery image
MAX_PARSED = 4  # bodies that are parsed at a time
MAX_DECODED = 4  # requests whose images are decoded at a time
MAX_DECODED_PER_CLIENT = 2  # of one address


def make_app(
  service: ModelService,
  hosts: Sequence[str] = LOOPBACK_HOSTS,
  *,
  sites: Sequence[str] = (),
  token: str = '',
  page: bool = False,
) -> Starlette:
  """Returns the interface as an ASGI application.

  Args:
    service: reads the images of a few requests at a time, so that no image keeps the others waiting; its networks work
      on one batch at a time.
    hosts: as in `Guard`.
    sites: as in `Guard`.
    token: as in `Guard`.
    page: whether the page for browsers is at /.
  """
  endpoints = _Endpoints(service)
  description = document()
  names = sorted(path.name for path in STATIC.iterdir()) if page else ['docs.css']
  files = {'/' if name == 'index.html' else f'/{name}': name for name in names}

  async def docs(request: Request) -> Response:
    return HTMLResponse(docs_page(description, _url(request), needs_token=bool(token)))

  routes = [
    *(Route(path, endpoints.answering(path), methods=['POST']) for path in ENDPOINTS),
    Route('/gallery/{index}', endpoints.gallery_image),
    Route('/health', endpoints.health),
    Route('/openapi.json', lambda request: JSONResponse(description)),
    Route('/docs', docs),
    *(Route(path, _static_file(name), methods=['GET']) for path, name in files.items()),
  ]
  app = Starlette(
    routes=routes,
    middleware=[Middleware(Guard, hosts=hosts, sites=sites, token=token)],
    exception_handlers={
      Refused: _refused,
      ClientDisconnect: _disconnected,
      HTTPException: _no_endpoint,
      Exception: _failed,
    },
  )
  app.router.redirect_slashes = False  # to an answer without a body
  return app


class _Endpoints:
  """The answers of one service."""

  def __init__(self, service: ModelService) -> None:
    self._service = service
    self._compute = BatchQueue(service.functions)
    self._parsing = asyncio.Semaphore(MAX_PARSED)
    self._decoders = asyncio.Semaphore(MAX_DECODED)
    self._by_client: weakref.WeakValueDictionary[str, asyncio.Semaphore] = weakref.WeakValueDictionary()

  def answering(self, path: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """Returns what reads and answers requests to a path of `ENDPOINTS`."""
    inputs = ENDPOINTS[path]
    answer: Answer = getattr(self, path.removeprefix('/'))

    async def endpoint(request: Request) -> Response:
      upload = await read_upload(request, inputs, self._parsing)
      return await _while_connected(request, answer(request, upload))

    return endpoint

  async def embed(self, request: Request, upload: Upload) -> Response:
    features = await self._compute('embed', await self._read(request, upload, 'images'))
    embeddings = self._service.embeddings(features)
    if upload.options['encoding'] == 'base64':
      encoded: list[Any] = [base64.b64encode(row.astype('<f4').tobytes()).decode() for row in embeddings]
    else:
      encoded = embeddings.tolist()
    return JSONResponse({'dimensions': embeddings.shape[1], 'embeddings': encoded})

  async def rank(self, request: Request, upload: Upload) -> Response:
    self._service.check_gallery()
    features = await self._compute('embed', await self._read(request, upload, 'images'))
    return JSONResponse({'rankings': await run_in_threadpool(self._service.rank, features, upload.options['count'])})

  async def swap(self, request: Request, upload: Upload) -> Response:
    self._service.check_generator()
    pairs = await self._read_pairs(request, upload)
    images = [await run_in_threadpool(encode_png, image) for image in await self._compute('swap', pairs)]
    if len(images) == 1 and 'image/png' in request.headers.get('accept', ''):
      return Response(images[0], media_type='image/png')
    return _images(images)

  async def interpolate(self, request: Request, upload: Upload) -> Response:
    self._service.check_generator()
    if (count := len(upload.images['images'])) != 2:
      raise Refused('invalid', f'{count} images: an interpolation needs two, from the first to the second')
    first, second = await self._read(request, upload, 'images')
    (frames,) = await self._compute('interpolate', [(upload.options['change'], first, second)])
    return _images([await run_in_threadpool(encode_png, frame) for frame in frames])

  async def trace(self, request: Request, upload: Upload) -> Response:
    self._service.check_fetching()
    traces = await self._compute('trace', await self._read_pairs(request, upload))
    return JSONResponse({'traces': [await run_in_threadpool(_encoded_trace, trace) for trace in traces]})

  async def gallery_image(self, request: Request) -> Response:
    text = request.path_params['index']
    if not (text.isascii() and text.isdecimal() and len(text) <= MAX_DIGITS):
      raise Refused('not_found', f'{shortened(text)!r} is no index of a match')
    async with self._decoder(request):
      pixels = await run_in_threadpool(self._service.thumbnail, int(text))
    return Response(await run_in_threadpool(encode_png, pixels), media_type='image/png')

  async def health(self, request: Request) -> Response:
    return JSONResponse(self._service.health())

  async def _read_pairs(self, request: Request, upload: Upload) -> list[tuple[np.ndarray, np.ndarray]]:
    """Decodes structures and appearances; a single image of one kind goes with all of the other."""
    counts = [len(upload.images[name]) for name in ('structures', 'appearances')]
    if set(counts) - {1, max(counts)}:
      raise Refused(
        'invalid', f'{counts[0]} structures and {counts[1]} appearances: the numbers must be equal, or one of them 1'
      )
    structures = await self._read(request, upload, 'structures')
    appearances = await self._read(request, upload, 'appearances')
    return [(structures[i % counts[0]], appearances[i % counts[1]]) for i in range(max(counts))]

  async def _read(self, request: Request, upload: Upload, name: str) -> list[np.ndarray]:
    """Decodes the images of a field."""
    read = self._service.read
    async with self._decoder(request):
      contents = upload.images[name]
      return [await run_in_threadpool(read, content, f'{name}[{i}]') for i, content in enumerate(contents)]

  @contextlib.asynccontextmanager
  async def _decoder(self, request: Request) -> AsyncIterator[None]:
    """Holds one of the places for requests whose images are decoded.

    Raises:
      Refused: that takes too long.
    """
    address = request.client.host if request.client else ''
    of_client = self._by_client.setdefault(address, asyncio.Semaphore(MAX_DECODED_PER_CLIENT))
    async with contextlib.AsyncExitStack() as held:
      try:
        async with asyncio.timeout(WAIT_SECONDS):
          for lock in (of_client, self._decoders):
            await held.enter_async_context(lock)
      except TimeoutError:
        message = f'the server is busy: no image decoded within {WAIT_SECONDS} seconds; try again later'
        raise Refused('busy', message) from None
      yield


async def _while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
  """Returns the result of `work`, which is cancelled when the client has gone; the body must have been read.

  Raises:
    ClientDisconnect: the client has gone.
  """

  async def disconnection() -> None:
    while (await request.receive())['type'] != 'http.disconnect':
      pass

  running, gone = asyncio.create_task(work), asyncio.create_task(disconnection())
  try:
    await asyncio.wait({running, gone}, return_when=asyncio.FIRST_COMPLETED)
    if not running.done():
      raise ClientDisconnect
    return running.result()
  finally:
    running.cancel()
    gone.cancel()


def _url(request: Request) -> str:
  """Returns the address of the server as its client names it, on the other side of a proxy, too."""
  is_encrypted = request.headers.get('x-forwarded-proto') == 'https'
  return f'{"https" if is_encrypted else "http"}://{request.headers.get("host", "localhost")}'


def _static_file(name: str) -> Response:
  """Reads it now: a page must fit this server, even if the package is upgraded meanwhile."""
  path = STATIC / name
  return Response(path.read_bytes(), media_type=MEDIA_TYPES[path.suffix])


def _images(images: Sequence[bytes]) -> JSONResponse:
  return JSONResponse({'images': [base64.b64encode(image).decode() for image in images]})


def _encoded_trace(trace: dict[str, np.ndarray]) -> dict[str, str]:
  content = {name: encode_png(array) for name, array in trace.items() if name != 'place'}
  content['place'] = trace['place'].astype('<f4').tobytes()
  return {name: base64.b64encode(value).decode() for name, value in content.items()}


async def _refused(request: Request, error: Exception) -> Response:
  assert isinstance(error, Refused)
  return error_response(error.code, str(error))


async def _disconnected(request: Request, error: Exception) -> Response:
  return error_response('malformed', 'the client has closed the connection')


async def _no_endpoint(request: Request, error: Exception) -> Response:
  assert isinstance(error, HTTPException)
  path = request.url.path[:100]
  if error.status_code == 405:
    allowed = (error.headers or {}).get('Allow', '')
    return error_response('method_not_allowed', f'{path} takes {allowed} only; see /docs', error.headers)
  return error_response('not_found', f'nothing is at {path}; see /docs')


async def _failed(request: Request, error: Exception) -> Response:
  """The server's log gets the traceback."""
  return error_response('failed', 'the server failed; its log says why')
