"""What commands share: plain messages and exit statuses, and a copy of all that is printed."""

from collections.abc import Iterator
import contextlib
import os
import sys
import time
import traceback
from typing import Any, TextIO

from dgnet_jax.config import Interrupted, UserError


class Tee:
  """A text stream that passes on what it gets and copies whole lines, the time before each, to a file."""

  def __init__(self, stream: TextIO, file: TextIO) -> None:
    self._stream = stream
    self._file = file
    self._line = ''

  def write(self, text: str) -> int:
    """Passes `text` on. Of what carriage returns overwrite only the last is kept in the file."""
    *lines, rest = (self._line + text).split('\n')
    for line in lines:
      self._copy(line)
    self._line = rest.rsplit('\r', 1)[-1]
    return self._stream.write(text)

  def finish(self) -> None:
    """Ends a line that was begun."""
    if self._line:
      self._copy(self._line)
      self._line = ''

  def _copy(self, line: str) -> None:
    shown = line.rsplit('\r', 1)[-1]
    self._file.write(f'{time.strftime("%Y-%m-%d %H:%M:%S")} {shown}\n')
    self._file.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


@contextlib.contextmanager
def copied_to(path: str | os.PathLike[str]) -> Iterator[None]:
  """While it lasts, what Python prints to standard output and error is also appended to the file `path`."""
  with open(path, 'a', encoding='utf-8') as file:
    tees = Tee(sys.stdout, file), Tee(sys.stderr, file)
    out, err = tees  # duck-typed streams, for print and warnings
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
      try:
        yield
      except Exception:
        file.write(traceback.format_exc())
        raise
      finally:
        for tee in tees:
          tee.finish()


@contextlib.contextmanager
def told_plainly() -> Iterator[None]:
  """Turns what a person can put right, and interruptions, into one message and an exit status: 2 and 130."""
  try:
    yield
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from error
  except (Interrupted, KeyboardInterrupt) as error:
    print(str(error) or 'interrupted', file=sys.stderr)
    raise SystemExit(130) from error
