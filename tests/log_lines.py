"""What the package logs, as a list of messages."""

from collections.abc import Iterator
import contextlib
import logging


class _ToList(logging.Handler):
  def __init__(self, lines: list[str]) -> None:
    super().__init__(logging.INFO)
    self._lines = lines

  def emit(self, record: logging.LogRecord) -> None:
    self._lines.append(record.getMessage())


@contextlib.contextmanager
def logged() -> Iterator[list[str]]:
  """Yields the list that the package's log messages are appended to, from INFO upwards."""
  lines: list[str] = []
  logger, handler = logging.getLogger('dgnet_jax'), _ToList(lines)
  level = logger.level
  logger.addHandler(handler)
  logger.setLevel(logging.INFO)
  try:
    yield lines
  finally:
    logger.removeHandler(handler)
    logger.setLevel(level)
