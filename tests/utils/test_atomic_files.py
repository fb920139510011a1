"""Files and folders appear complete or not at all."""

import json

import pytest

from dgnet_jax.utils.atomic_files import atomic_file, atomic_folder, write_json


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
