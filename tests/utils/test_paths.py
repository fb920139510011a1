"""Paths as people type them, and outputs that cannot be written."""

import os
import pathlib

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.utils.paths import check_writable, is_address, local_path, local_text


@pytest.mark.parametrize(
  ('typed', 'path'),
  [
    ('runs/market', 'runs/market'),
    ('runs/market/', 'runs/market'),
    ('./runs//market', 'runs/market'),
    ('..', '..'),
    ('~/runs', '/home/anna/runs'),
    ('~', '/home/anna'),
    ('runs/~', 'runs/~'),
    ('/data/my images/', '/data/my images'),
    (' leading', ' leading'),
    ('file:///data/a%20b.jpg', '/data/a b.jpg'),
    ('file://localhost/data/a.jpg', '/data/a.jpg'),
    ('holiday@2024', 'holiday@2024'),
    ('a:b', 'a:b'),
    ('\udc80', '\udc80'),
    (pathlib.Path('~/runs'), '/home/anna/runs'),
  ],
)
def test_paths_are_understood(monkeypatch, typed, path):
  monkeypatch.setenv('HOME', '/home/anna')
  assert local_path(typed) == pathlib.Path(path)


def test_text_stays_as_it_was_typed():
  for text in ('./a.jpg', 'folder/', '../x'):
    assert local_text(text) is text


@pytest.mark.parametrize(
  ('typed', 'words'),
  [
    ('', 'an empty path'),
    ('gs://bucket/run', 'must be on this machine'),
    ('s3://bucket', 'must be on this machine'),
    ('https://example.org/a.jpg', 'must be on this machine'),
    ('file://server/a.jpg', 'write file:///'),
    ('file://a.jpg', 'write file:///'),
    ('a\0b', r'a\\x00b: .* the character 0'),
    ('runs\\market', 'a path of Windows'),
    ('C:\\runs', 'a path of Windows'),
    ('d:/runs', 'a path of Windows'),
  ],
)
def test_other_paths_are_refused_in_one_line(typed, words):
  with pytest.raises(UserError, match=words) as caught:
    local_path(typed)
  assert '\n' not in str(caught.value)


def test_an_existing_name_may_have_a_backslash(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'a\\b.jpg').write_text('')
  assert local_path('a\\b.jpg').exists()


def test_addresses():
  assert is_address('gs://bucket/x') and is_address('hdfs://x')
  assert not any(map(is_address, ('/data', 'file:///data', 'a/b://c', 'C:/x', '')))


@pytest.mark.parametrize(
  ('name', 'reason'),
  [
    ('file/out.png', 'Not a directory'),
    ('file/folder/out.png', 'Not a directory'),
    ('x' * 300, 'File name too long'),
    ('new/' + 'x' * 300 + '/out.png', 'File name too long'),
    ('loop/out.png', 'symbolic links'),
    ('/proc/out.png', 'No such file'),
  ],
)
def test_what_cannot_be_written_is_refused_and_nothing_created(tmp_path, name, reason):
  (tmp_path / 'file').write_text('')
  (tmp_path / 'loop').symlink_to(tmp_path / 'loop')
  with pytest.raises(UserError, match=f'cannot be written to .*{reason}'):
    check_writable(tmp_path / name)
  assert sorted(os.listdir(tmp_path)) == ['file', 'loop']


@pytest.mark.parametrize('name', ['out.png', 'file', 'folder', 'folder/new/deep.png', 'é' * 127, 'a\nb'])
def test_what_can_be_written_is_accepted_and_not_created(tmp_path, name):
  (tmp_path / 'file').write_text('content')
  (tmp_path / 'folder').mkdir()
  assert check_writable(tmp_path / name) == tmp_path / name
  assert sorted(os.listdir(tmp_path)) == ['file', 'folder'] and not os.listdir(tmp_path / 'folder')
