"""Damaged checkpoints, storage that fails, and the replacement of checkpoints."""

import errno
import itertools
import os
import shutil
import subprocess
import sys
import time
import warnings

import jax
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.training import checkpoint_replacement
from dgnet_jax.training.checkpoint_arrays import is_storage_error, short_reason
from dgnet_jax.training.checkpoints import Checkpoints
from tests.training.checkpoint_states import assert_same, make_state, save_steps

# When reading a damaged checkpoint fails, other reads in progress find their event loop closed.
pytestmark = pytest.mark.filterwarnings('ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning')


@pytest.fixture
def folder(tmp_path):
  """A folder with the checkpoints of steps 10, 20 and 30."""
  return save_steps(tmp_path / 'checkpoints')


# A limit on the size of files stands in for the size of the disk. As in a command, Orbax is imported last.
SAVE_ON_A_FULL_DISK = """
import resource, sys
from dgnet_jax.utils.console import exit_on_user_error
with exit_on_user_error():
  import numpy as np
  from dgnet_jax.training.checkpoints import Checkpoints
  with Checkpoints(sys.argv[1], 3) as checkpoints:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
    checkpoints.save(40, {'x': np.random.default_rng(0).normal(size=100_000)})
"""
DESCRIPTIONS = (
  *('null', '[]', '{}', '{"leaves": 3, "config": {}}', '{"leaves": {}, "config": []}', '[' * 9999, 'x'),
  '{"leaves": {"x": 3}, "config": {}}',
  '{"leaves": {"x": {"dtype": "float32", "sha256": "", "shape": [-1]}}, "config": {}}',
  '{"leaves": {"x": {"dtype": "float32", "sha256": "", "shape": "5"}}, "config": {}}',
  '{"leaves": {}, "config": {"generator": 3}}',
)


def array_files(folder, step):
  """Returns the files that hold arrays; some are superseded and never read."""
  return [path for path in (folder / str(step)).rglob('d/*') if path.is_file()]


