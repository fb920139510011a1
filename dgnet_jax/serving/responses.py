"""Responses to refused requests: one JSON object for all of them."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

from dgnet_jax.serving.errors import CODES

RETRY_SECONDS = {'too_many_requests': 1, 'busy': 5}  # when the same request may succeed


def error_response(code: str, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
  """Returns the response to a refused request: {"error": {"status", "code", "message"}}.

  Args:
    code: a key of `CODES`.
    message: what is wrong, and the way out.
    headers: of the response, besides those that belong to the code.
  """
  added = dict(headers or {})
  if code in RETRY_SECONDS:
    added['retry-after'] = str(RETRY_SECONDS[code])
  if code == 'unauthorized':
    added['www-authenticate'] = 'Bearer'
  content = {'error': {'status': CODES[code], 'code': code, 'message': message}}
  return JSONResponse(content, CODES[code], added)
