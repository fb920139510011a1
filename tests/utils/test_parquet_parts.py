"""The files and the plan of a table in parts."""

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.utils.parquet_parts import MAX_PARTS, PLAN_FILE, changes_of_plan, part_files


def test_files_are_numbered(tmp_path):
  assert [path.name for path in part_files(tmp_path, 7, 3)][1:] == [
    *('part-00001-of-00003.parquet', 'part-00002-of-00003.parquet')
  ]
  assert len(part_files(tmp_path, 6, 3)) == 2 and part_files(tmp_path, 0, 3) == []
  assert part_files(tmp_path, MAX_PARTS * 3, 3)[-1].name == 'part-99999-of-100000.parquet'
  with pytest.raises(UserError, match='300001 rows do not fit into 100000 files of 3'):
    part_files(tmp_path, MAX_PARTS * 3 + 1, 3)


def test_changes_are_named(tmp_path):
  plan = {'a': 1, 'b': [2]}
  assert changes_of_plan(tmp_path, plan) is None
  (tmp_path / PLAN_FILE).write_text('{"a": 1, "b": [3], "c": 4}')
  assert changes_of_plan(tmp_path, plan) == ['b'] and changes_of_plan(tmp_path, {'a': 1}) == []
  for text in ('', '{', '3'):
    (tmp_path / PLAN_FILE).write_text(text)
    with pytest.raises(UserError, match='is damaged .*; move the folder away'):
      changes_of_plan(tmp_path, plan)
