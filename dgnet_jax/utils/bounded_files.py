"""Files that others may have made: regular files only, of bounded size, and JSON of bounded depth and integers."""

import codecs
import collections
import errno
import io
import itertools
import json
import os
import re
import stat
from typing import Any, BinaryIO, TextIO

MAX_TEXT_BYTES = 2**28  # of tables, lists and JSON; a million file names have about 2**27
MAX_DESCRIPTION_BYTES = 2**20  # of files that describe one thing; ours have a few thousand
MAX_JSON_DEPTH = 32  # ours have six levels
MAX_INTEGER_DIGITS = 19  # of 64 bits
MAX_NAME_LENGTH = 60  # of names in messages

# A string that is never closed lasts to the end, and nothing is tried twice.
_STRUCTURE = re.compile(r'[\[\]{},:]|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # strings whole
_NOT_BRACKETS = re.compile(r'[^\[\]{}"]++|"(?:[^"\\]++|\\.)*+"?', re.DOTALL)  # everything else


def check_regular(path: str | os.PathLike[str]) -> int:
  """Returns the size of a regular file in bytes. Pipes would wait for ever, and devices have no end.

  Raises:
    OSError: the file does not exist, cannot be reached, or is something else.
  """
  try:
    status = os.stat(path)
  except ValueError as error:  # Python's message depends on its version
    raise OSError(errno.EINVAL, 'null byte in the path', os.fspath(path)) from error
  if stat.S_ISDIR(status.st_mode):
    raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
  if not stat.S_ISREG(status.st_mode):
    raise OSError(errno.EINVAL, 'not a regular file', os.fspath(path))
  return status.st_size


def open_regular(path: str | os.PathLike[str], max_bytes: int) -> BinaryIO:
  """Opens a regular file for reading.

  Raises:
    OSError: as `check_regular`, or the file has more than `max_bytes` bytes or cannot be opened.
  """
  size = check_regular(path)
  if size > max_bytes:
    raise OSError(errno.EFBIG, f'{size} bytes, more than the {max_bytes} that are read', os.fspath(path))
  return open(path, 'rb')


def read_regular(path: str | os.PathLike[str], max_bytes: int) -> bytes:
  """Returns the content of a regular file; raises OSError as `open_regular`."""
  with open_regular(path, max_bytes) as file:
    return file.read(max_bytes)


def open_table(path: str | os.PathLike[str]) -> TextIO:
  """Opens a CSV file in UTF-8, or in UTF-16 with a byte order mark; raises OSError as `open_regular`."""
  binary = open_regular(path, MAX_TEXT_BYTES)
  start = binary.read(2)
  binary.seek(0)
  if start in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
    return io.TextIOWrapper(binary, encoding='utf-16', newline='')
  # File names may contain any byte but 0, so undecodable bytes are kept.
  return io.TextIOWrapper(binary, encoding='utf-8-sig', errors='surrogateescape', newline='')


def read_text(path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES, *, errors: str = 'strict') -> str:
  """Returns the content of a regular UTF-8 file, without its byte order mark.

  Args:
    path: the file.
    max_bytes: size above which it is not read.
    errors: what to do about undecodable bytes, as for `bytes.decode`.

  Raises:
    OSError: as `open_regular`.
    UnicodeDecodeError: it is not UTF-8.
  """
  return read_regular(path, max_bytes).decode('utf-8-sig', errors)


def _integer(digits: str) -> int:
  if len(digits.lstrip('-')) > MAX_INTEGER_DIGITS:
    raise ValueError(f'a whole number of {len(digits)} digits')
  return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  """Returns the members of an object; Python's own would take the last of two with one name."""
  members = dict(pairs)
  if len(members) < len(pairs):
    [(repeated, _)] = collections.Counter(name for name, _ in pairs).most_common(1)
    raise ValueError(f'{repeated[:MAX_NAME_LENGTH]!r} is given twice')
  return members


def parse_json(text: str, max_tokens: int | None = None) -> Any:
  """Returns the value that `text` describes.

  Args:
    text: JSON.
    max_tokens: most strings, brackets, braces, commas and colons, which bounds the memory for what `text` describes by
      about its length; None is any number.

  Raises:
    ValueError: it is not JSON, is nested more than `MAX_JSON_DEPTH` levels deep, has integers of more than
      `MAX_INTEGER_DIGITS` digits, two values of one name, or more than `max_tokens`.
  """
  if (
    max_tokens is not None and sum(1 for _ in itertools.islice(_STRUCTURE.finditer(text), max_tokens + 1)) > max_tokens
  ):
    raise ValueError(f'more than {max_tokens} strings, brackets, commas and colons')
  steps = (1 if bracket in '[{' else -1 for bracket in _NOT_BRACKETS.sub('', text))
  if max(itertools.accumulate(steps), default=0) > MAX_JSON_DEPTH:
    raise ValueError(f'nested more than {MAX_JSON_DEPTH} levels deep')
  return json.loads(text, parse_int=_integer, object_pairs_hook=_object)


def read_json(path: str | os.PathLike[str], max_bytes: int = MAX_TEXT_BYTES) -> Any:
  """Returns the value in a JSON file.

  Raises:
    OSError: as `open_regular`.
    ValueError: as `parse_json`, or it is not UTF-8.
  """
  return parse_json(read_text(path, max_bytes))
