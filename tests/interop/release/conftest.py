"""A tiny snapshot in the release's format, and a work folder imported from it."""

import shutil

import pytest

from dgnet_jax.config.loading import load_config
from tests.interop.synthetic_release import STEP, import_tiny, random_state_dict, tiny_shapes, write_release
from tests.log_lines import logged


@pytest.fixture(scope='session')
def release(tmp_path_factory):
  """A folder of the release's files, and the state dicts in them. Not to be changed."""
  state_dicts = {
    network: random_state_dict(shapes, seed) for seed, (network, shapes) in enumerate(tiny_shapes().items())
  }
  return write_release(tmp_path_factory.mktemp('release'), state_dicts, STEP), state_dicts


@pytest.fixture(scope='session')
def imported(release, tmp_path_factory):
  """A work folder imported from `release`, its config, and what the import logged. Not to be changed."""
  folder, _ = release
  workdir = tmp_path_factory.mktemp('runs') / 'release'
  with logged() as lines:
    import_tiny(folder, workdir, overrides={'data.root': str(workdir.parent / 'data')})
  return workdir, load_config(workdir / 'config.json', {}), lines


@pytest.fixture
def changeable(release, tmp_path):
  """A copy of the folder of the release's files."""
  return shutil.copytree(release[0], tmp_path / 'files')
