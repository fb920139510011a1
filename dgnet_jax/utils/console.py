"""What all commands share: how log records are shown and kept, and the exit status of each kind of error."""

from collections.abc import Iterator
import contextlib
import logging
import os
import sys
from typing import TextIO

from dgnet_jax.errors import Interrupted, UserError

PACKAGE = 'dgnet_jax'
FILE_FORMAT = '%(asctime)s %(message)s'
TIME_FORMAT = '%Y-%m-%d %H:%M:%S'


class ConsoleFormatter(logging.Formatter):
  """The message alone, preceded by the level from WARNING upwards."""

  def format(self, record: logging.LogRecord) -> str:
    text = super().format(record)
    return text if record.levelno < logging.WARNING else f'{record.levelname.lower()}: {text}'


class _StderrHandler(logging.StreamHandler[TextIO]):
  """Writes to the current `sys.stderr`, which may be replaced after the handler was made."""

  def __init__(self) -> None:
    super().__init__(sys.stderr)
    self.setFormatter(ConsoleFormatter())

  def emit(self, record: logging.LogRecord) -> None:
    self.stream = sys.stderr
    super().emit(record)


def show_log() -> None:
  """Shows the package's log records from INFO upwards on standard error. Calling it again changes nothing."""
  logger = logging.getLogger(PACKAGE)
  logger.setLevel(logging.INFO)
  logger.propagate = False  # absl, which TensorFlow imports, would show every record a second time
  if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
    logger.addHandler(_StderrHandler())


@contextlib.contextmanager
def logged_to(path: str | os.PathLike[str]) -> Iterator[None]:
  """Appends the package's log records and Python's warnings to the file `path`.

  An exception is appended too: as its message if it is meant for the user, with its traceback otherwise.
  """
  handler = logging.FileHandler(path, encoding='utf-8')
  handler.setFormatter(logging.Formatter(FILE_FORMAT, datefmt=TIME_FORMAT))
  loggers = [logging.getLogger(PACKAGE), logging.getLogger('py.warnings')]
  for logger in loggers:
    logger.addHandler(handler)
  logging.captureWarnings(True)
  try:
    yield
  except Exception as error:
    for_user = isinstance(error, UserError | Interrupted)
    message = str(error) if for_user else 'stopped by an error'
    trace = None if for_user else (type(error), error, error.__traceback__)
    handler.handle(logging.LogRecord(PACKAGE, logging.ERROR, '', 0, message, None, trace))
    raise
  finally:
    logging.captureWarnings(False)
    for logger in loggers:
      logger.removeHandler(handler)
    handler.close()


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
  """Shows the log. Turns a UserError into a message and exit status 2, an interruption into one and status 130."""
  show_log()
  try:
    yield
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from error
  except (Interrupted, KeyboardInterrupt) as error:
    print(str(error) or 'interrupted', file=sys.stderr)
    raise SystemExit(130) from error
