"""A tiny snapshot of the release's form, and a work folder made of it."""

import shutil

import pytest

from dgnet_jax.config import loading
from dgnet_jax.interop.release.files import find_files
from dgnet_jax.interop.release.importer import import_release
from tests.interop.synthetic_release import (
  STEP,
  TINY_OVERRIDES,
  random_state_dict,
  tiny_shapes,
  write_release,
)


@pytest.fixture(scope='module')
def release(tmp_path_factory):
  """A folder of the release's files, and the state dicts in them."""
  state_dicts = {
    network: random_state_dict(shapes, seed) for seed, (network, shapes) in enumerate(tiny_shapes().items())
  }
  return write_release(tmp_path_factory.mktemp('release'), state_dicts, STEP), state_dicts


@pytest.fixture(scope='module')
def imported(release, tmp_path_factory):
  """A work folder made of them, its config, and the lines that a person saw."""
  folder, _ = release
  workdir, lines = tmp_path_factory.mktemp('runs') / 'release', []
  data = {'data.root': str(workdir.parent / 'data')}
  files = find_files(folder, folder / 'teacher')
  import_release(files, workdir, overrides=TINY_OVERRIDES | data)
  return workdir, loading.load_config(workdir / 'config.json', {}), lines


@pytest.fixture
def changeable(release, tmp_path):
  """A copy of the release's folder."""
  return shutil.copytree(release[0], tmp_path / 'files')
