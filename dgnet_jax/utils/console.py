"""What all commands share: how log records are shown and kept, and the exit status of each kind of error."""

from collections.abc import Iterator
import contextlib
import errno
import io
import logging
import os
import re
import sys
import traceback
from typing import NoReturn, TextIO

from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.utils.addresses import with_addresses
from dgnet_jax.utils.text import printable, shortened

PACKAGE = 'dgnet_jax'
FILE_FORMAT = '%(asctime)s %(message)s'
TIME_FORMAT = '%Y-%m-%d %H:%M:%S'


# What the runtime says when a process of a job is gone: Gloo on CPU, NCCL on GPU, JAX's coordination service.
_LOST = re.compile(r'gloo|nccl|connection (closed|reset)|heartbeat|coordination service|barrier|UNAVAILABLE:', re.I)
MAX_LINE = 500  # characters of an error of a library
_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Formatter(logging.Formatter):
  """Names what has an address by it."""

  def format(self, record: logging.LogRecord) -> str:
    return with_addresses(super().format(record))


class ConsoleFormatter(_Formatter):
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


def _is_not_raised(record: logging.LogRecord) -> bool:
  """Returns False for exceptions that Orbax logs with their traceback, and raises too."""
  # Not by the record's path: it is absl's own if this filter was made before absl was imported.
  trace = record.exc_info[2] if record.exc_info else None
  return not any(f'{os.sep}orbax{os.sep}' in frame.f_code.co_filename for frame, _ in traceback.walk_tb(trace))


def show_log() -> None:
  """Shows the package's log records from INFO upwards on standard error. Calling it again changes nothing."""
  logger = logging.getLogger(PACKAGE)
  logger.setLevel(logging.INFO)
  logger.propagate = False  # absl, which TensorFlow imports, would show every record a second time
  logging.getLogger('absl').addFilter(_is_not_raised)
  if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
    logger.addHandler(_StderrHandler())


@contextlib.contextmanager
def _closed_loops_hidden() -> Iterator[None]:
  """Hides that TensorStore finds an event loop closed: Orbax closes it after an error, which it raises."""
  hook = sys.unraisablehook

  def show(unraisable: 'sys.UnraisableHookArgs') -> None:
    if not (isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == 'Event loop is closed'):
      hook(unraisable)

  sys.unraisablehook = show
  try:
    yield
  finally:
    sys.unraisablehook = hook


def reason_for_user(error: BaseException) -> str:
  """Returns what to tell the user about an error that is not a defect of the program; '' if it is one.

  These are mistakes and interruptions, and what the machine refuses: files, memory, devices.
  """
  if isinstance(error, UserError | Interrupted):
    return str(error)
  if isinstance(error, OSError) and (error.errno in _FULL or (error.errno and error.filename is not None)):
    name = 'a temporary file' if error.filename is None else printable(os.fsdecode(error.filename))
    advice = '; free some space, and run the same command again' if error.errno in _FULL else ''
    return f'{name}: {error.strerror}{advice}'
  if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and 'RESOURCE_EXHAUSTED' in str(error)[:100]):
    return f'not enough memory; lower the batch size, or use a larger machine ({_first_line(error)})'
  if isinstance(error, RuntimeError | ValueError) and has_other_processes() and _LOST.search(str(error)):
    return (
      'another process of the job has ended or cannot be reached any more; its log says why '
      f'({_first_line(error)}). Start all processes again: training goes on from the last checkpoint'
    )
  if isinstance(error, RuntimeError | AssertionError) and not _has_devices():
    platforms = os.environ.get('JAX_PLATFORMS', '')
    what = f'JAX_PLATFORMS={platforms}: JAX finds no such device here; unset it' if platforms else 'JAX finds no device'
    return f'{what}{f" ({_first_line(error)})" if str(error) else ""}'
  return ''


