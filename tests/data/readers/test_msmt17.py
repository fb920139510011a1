"""MSMT17: lists of files whose labels start at 0 twice."""

import pytest

from dgnet_jax.data.registry import read_layout
from tests.data.fakes import write_fake
from tests.data.reading import check_error


@pytest.mark.parametrize('version', [1, 2])
def test_labels_of_both_parts_become_different_identities(tmp_path, version):
  index = read_layout(write_fake(tmp_path, 'msmt17', version=version))
  assert index.class_of == {1: 0, 2: 1, 3: 2} and set(index.gallery.identity) == {4, 5}
  assert index.identity_names[1] == 'train 0000' and index.identity_names[4] == 'test 0000'
  assert ('mask_train_v2' in index.train.paths[0]) == (version == 2)


def test_list_saved_by_an_editor_of_windows_is_read(tmp_path):
  root = write_fake(tmp_path, 'msmt17')
  paths = read_layout(root).train.paths
  text = (root / 'list_train.txt').read_text()
  (root / 'list_train.txt').write_text(text.replace('\n', '\r\n'), encoding='utf-8-sig', newline='')
  assert read_layout(root).train.paths == paths


def test_validation_list_can_be_excluded(tmp_path):
  root = write_fake(tmp_path, 'msmt17', {'train': (20, 4), 'query': (2, 2), 'gallery': (4, 2)})
  assert len(read_layout(root).train) == 20
  index = read_layout(root, train_with_val=False)
  assert len(index.train) == 18 and index.variant == 'without list_val' and index.num_identities == 4


def test_lists_without_folder_are_skipped(tmp_path, lines):
  (write_fake(tmp_path, 'msmt17') / 'test').rename(tmp_path / 'elsewhere')
  index = read_layout(tmp_path)
  assert len(index.train) == 6 and not len(index.query) and len(lines) == 2 and 'list_query.txt' in lines[0]


@pytest.mark.parametrize('line', ['0000/0000_000_01_x_0.jpg', '0000/x.jpg one', '1'])
def test_wrong_line_is_named(tmp_path, line):
  path = write_fake(tmp_path, 'msmt17') / 'list_query.txt'
  path.write_text(f'{path.read_text()}\n{line}\n')
  check_error(tmp_path, f'{path}, line 4', 'relative/path.jpg label', layout='msmt17')


def test_wrong_name_and_empty_list_are_errors(tmp_path):
  path = write_fake(tmp_path, 'msmt17') / 'list_query.txt'
  path.write_text('0000/x.jpg 3\n')
  check_error(tmp_path, '1 of 1 names', '0000/x.jpg', layout='msmt17')
  path.write_text('\n')
  check_error(tmp_path, 'no images in the lists of query', layout='msmt17')
