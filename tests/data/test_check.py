"""Parts of the check of a data set; tests/cli/test_check_data.py runs all of it."""

import pytest

from dgnet_jax.data.check import contact_sheet_rows, scan_files
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from tests.data.folders import write_images, write_market


def test_contact_sheet_has_rows_of_one_shape(tmp_path):
  index = read_layout(write_market(tmp_path))
  rows = contact_sheet_rows(index, scan_files(index, threads=2))
  train, test = ('train 0002', 'train 0007', 'train 0010'), ('0003', '0004')
  assert list(rows) == [*train, *(f'{split} {name}' for split in ('query', 'gallery') for name in test)]
  assert {row.shape for row in rows.values()} == {(3, 128, 58, 3)}  # the files are 20x9
  assert (rows['train 0007'][1:] == 255).all() and not (rows['train 0010'] == 255).all(axis=(1, 2, 3)).any()


def test_contact_sheet_without_identities_is_an_error(tmp_path):
  index = read_layout(write_images(tmp_path, 'gallery/0/a.jpg', 'gallery/-1/b.jpg'), 'folders')
  with pytest.raises(UserError, match='no image can be shown'):
    contact_sheet_rows(index, scan_files(index, threads=2))
