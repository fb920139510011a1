"""Files and folders appear complete or not at all."""

import json
import os
import subprocess
import sys

import pytest

from dgnet_jax.utils import atomic_files, locks
from dgnet_jax.utils.atomic_files import atomic_file, atomic_folder, remove_leftovers, write_json


def test_file_appears_after_the_body(tmp_path):
  path = tmp_path / 'new' / 'file.txt'
  with atomic_file(path) as temporary:
    temporary.write_text('content')
    assert not path.exists()
  assert path.read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


def test_file_is_unchanged_after_an_exception(tmp_path):
  path = tmp_path / 'file.txt'
  path.write_text('old')
  with pytest.raises(ValueError, match='half way'), atomic_file(path) as temporary:
    temporary.write_text('new')
    raise ValueError('half way')
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_concurrent_writers_use_different_temporary_files(tmp_path):
  path = tmp_path / 'file.txt'
  with atomic_file(path) as first, atomic_file(path) as second:
    first.write_text('first')
    second.write_text('second')
  assert path.read_text() == 'first'


def test_folder_appears_after_the_body(tmp_path):
  path = tmp_path / 'new' / 'folder'
  with atomic_folder(path) as temporary:
    (temporary / 'file.txt').write_text('content')
    assert not path.exists()
  assert (path / 'file.txt').read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


def test_no_folder_is_left_after_an_exception(tmp_path):
  with pytest.raises(ValueError, match='half way'), atomic_folder(tmp_path / 'folder') as temporary:
    (temporary / 'file.txt').write_text('content')
    raise ValueError('half way')
  assert not list(tmp_path.iterdir())


def test_json_is_unchanged_if_values_cannot_be_written(tmp_path):
  path = tmp_path / 'values.json'
  write_json(path, {'a': [1, 2]})
  with pytest.raises(TypeError):
    write_json(path, {'a': object()})
  assert json.loads(path.read_text()) == {'a': [1, 2]}
  assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize('name', ['x' * 255, 'é' * 127, '.hidden', 'a\nb'])
def test_any_name_that_a_file_can_have(tmp_path, name):
  write_json(tmp_path / name, 1)
  assert (tmp_path / name).read_text() == '1\n' and len(list(tmp_path.iterdir())) == 1


def test_full_disk_is_blamed_on_the_file(tmp_path):
  with pytest.raises(OSError, match='No space left') as caught, atomic_file(tmp_path / 'file.txt'):
    with open('/dev/full', 'w') as file:
      file.write('content')
  assert caught.value.filename == str(tmp_path / 'file.txt') and not list(tmp_path.iterdir())


def test_temporary_file_is_not_named_in_errors(tmp_path):
  with pytest.raises(IsADirectoryError) as caught, atomic_file(tmp_path / 'folder'):
    (tmp_path / 'folder').mkdir()
  assert caught.value.filename == str(tmp_path / 'folder')


KILLED = """
import os, pathlib, signal, sys
from dgnet_jax.utils.atomic_files import atomic_file, atomic_folder
folder = pathlib.Path(sys.argv[1])
with atomic_file(folder / 'file.txt') as file, atomic_folder(folder / 'folder') as unfinished:
  file.write_text('half')
  (unfinished / 'file.txt').write_text('half')
  print('writing', flush=True)
  signal.pause()
"""


def test_what_a_killed_process_left_behind_is_removed(tmp_path):
  """But not while the process lives."""
  (tmp_path / '.mine.part').write_text('of another program')
  environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)}
  command = [sys.executable, '-c', KILLED, str(tmp_path)]
  with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
    assert process.stdout.readline() == 'writing\n'
    remove_leftovers(tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    process.kill()
  (tmp_path / '.sheet_000.png.0123abcd.part').write_text('of an earlier version')
  write_json(tmp_path / 'values.json', 1)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.mine.part', 'values.json']


def test_leftovers_stay_where_nobody_knows_whose_they_are(tmp_path, monkeypatch):
  (tmp_path / '.0123abcd.part').write_text('half')
  monkeypatch.setattr(locks, 'fcntl', None)
  write_json(tmp_path / 'values.json', 1)
  assert sorted(path.name for path in tmp_path.iterdir()) == ['.0123abcd.part', 'values.json']


def test_file_that_is_taken_for_a_leftover_is_made_again(tmp_path, monkeypatch):
  """By another process, in the moment before it is locked."""
  lock, taken = atomic_files.try_lock, []

  def late(descriptor):
    if len(taken) < 2:
      (path,) = tmp_path.glob('.*.part')
      path.unlink()
      taken.append(path)
    return lock(descriptor)

  monkeypatch.setattr(atomic_files, 'try_lock', late)
  write_json(tmp_path / 'values.json', 1)
  assert len(taken) == 2 and [path.name for path in tmp_path.iterdir()] == ['values.json']
