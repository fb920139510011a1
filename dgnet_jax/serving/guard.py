"""Checks of every request before it is read: the host that it names, the site and the token that it comes with."""

from collections.abc import Sequence
import hmac
import pathlib
import re

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from dgnet_jax.errors import UserError
from dgnet_jax.serving.responses import error_response
from dgnet_jax.utils.bounded_files import read_text

LOOPBACK_HOSTS = ('localhost', '127.0.0.1', '::1')
PUBLIC = ('/docs', '/docs.css', '/health', '/openapi.json')  # paths that need no token: nothing of the gallery
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
  """Answers requests that are not allowed."""

  def __init__(self, app: ASGIApp, hosts: Sequence[str], sites: Sequence[str], token: str) -> None:
    """Guards an application.

    Args:
      app: answers the requests that are allowed.
      hosts: names of the server; others are refused, or else another site could resolve its name to this machine and
        read the gallery. None are refused if it is empty.
      sites: those of `hosts` under which a proxy shows the server to browsers, whatever Host it names itself.
      token: what clients must send as `Authorization: Bearer TOKEN`, except for `PUBLIC`; '' is none.
    """
    self._app = app
    self._hosts = {host.lower() for host in hosts}
    self._sites = {site.lower() for site in sites}
    self._token = token

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    await (self._refusal(scope) or self._app)(scope, receive, send)

  def _refusal(self, scope: Scope) -> ASGIApp | None:
    headers = Headers(scope=scope)
    host = headers.get('host', '').lower()
    if self._hosts and _name(host) not in self._hosts:
      return error_response('malformed', f'the header Host must name one of {", ".join(sorted(self._hosts))}')
    if self._is_of_another_site(headers, host):
      return error_response('other_site', 'requests of other sites are refused')
    scheme, _, sent = headers.get('authorization', '').partition(' ')
    is_known = scheme.lower() == 'bearer' and hmac.compare_digest(sent.strip().encode(), self._token.encode())
    if self._token and scope['path'] not in PUBLIC and not is_known:
      return error_response('unauthorized', 'the header Authorization must be: Bearer TOKEN, that of --token-file')
    return None

  def _is_of_another_site(self, headers: Headers, host: str) -> bool:
    """Whether a page of another site has started a request; the same-origin policy only hides the answer from it."""
    origin = headers.get('origin', '').lower().partition('://')[2]
    if 'origin' in headers and origin != host and _name(origin) not in self._sites:
      return True
    # Images have no Origin. A link that is followed is no request of the page that it is on.
    is_link = headers.get('sec-fetch-mode') == 'navigate' and headers.get('sec-fetch-dest') == 'document'
    return headers.get('sec-fetch-site') == 'cross-site' and not is_link


def _name(host: str) -> str | None:
  """Returns a header Host without port and brackets; None if it is not of that form."""
  match = re.fullmatch(r'(?:\[([0-9a-f:.]+)\]|([^][:/@]+))(?::[0-9]*)?', host)
  return match[1] or match[2] if match else None
