"""Whole files."""

import pytest

from dgnet_jax.utils.atomic_files import whole_file, whole_folder


def test_file_appears_at_the_end(tmp_path):
  path = tmp_path / 'new' / 'file.txt'
  with whole_file(path) as aside:
    aside.write_text('content')
    assert not path.exists()
  assert path.read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file(tmp_path):
  path = tmp_path / 'file.txt'
  path.write_text('old')
  with pytest.raises(ValueError, match='half way'), whole_file(path) as aside:
    aside.write_text('new')
    raise ValueError('half way')
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_writers_do_not_meet(tmp_path):
  path = tmp_path / 'file.txt'
  with whole_file(path) as first, whole_file(path) as second:
    first.write_text('first')
    second.write_text('second')
  assert path.read_text() == 'first'


def test_folder_appears_at_the_end(tmp_path):
  path = tmp_path / 'new' / 'folder'
  with whole_folder(path) as aside:
    (aside / 'file.txt').write_text('content')
    assert not path.exists()
  assert (path / 'file.txt').read_text() == 'content'
  assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_no_folder(tmp_path):
  with pytest.raises(ValueError, match='half way'), whole_folder(tmp_path / 'folder') as aside:
    (aside / 'file.txt').write_text('content')
    raise ValueError('half way')
  assert not list(tmp_path.iterdir())
