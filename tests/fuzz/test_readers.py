"""Any bytes in any file give a result or one error that names the file, in bounded time and memory.

A few seconds of always the same inputs. By hand, with others, for as long as you like:

    DGNET_FUZZ_EXAMPLES=20000 pytest -q tests/fuzz -s
"""

import contextlib
import os
import pathlib
import resource
import signal
import time
import warnings

from hypothesis import HealthCheck, Phase, given, settings
import pytest

from dgnet_jax.errors import ConfigError, UserError
from tests.fuzz.readers import READERS

EXAMPLES = int(os.environ.get('DGNET_FUZZ_EXAMPLES', 0))
# When reading a damaged checkpoint fails, other reads in progress find their event loop closed.
pytestmark = [
  pytest.mark.filterwarnings('ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning'),
  pytest.mark.filterwarnings('ignore:Generating overly large repr'),
]
SECONDS = 5  # of one input
MEBIBYTES = 400  # by which memory may grow over all inputs of a reader; most need 10
MAX_MESSAGE = 90_000  # characters; a line for each field of a config
CORPUS = pathlib.Path(__file__).parent / 'corpus'  # a folder for each reader

budget = settings(
  max_examples=EXAMPLES or 40,
  derandomize=not EXAMPLES,
  database=None,
  deadline=None,
  phases=(Phase.generate, Phase.shrink),
  suppress_health_check=list(HealthCheck),
)


def _peak_mebibytes():
  return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextlib.contextmanager
def _at_most(seconds):
  def stop(*_):
    raise TimeoutError(f'more than {seconds} s')

  before = signal.signal(signal.SIGALRM, stop)
  signal.alarm(seconds)
  try:
    yield
  finally:
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def check(reader, path, folder):
  """Reads the file, and checks the error if there is one."""
  with _at_most(SECONDS), warnings.catch_warnings():
    warnings.simplefilter('error')
    try:
      reader.read(path)
    except UserError as error:
      message = str(error)
      # A folder is named instead of a file if the whole folder is meant.
      assert isinstance(error, ConfigError) or path.name in message or str(folder) in message
      assert len(message) < MAX_MESSAGE


@pytest.mark.parametrize('name', READERS)
def test_any_bytes_are_read_or_named(tmp_path, name):
  reader, before, start = READERS[name], _peak_mebibytes(), time.monotonic()
  reader.prepare(tmp_path)
  path, count = tmp_path / reader.name, 0

  @given(reader.contents)
  @budget
  def read_all(content):
    nonlocal count
    count += 1
    path.write_bytes(content)
    check(reader, path, tmp_path)

  read_all()
  grown = _peak_mebibytes() - before
  print(f'{name}: {count} inputs, {time.monotonic() - start:.1f} s, {grown:.0f} MiB')
  assert grown < MEBIBYTES


@pytest.mark.parametrize('file', sorted(CORPUS.glob('*/*')), ids=lambda file: f'{file.parent.name}-{file.name}')
def test_found_cases(tmp_path, file):
  reader = READERS[file.parent.name]
  reader.prepare(tmp_path)
  path = tmp_path / reader.name
  path.write_bytes(file.read_bytes())
  check(reader, path, tmp_path)