def has_other_processes() -> bool:
  """Returns True if this is one of several processes that `jax.distributed` has brought together."""
  jax = sys.modules.get('jax')
  if jax is None or not jax.distributed.is_initialized():
    return False
  try:
    return bool(jax.process_count() > 1)
  except (RuntimeError, AssertionError):  # this one finds no device, so it does not know
    return True


def _first_line(error: BaseException | None) -> str:
  lines = str(error).splitlines()
  return shortened(lines[0], MAX_LINE) if lines else type(error).__name__


def _has_devices() -> bool:
  """Returns False if JAX is in use and has no device; it says so in errors of several kinds."""
  jax = sys.modules.get('jax')
  try:
    return jax is None or bool(jax.devices())
  except (RuntimeError, AssertionError):
    return False


class _LogFile(logging.FileHandler):
  """A log that cannot be written is reported once, and does not end the work."""

  _failed = False

  def handleError(self, record: logging.LogRecord) -> None:
    if not self._failed:
      self._failed = True
      print(f'warning: {self.baseFilename}: cannot be written ({_first_line(sys.exc_info()[1])})', file=sys.stderr)

  def close(self) -> None:
    try:
      super().close()
    except OSError:  # of what is still buffered
      self.handleError(logging.makeLogRecord({}))


@contextlib.contextmanager
def logged_to(path: str | os.PathLike[str]) -> Iterator[None]:
  """Appends the package's log records and Python's warnings to the file `path`.

  An exception is appended too: as its message if it is meant for the user, with its traceback otherwise.
  """
  handler = _LogFile(path, encoding='utf-8', errors='backslashreplace')
  handler.setFormatter(_Formatter(FILE_FORMAT, datefmt=TIME_FORMAT))
  loggers = [logging.getLogger(PACKAGE), logging.getLogger('py.warnings')]
  for logger in loggers:
    logger.addHandler(handler)
  logging.captureWarnings(True)
  try:
    yield
  except Exception as error:
    reason = reason_for_user(error)
    trace = None if reason else (type(error), error, error.__traceback__)
    message = reason or 'stopped by an error'
    handler.handle(logging.LogRecord(PACKAGE, logging.ERROR, '', 0, message, None, trace))
    raise
  finally:
    logging.captureWarnings(False)
    for logger in loggers:
      logger.removeHandler(handler)
    handler.close()


def show_every_name() -> None:
  """Lets standard output and error show escapes for characters that the terminal's encoding lacks."""
  for stream in (sys.stdout, sys.stderr):
    if isinstance(stream, io.TextIOWrapper):
      stream.reconfigure(errors='backslashreplace')


@contextlib.contextmanager
def exit_on_user_error() -> Iterator[None]:
  """Shows the log. Turns a UserError into a message and exit status 2, an interruption into one and status 130.

  What the machine refuses (`MachineError`, `reason_for_user`) is a message and status 1; a reader that closed its end
  of a pipe, as `head` does, is status 1 alone. A process of several ends at once.
  """
  show_log()
  show_every_name()
  try:
    with _closed_loops_hidden():
      yield
    sys.stdout.flush()
  except UserError as error:
    print(f'error: {with_addresses(str(error))}', file=sys.stderr)
    _exit(1 if isinstance(error, MachineError) else 2, error)
  except Interrupted as error:  # in all processes
    print(with_addresses(str(error)), file=sys.stderr)
    raise SystemExit(130) from error
  except KeyboardInterrupt as error:
    print('interrupted', file=sys.stderr)
    _exit(130, error)
  except BrokenPipeError as error:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at the end of the process
    raise SystemExit(1) from error
  except Exception as error:
    reason = reason_for_user(error)
    if not reason and not has_other_processes():
      raise
    print(f'error: {with_addresses(reason)}' if reason else traceback.format_exc(), file=sys.stderr)
    _exit(1, error)


def _exit(status: int, error: BaseException) -> NoReturn:
  """Ends the process after an error.

  JAX waits for the other processes of a job at exit, and they may be waiting for this one.
  """
  if has_other_processes():
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
  raise SystemExit(status) from error
