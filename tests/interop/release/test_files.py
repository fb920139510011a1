"""Finding the files of a snapshot."""

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.files import find_files, read_state_dict
from dgnet_jax.interop.torch_write import write_torch
from tests.interop.synthetic_release import STEP, write_release


def test_newest_snapshot_by_default(release, changeable):
  write_release(changeable, release[1], 2)
  assert find_files(changeable, changeable / 'teacher').step == STEP
  assert find_files(changeable, changeable / 'teacher', step=2).step == 2


def test_unknown_step_lists_the_available_ones(release, changeable):
  write_release(changeable, release[1], 2)
  with pytest.raises(UserError, match='no snapshot of step 3; available: 2, 6'):
    find_files(changeable, None, step=3)


def test_settings_may_be_one_folder_up(changeable):
  folder = changeable / 'checkpoints'
  folder.mkdir()
  for path in changeable.glob('*.pt'):
    path.rename(folder / path.name)
  assert find_files(folder, changeable / 'teacher').paths['config'] == changeable / 'config.yaml'


def test_missing_files_are_listed_with_advice(changeable):
  (changeable / 'optimizer.pt').unlink()
  (changeable / f'id_{STEP:08d}.pt').unlink()
  with pytest.raises(UserError) as error:
    find_files(changeable, None)
  message = str(error.value)
  assert 'files of step 6 are missing: id (required)' in message
  assert 'optimizer (--without optimizer starts with zero moments)' in message
  assert 'teacher (pass its path with --teacher, or --without teacher)' in message


def test_folder_without_a_snapshot(tmp_path):
  with pytest.raises(UserError, match='no snapshot of the release'):
    find_files(tmp_path, None)
  with pytest.raises(UserError, match='no such folder'):
    find_files(tmp_path / 'absent', None)


def test_file_without_a_state_dict(tmp_path):
  write_torch(tmp_path / 'gen.pt', {'b': {}})
  with pytest.raises(UserError, match="not a 'gen' file of the release, which holds a state dict under the key 'a'"):
    read_state_dict('gen', tmp_path / 'gen.pt')
