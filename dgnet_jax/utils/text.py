"""Names of files and people, which may be anything, in messages and in files."""

import codecs

ANY_NAME = 'dgnet_jax_any_name'  # for `errors` of files in UTF-8: bytes that were not text are restored; never fails


def printable(name: str) -> str:
  """Returns `name` on one line, with escapes for what a terminal cannot show (line breaks, undecodable bytes)."""
  return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in name)


def shortened(text: str, limit: int = 60) -> str:
  """Returns `text`, or its beginning and its length if it is longer than `limit` characters."""
  return text if len(text) <= limit else f'{text[:limit]}... ({len(text)} characters)'


def _encode_any_name(error: UnicodeError) -> tuple[str | bytes, int]:
  try:
    return codecs.lookup_error('surrogateescape')(error)
  except UnicodeEncodeError:
    return codecs.lookup_error('backslashreplace')(error)


codecs.register_error(ANY_NAME, _encode_any_name)
