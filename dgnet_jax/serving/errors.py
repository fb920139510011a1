"""Why a request is refused: a code for programs and a message for people."""

from dgnet_jax.errors import UserError

CODES = {  # of errors, with their HTTP status
  'malformed': 400,
  'unauthorized': 401,
  'other_site': 403,
  'not_found': 404,
  'method_not_allowed': 405,
  'too_slow': 408,
  'too_large': 413,
  'unsupported_type': 415,
  'invalid': 422,
  'too_many_requests': 429,
  'failed': 500,
  'busy': 503,
}


class Refused(UserError):
  """A request that is not answered as it asks.

  Attributes:
    code: a key of `CODES`.
  """

  def __init__(self, code: str, message: str) -> None:
    super().__init__(message)
    self.code = code