def restored_step(folder):
  """Restores the newest intact checkpoint and returns its step; checks the state, and the warning if one is skipped."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    state = Checkpoints(folder).restore(make_state())
  step = int(state.step)
  assert_same(state, make_state(step))
  assert [str(w.message) for w in caught if 'step 30' in str(w.message)] if step < 30 else not caught
  return step


class TestDamage:
  def test_flipped_bytes_never_change_a_state(self, folder):
    steps = set()
    for path in array_files(folder, 30):
      content = path.read_bytes()
      for position in np.linspace(0, len(content) - 1, 5, dtype=int):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        steps.add(restored_step(folder))
      path.write_bytes(content)
    assert 20 in steps

  def test_wrong_checksum_is_detected(self, folder):
    checkpoints = Checkpoints(folder, 3)
    about = folder / '30' / 'about' / 'metadata'
    text = about.read_text()
    start = text.index('"sha256": "') + len('"sha256": "')
    about.write_text(text[:start] + ('1' if text[start] == '0' else '0') + text[start + 1 :])
    with pytest.warns(UserWarning, match='step 30 is damaged .*does not match its checksum'):
      assert_same(checkpoints.restore(make_state()), make_state(20))
    checkpoints.close()

  @pytest.mark.parametrize(
    'text',
    [
      *('{}', '[]', '{"leaves": 5, "config": {}}', '{"leaves": {"step": {}}, "config": {}}', '[' * 5000),
      '{"leaves": {"step": {"dtype": "int32", "shape": [9223372036854775807], "sha256": ""}}, "config": {}}',
      '{"leaves": {"step": {"dtype": "int32", "shape": ["a"], "sha256": ""}}, "config": {}}',
      '{"leaves": {}, "config": ' + '{"a":' * 500 + '1' + '}' * 500 + '}',
      '{"leaves": {}, "config": {"seed": ' + '9' * 4000 + '}}',
    ],
    ids=len,
  )
  def test_strange_descriptions_are_damage(self, folder, text):
    (folder / '30' / 'about' / 'metadata').write_text(text)
    assert restored_step(folder) == 20
    checkpoints = Checkpoints(folder)
    for read in (checkpoints.shapes, checkpoints.saved_config):
      with pytest.raises(UserError, match='the checkpoint of step 30 is damaged'):
        read(30)

  def test_arrays_that_are_not_finite_are_not_restored(self, folder):
    """As earlier versions saved them."""
    checkpoints, state = Checkpoints(folder, 3), make_state(40)
    params = jax.tree.map(lambda x: x * np.nan, state.reid.params)
    checkpoints.save(40, state.replace(reid=state.reid.replace(params=params)), wait=True)
    with pytest.warns(UserWarning, match='step 40 is damaged .*reid/.* is not finite'):
      assert_same(checkpoints.restore(make_state()), make_state(30))
    checkpoints.close()

  def test_truncated_files_are_detected(self, folder):
    steps = set()
    for path in array_files(folder, 30):
      content = path.read_bytes()
      path.write_bytes(content[: len(content) // 2])
      steps.add(restored_step(folder))
      path.write_bytes(content)
    assert 20 in steps

  @pytest.mark.parametrize('missing', ['state', 'about', 'state/manifest.ocdbt', 'state/_METADATA'])
  def test_missing_files_are_detected(self, folder, missing):
    path = folder / '30' / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert restored_step(folder) == 20

  @pytest.mark.parametrize('text', DESCRIPTIONS)
  def test_damaged_descriptions_are_detected(self, folder, text):
    (folder / '30' / 'about' / 'metadata').write_text(text)
    checkpoints = Checkpoints(folder)
    for read in (checkpoints.shapes, checkpoints.saved_config, checkpoints.num_identities):
      with pytest.raises(UserError, match='step 30 is damaged'):
        read(30)
    assert restored_step(folder) == 20

  def test_unfinished_folders_are_ignored(self, folder):
    (folder / '30').rename(folder / '30.orbax-checkpoint-tmp')
    checkpoints = Checkpoints(folder, 3)
    assert_same(checkpoints.restore(make_state()), make_state(20))
    checkpoints.close()

  def test_damaged_checkpoint_is_replaced(self, folder):
    shutil.rmtree(folder / '30' / 'state')
    checkpoints = Checkpoints(folder, 3)
    with pytest.warns(UserWarning):
      checkpoints.restore(make_state())
    checkpoints.save(25, make_state(25))
    checkpoints.save(30, make_state(31), wait=True)
    assert_same(checkpoints.restore(make_state()), make_state(31))
    checkpoints.close()

  def test_all_damaged_raises_and_names_each(self, folder):
    for step in (10, 20, 30):
      shutil.rmtree(folder / str(step) / 'state')
    checkpoints = Checkpoints(folder)
    with pytest.warns(UserWarning), pytest.raises(UserError, match='step 30 .*step 20 .*step 10 .*Delete the folder'):
      checkpoints.restore(make_state())

  def test_requested_step_that_is_damaged_raises(self, folder):
    shutil.rmtree(folder / '30' / 'state')
    with pytest.warns(UserWarning), pytest.raises(UserError, match='damaged'):
      Checkpoints(folder).restore(make_state(), 30)


class TestStorageErrors:
  """Storage that fails to deliver a file says nothing about the file: nothing is skipped, replaced or deleted."""

  @pytest.mark.parametrize(
    ('file', 'target', 'reason'),
    [
      # Reading this file of Linux at its start gives EIO.
      ('about/metadata', '/proc/self/mem', 'Input/output error'),
      ('state/_METADATA', '/proc/self/mem', 'Input/output error'),
      # TensorStore reads this one; a link to itself cannot be opened.
      ('state/manifest.ocdbt', 'manifest.ocdbt', 'symbolic links'),
    ],
  )
  def test_storage_error_is_raised_and_not_taken_for_damage(self, folder, file, target, reason):
    path, kept = folder / '30' / file, folder / 'kept'
    path.rename(kept)
    path.symlink_to(target)
    checkpoints = Checkpoints(folder, 3)
    with pytest.raises(UserError, match=f'step 30 cannot be read .*{reason}'):
      checkpoints.restore(make_state())
    assert checkpoints.latest_step() == 30
    kept.replace(path)
    assert_same(checkpoints.restore(make_state()), make_state(30))
    checkpoints.close()

  def test_saved_config_does_not_fall_back_to_an_older_checkpoint(self, folder):
    path = folder / '30' / 'about' / 'metadata'
    path.unlink()
    path.symlink_to('/proc/self/mem')
    with pytest.raises(UserError, match='step 30 cannot be read'):
      Checkpoints(folder).saved_config()

  @pytest.mark.parametrize(
    ('error', 'from_storage'),
    [
      (OSError(errno.ESTALE, 'Stale file handle'), True),
      (PermissionError(errno.EACCES, 'Permission denied'), True),
      (MemoryError(), True),
      (ValueError('PERMISSION_DENIED: Failed to open: "d/a": Permission denied [os_error_code=\'13\']'), True),
      (ValueError('UNKNOWN: Error reading "d/a": Input/output error [os_error_code=\'5\']'), True),
      (FileNotFoundError('File about not found.'), False),
      (ValueError('DATA_LOSS: Error decoding manifest'), False),
      (ValueError('OUT_OF_RANGE: Requested byte range [0, 318) is not valid for value of size 0'), False),
      (KeyError('about'), False),
    ],
  )
  def test_storage_errors_are_distinguished_from_damage(self, error, from_storage):
    assert is_storage_error(error) == from_storage
    wrapped = RuntimeError('restore failed')
    wrapped.__cause__ = error
    assert is_storage_error(wrapped) == from_storage


def test_long_reason_keeps_its_end():
  reason = short_reason(ValueError(f'Error reading {"d" * 2000}: Permission denied\nmore'))
  assert reason.startswith('Error reading ddd') and reason.endswith('ddd: Permission denied') and len(reason) < 520
  assert short_reason(ValueError('no such array')) == 'no such array' and short_reason(KeyError()) == 'KeyError'


class TestReplacement:
  def folders(self, folder):
    return sorted(path.name for path in folder.iterdir())

  def test_old_checkpoints_stay_until_the_new_one_is_complete(self, folder, monkeypatch):
    checkpoints = Checkpoints(folder, 3)
    seen = []
    recover = checkpoint_replacement.recover

    def watch(path):
      seen.append(self.folders(path))
      recover(path)

    monkeypatch.setattr(checkpoint_replacement, 'recover', watch)
    checkpoints.save(20, make_state(21))
    checkpoints.close()
    assert seen == [['.replaced_20_by_20', '.replaced_30_by_20', '10', '20']]
    assert self.folders(folder) == ['10', '20']
    assert_same(Checkpoints(folder).restore(make_state()), make_state(21))

  def test_failed_save_loses_nothing(self, folder, monkeypatch):
    checkpoints = Checkpoints(folder, 3)

    def fail(*args, **kwargs):
      raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(checkpoints._manager, 'save', fail)
    with pytest.raises(UserError, match='cannot be written .No space left on device.; .* step 30 is complete'):
      checkpoints.save(20, make_state(21))
    checkpoints.close()
    checkpoints = Checkpoints(folder, 3)
    for step in (10, 20, 30):
      assert_same(checkpoints.restore(make_state(), step), make_state(step))
    checkpoints.close()

  def test_full_disk_is_one_line(self, folder):
    """In the background, where Orbax logs a traceback in every thread."""
    environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)}
    command = [sys.executable, '-c', SAVE_ON_A_FULL_DISK, str(folder)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith(f'error: {folder}: a checkpoint cannot be written (')
    assert '; the checkpoint of step 30 is complete' in line
    assert restored_step(folder) == 30

  def test_clock_may_jump_while_a_checkpoint_is_written(self, folder, monkeypatch):
    real, hours = time.time, itertools.cycle((0, 5, -7, 11))
    monkeypatch.setattr(time, 'time', lambda: real() + 3600 * next(hours))
    checkpoints = Checkpoints(folder, 3)
    for step in (40, 50, 60):
      checkpoints.save(step, make_state(step))
    checkpoints.close()
    monkeypatch.undo()
    assert_same(Checkpoints(folder).restore(make_state()), make_state(60))

  def test_reading_does_not_recover(self, folder):
    (folder / '30').rename(folder / '.replaced_30_by_25')
    assert Checkpoints(folder).latest_step() == 20
    assert '.replaced_30_by_25' in self.folders(folder)

  def test_interrupted_removal_is_finished(self, folder):
    (folder / '30').rename(folder / '.replaced_30_by_20')
    checkpoints = Checkpoints(folder, 3)
    assert checkpoints.latest_step() == 20
    checkpoints.close()
    assert self.folders(folder) == ['10', '20']
