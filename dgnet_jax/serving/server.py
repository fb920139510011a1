"""Listens at a port, and serves the interface there until it is asked to stop."""

from collections.abc import Iterator, Sequence
import contextlib
import ipaddress
import logging
import signal
import socket
import threading

from starlette.applications import Starlette
import uvicorn

from dgnet_jax.errors import UserError
from dgnet_jax.serving.app import make_app
from dgnet_jax.serving.guard import LOOPBACK_HOSTS
from dgnet_jax.serving.limits import LimitedProtocol
from dgnet_jax.serving.service import ModelService

logger = logging.getLogger(__name__)

HEADERS = {  # of every response
  'cache-control': 'no-store',  # no image stays in the browser's cache on disk
  # The browser enforces that nothing is loaded from other sites, and that their pages load nothing from here.
  'content-security-policy': "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
  "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  'cross-origin-resource-policy': 'same-origin',
  'referrer-policy': 'no-referrer',
  'x-content-type-options': 'nosniff',
}
SHUTDOWN_SECONDS = 23  # that running requests get to finish; two more to say so, and container platforms kill after 30


def is_loopback(listening: socket.socket) -> bool:
  """Returns True if a server at this socket can be reached from this machine only, however its host was written."""
  address = ipaddress.ip_address(listening.getsockname()[0])
  return (getattr(address, 'ipv4_mapped', None) or address).is_loopback


def listen(host: str, port: int) -> socket.socket:
  """Binds the port before the slow start-up, so that early clients wait instead of failing.

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


def make_server(app: Starlette) -> uvicorn.Server:
  """Returns a server of an application, without an access log."""
  # The client is told what is wrong with its form; a line for each would fill the log.
  logging.getLogger('python_multipart').setLevel(logging.ERROR)
  config = uvicorn.Config(
    app,
    access_log=False,
    headers=list(HEADERS.items()),
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


@contextlib.contextmanager
def served(app: Starlette) -> Iterator[tuple[str, int]]:
  """Serves an application in a thread, at a free port of this machine; yields host and port."""
  with listen('127.0.0.1', 0) as listening:
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listening]})
    thread.start()
    try:
      yield listening.getsockname()
    finally:
      server.should_exit = True
      thread.join()


def serve(
  service: ModelService,
  listening: socket.socket,
  host: str,
  *,
  allowed_hosts: Sequence[str] = (),
  token: str = '',
  page: bool = False,
) -> None:
  """Serves until Ctrl-C or SIGTERM; requests that have begun are answered within `SHUTDOWN_SECONDS`.

  Args:
    service: computes the answers.
    listening: from `listen`.
    host: the argument of `listen`.
    allowed_hosts: further names of the server, of a proxy. If there are some, or the server can be reached from this
      machine only, requests that name another host are refused.
    token: what clients must send, as in `make_app`.
    page: whether to serve the page, as in `make_app`.
  """
  logger.info('compiling')
  service.warm_up()
  is_checked = allowed_hosts or is_loopback(listening)
  hosts = (*LOOPBACK_HOSTS, host, listening.getsockname()[0], *allowed_hosts) if is_checked else ()
  server = make_server(make_app(service, hosts, sites=allowed_hosts, token=token, page=page))
  url_host = f'[{host}]' if ':' in host else host
  url = f'http://{url_host}:{listening.getsockname()[1]}'
  logger.info(f'serving {"the page at " if page else ""}{url}/{"" if page else "docs"} (stop with Ctrl-C)')
  # uvicorn raises a signal again after it has closed everything.
  signal.signal(signal.SIGTERM, signal.default_int_handler)
  with contextlib.suppress(KeyboardInterrupt):
    server.run(sockets=[listening])
