"""What every test shares: JAX's settings, which must be made before it starts, and the folders of reference data."""

import dataclasses
import os
import pathlib

REPO = pathlib.Path(__file__).resolve().parent.parent

# Eight virtual devices let sharding be tested anywhere. Tests compile much and compute little, so that optimising costs
# more than it gives (`optimised` is for the exceptions). Compiled programs are kept between runs, one folder per
# worker so that none reads another's half-written file.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
EIGHT_DEVICES = '--xla_force_host_platform_device_count=8'
if EIGHT_DEVICES not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = f'{os.environ.get("XLA_FLAGS", "")} {EIGHT_DEVICES}'.strip()
CACHE = REPO / '.pytest_cache' / 'jax'
if os.environ.get('JAX_COMPILATION_CACHE_DIR', str(CACHE)).startswith(str(CACHE)):  # a worker inherits its parent's
  os.environ['JAX_COMPILATION_CACHE_DIR'] = str(CACHE / os.environ.get('PYTEST_XDIST_WORKER', 'main'))

import jax  # noqa: E402 (after the settings above)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from dgnet_jax.config.loading import save_config  # noqa: E402
from dgnet_jax.data.dataset import open_dataset  # noqa: E402
from tests.ledger import Ledger, table  # noqa: E402
from tests.log_lines import logged  # noqa: E402
from tests.tiny_run import frozen, save_checkpoint, tiny_config  # noqa: E402

# Files that take longest, most of it compilation: started first, so that no worker is left with one at the end.
LONGEST = (
  *('parity/test_iterations.py', 'parity/test_variants.py', 'parity/test_step_variants.py', 'parity/test_precision.py'),
  *('training/test_loop.py', 'training/test_devices.py', 'training/test_gradient_reach.py'),
  *('training/test_variants.py', 'parity/test_forward.py'),
  *('reports/test_evaluation.py', 'interop/release/test_importer.py', 'interop/release/test_optimizer.py'),
)


def pytest_collection_modifyitems(items):
  places = {str(REPO / 'tests' / name): place for place, name in enumerate(LONGEST)}
  items.sort(key=lambda item: places.get(str(item.path), len(LONGEST)))


@pytest.fixture(scope='module', autouse=True)
def _forget_compiled_programs():
  """Programs of one file are of no use to the next, and together they fill a small machine's memory."""
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def _float64_ends_with_the_test():
  """Tests hold by themselves and in any order: none leaves float64 on for the next."""
  yield
  assert jnp.result_type(float) == np.float32


@pytest.fixture(scope='module')
def optimised():
  """Programs of this file are optimised as they are for users."""
  before = jax.config.values['jax_disable_most_optimizations']
  jax.config.update('jax_disable_most_optimizations', False)
  yield
  jax.config.update('jax_disable_most_optimizations', before)


def _folder_or_skip(path: pathlib.Path, what: str) -> pathlib.Path:
  if not path.is_dir():
    pytest.skip(f'{what} not found at {path}')
  return path


@pytest.fixture(scope='session')
def parity_dir() -> pathlib.Path:
  """Folder of the release's float64 goldens: $DGNET_PARITY_DIR, else shared/parity beside the repository."""
  default = REPO.parent / 'shared' / 'parity'
  path = pathlib.Path(os.environ.get('DGNET_PARITY_DIR', default))
  return _folder_or_skip(path, 'goldens (set DGNET_PARITY_DIR)')


@pytest.fixture(scope='session')
def long_parity_dir(parity_dir) -> pathlib.Path:
  """`parity_dir` for the comparisons that take several minutes each: only where $DGNET_PARITY_DIR names the folder."""
  if 'DGNET_PARITY_DIR' not in os.environ:
    pytest.skip('takes several minutes: name the folder of goldens in DGNET_PARITY_DIR (docs/parity.md)')
  return parity_dir


@pytest.fixture(scope='session')
def shared_data_dir() -> pathlib.Path:
  """Folder with a few real crops: $DGNET_SHARED_DATA_DIR, else shared/data beside the repository."""
  default = REPO.parent / 'shared' / 'data'
  path = pathlib.Path(os.environ.get('DGNET_SHARED_DATA_DIR', default))
  return _folder_or_skip(path, 'real crops (set DGNET_SHARED_DATA_DIR)')


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
  """The config, the folder and the data of a run with two checkpoints, 3 and 7, and no teacher. Not to be changed."""
  config, workdir = frozen(tiny_config()), tmp_path_factory.mktemp('tiny_run')
  index = open_dataset(config.data, workdir)
  for seed, step in enumerate((3, 7)):
    save_checkpoint(dataclasses.replace(config, seed=seed), workdir, index.num_identities, step)
  save_config(config, workdir / 'config.json')
  return config, workdir, index


@pytest.fixture
def ledger(record_property):
  """Judges comparisons with goldens, and keeps the largest error of each for the list at the end."""
  ledger = Ledger()
  yield ledger
  ledger.report(record_property)


def pytest_terminal_summary(terminalreporter):
  """The list of the parity suite: the largest relative error of each golden."""
  everything = (report for kind in terminalreporter.stats.values() for report in kind)
  if lines := table(report for report in everything if getattr(report, 'when', '') == 'teardown'):
    terminalreporter.section('parity with the release')
    terminalreporter.write_line('\n'.join(lines))


@pytest.fixture
def lines():
  """The package's log messages during the test."""
  with logged() as lines:
    yield lines


@pytest.fixture
def x64():
  """Float64 for one test."""
  with jax.enable_x64(True):
    yield
