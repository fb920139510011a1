"""What every test shares: JAX's settings, which must be made before it starts, and the folders of reference data."""

import os
import pathlib

REPO = pathlib.Path(__file__).resolve().parent.parent

# The CPU backend's own convolutions are 2 to 5 times slower than the library's on padded inputs; eight virtual devices
# let sharding be tested anywhere. Compiled programs are kept between runs, one folder per worker so that none reads
# another's half-written file.
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT',
    '--xla_force_host_platform_device_count=8',
  ]
).strip()
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
WORKER = os.environ.get('PYTEST_XDIST_WORKER', 'main')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(REPO / '.pytest_cache' / 'jax' / WORKER))

import jax  # noqa: E402 (after the settings above)
import pytest  # noqa: E402


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
def shared_data_dir() -> pathlib.Path:
  """Folder with a few real crops: $DGNET_SHARED_DATA_DIR, else shared/data beside the repository."""
  default = REPO.parent / 'shared' / 'data'
  path = pathlib.Path(os.environ.get('DGNET_SHARED_DATA_DIR', default))
  return _folder_or_skip(path, 'real crops (set DGNET_SHARED_DATA_DIR)')


@pytest.fixture
def x64():
  """Float64 for one test."""
  with jax.enable_x64(True):
    yield
