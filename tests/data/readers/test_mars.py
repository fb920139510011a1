"""MARS: tracks from file names and from its MATLAB files."""

import numpy as np
import pytest
import scipy.io

from dgnet_jax.data.readers import mat_files
from dgnet_jax.data.readers.mat_files import read_matrix
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from tests.data.folders import write_image

# Two people by two cameras, junk and a distractor: tracks of two images in the order of their names.
TRACKS = ('00-1C1T0001', '0000C2T0001', '0002C1T0001', '0002C1T0002', '0002C2T0001', '0004C1T0001', '0004C2T0001')


@pytest.fixture
def root(tmp_path):
  names = []
  for number, track in enumerate(TRACKS):
    folder = tmp_path / 'bbox_test' / track[:4]
    folder.mkdir(parents=True, exist_ok=True)
    for frame in (1, 2):
      names.append(f'{track}F{frame:03d}.jpg')
      write_image(folder / names[-1], seed=10 * number + frame)
  info = tmp_path / 'info'
  info.mkdir()
  (info / 'test_name.txt').write_text('\n'.join(names))
  rows = [
    [2 * i + 1, 2 * i + 2, max(-1, int(track[:4].replace('00-1', '-1'))), int(track[5])]
    for i, track in enumerate(TRACKS)
  ]
  scipy.io.savemat(info / 'tracks_test_info.mat', {'track_test_info': np.float64(rows)}, do_compression=True)
  scipy.io.savemat(info / 'query_IDX.mat', {'query_IDX': np.float64([[4, 7]])})
  return tmp_path


def tracks_of(index, split):
  names = [path.rsplit('/', 1)[1].split('F')[0] for path in index.splits[split].paths]
  assert len(set(zip(names, index.splits[split].track.tolist(), strict=True))) == len(set(names))
  return sorted(set(names))


def test_queries_are_those_of_the_lists(root):
  index = read_layout(root)
  assert index.name == 'mars' and tracks_of(index, 'query') == ['0002C1T0002', '0004C2T0001']
  assert tracks_of(index, 'gallery') == [track for track in TRACKS if track not in ('0002C1T0002', '0004C2T0001')]
  assert np.unique(index.gallery.identity).tolist() == [-1, 0, 2, 4] and len(index.train) == 0


def test_numbers_may_be_text_and_tracks_those_of_the_names(root):
  for name in ('query_IDX.mat', 'tracks_test_info.mat', 'test_name.txt'):
    (root / 'info' / name).unlink()
  (root / 'info' / 'query_IDX.txt').write_text('4\n7\n')
  assert tracks_of(read_layout(root), 'query') == ['0002C1T0002', '0004C2T0001']


def test_without_a_list_there_are_no_queries(root, lines):
  (root / 'info' / 'query_IDX.mat').unlink()
  index = read_layout(root)
  assert len(index.query) == 0 and len(index.gallery) == 14
  assert any('there are no queries' in line for line in lines)


def test_lists_that_do_not_fit_are_named(root):
  info = root / 'info'
  (info / 'query_IDX.mat').unlink()
  for text, problem in (('9', 'numbers from 9 to 9, and there are 7'), ('x', 'not the numbers'), ('', 'not the num')):
    (info / 'query_IDX.txt').write_text(text)
    with pytest.raises(UserError, match=f'query_IDX.txt: {problem}'):
      read_layout(root)
  (info / 'query_IDX.txt').write_text('1')
  scipy.io.savemat(info / 'tracks_test_info.mat', {'x': np.float64([[1, 3, 2, 1]])})
  with pytest.raises(UserError, match='lines 1 to 3 of .* are not one track of camera 1'):
    read_layout(root)
  scipy.io.savemat(info / 'tracks_test_info.mat', {'x': np.float64([[1, 300, 2, 1]])})
  with pytest.raises(UserError, match='not first line, last line'):
    read_layout(root)


def test_wrong_names_are_listed(root):
  write_image(root / 'bbox_test' / '0002' / 'photo.jpg')
  with pytest.raises(UserError, match=r'1 of 15 file names are not like 0001/0001C1T0001F001\.jpg: 0002/photo\.jpg'):
    read_layout(root, 'mars')


class TestMatFiles:
  def error(self, tmp_path, **variables):
    scipy.io.savemat(tmp_path / 'x.mat', variables, do_compression=True)
    with pytest.raises(UserError, match=r'x\.mat: cannot be read as a matrix') as caught:
      read_matrix(tmp_path / 'x.mat')
    return str(caught.value)

  def test_only_one_matrix_of_whole_numbers_is_read(self, tmp_path, monkeypatch):
    assert '2 variables' in self.error(tmp_path, a=np.ones((1, 1)), b=np.ones((1, 1)))
    assert 'expected a matrix' in self.error(tmp_path, a=np.array([['text']], dtype=object))
    assert 'expected a matrix' in self.error(tmp_path, a={'field': 1.0})
    assert 'expected a matrix' in self.error(tmp_path, a=np.ones((2, 2, 2)))
    assert 'not whole numbers' in self.error(tmp_path, a=np.float64([[0.5]]))
    assert 'not whole numbers' in self.error(tmp_path, a=np.float64([[np.nan]]))
    assert 'too large' in self.error(tmp_path, a=np.float64([[1e300]]))
    monkeypatch.setattr(mat_files, 'MAX_NUMBERS', 3)
    assert 'expected a matrix' in self.error(tmp_path, a=np.ones((2, 2)))

  def test_what_unpacks_to_too_much_is_refused(self, tmp_path, monkeypatch):
    monkeypatch.setattr(mat_files, 'MAX_BYTES', 10_000)
    assert 'unpacks to more than 10000 bytes' in self.error(tmp_path, a=np.zeros((100, 100)))

  def test_damaged_files_are_named(self, tmp_path):
    scipy.io.savemat(tmp_path / 'x.mat', {'a': np.ones((3, 3))}, do_compression=True)
    content = (tmp_path / 'x.mat').read_bytes()
    for damaged in (b'', content[:100], content[:-5], content[:140] + b'xxxx' + content[144:]):
      (tmp_path / 'x.mat').write_bytes(damaged)
      with pytest.raises(UserError, match=r'x\.mat: cannot be read'):
        read_matrix(tmp_path / 'x.mat')
