"""Checks of every request before it is read: the host that it names, the site and the token that it comes with."""

import hmac
import pathlib
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from dgnet_jax.errors import UserError
from dgnet_jax.serving.responses import error_response
from dgnet_jax.utils.bounded_files import read_text

LOOPBACK_HOSTS = ('localhost', '127.0.0.1', '::1')
HEADERS = {
  b'cache-control': b'no-store',  # no image stays in the browser's cache on disk
  # The browser enforces that nothing is loaded from other sites.
  b'content-security-policy': b"default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; "
  b"connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  b'referrer-policy': b'no-referrer',
  b'x-content-type-options': b'nosniff',
}
MAX_TOKEN_BYTES = 4096


def read_token(path: pathlib.Path) -> str:
  """Reads the token that clients must send.

  Raises:
    UserError: the file cannot be read, or does not hold one token of 16 or more characters.
  """
  try:
    token = read_text(path, MAX_TOKEN_BYTES).strip()
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: the token cannot be read ({error})') from error
  if not re.fullmatch('[A-Za-z0-9._~+/=-]{16,}', token):
    raise UserError(
      f'{path}: must hold one token of 16 or more letters, digits and ._~+/=-, as of: openssl rand -hex 32'
    )
  return token


class Guard:
  """Answers requests that are not allowed, and adds `HEADERS` to every response."""

  def __init__(self, app: ASGIApp, hosts: tuple[str, ...], token: str) -> None:
    """Guards an application.

    Args:
      app: answers the requests that are allowed.
      hosts: names of the server; others are refused, or else another site could resolve its name to this machine and
        read the gallery. None are refused if it is empty.
      token: what clients must send as `Authorization: Bearer TOKEN`, except for /health; '' is none.
    """
    self._app = app
    self._hosts = hosts
    self._token = token

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    async def send_more(message: Message) -> None:
      if message['type'] == 'http.response.start':
        message['headers'] = [*message['headers'], *HEADERS.items()]
      await send(message)

    await (self._refusal(scope) or self._app)(scope, receive, send_more)

  def _refusal(self, scope: Scope) -> ASGIApp | None:
    headers = Headers(scope=scope)
    host = headers.get('host', '')
    if self._hosts and re.sub(r':\d*$', '', host).strip('[]') not in self._hosts:
      return error_response('malformed', f'the header Host must name one of {", ".join(self._hosts)}')
    # Browsers send it with what other sites' pages start; the same-origin policy only hides the answer from them.
    origin = headers.get('origin')
    if origin and origin.partition('://')[2] != host:
      return error_response('other_site', 'requests of other sites are refused')
    sent = headers.get('authorization', '').encode()
    if self._token and scope['path'] != '/health' and not hmac.compare_digest(sent, f'Bearer {self._token}'.encode()):
      return error_response('unauthorized', 'the header Authorization must be: Bearer TOKEN, that of --token-file')
    return None
