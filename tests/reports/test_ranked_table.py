"""The ranked gallery of every query in a folder of Parquet files."""

import dataclasses
import os

import numpy as np
import pytest

from dgnet_jax.config.schema import Config, EvaluationConfig
from dgnet_jax.data.index import LabeledImage, make_index
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.embeddings import Embeddings, weighted
from dgnet_jax.reports import ranked_table
from dgnet_jax.reports.ranked_table import write_ranked_table
from dgnet_jax.utils.parquet_parts import PLAN_FILE
from tests.training.test_processes import run_in_two_processes

parquet = pytest.importorskip('pyarrow.parquet')


def make_search():
  """An index of 7 queries and 12 gallery images, junk and distractors among them, with random embeddings."""
  rng, names = np.random.default_rng(0), ('007', '8a', '9', 'junk', 'distractor')
  images = {
    'query': [LabeledImage(f'q{i}.jpg', names[i % 3], f'c{i % 2}') for i in range(7)],
    'gallery': [LabeledImage(f'g{i:02d}.jpg', names[i % 5], f'c{i % 2}') for i in range(12)],
  }
  index = make_index('folders', '', images)
  return index, *(
    Embeddings(rng.standard_normal((len(split), 4)).astype(np.float32), split.identity, split.camera)
    for split in (index.query, index.gallery)
  )


@pytest.fixture
def search():
  return make_search()


def config_of(count):
  return Config(evaluation=EvaluationConfig(ranked_table=count, alpha=0.5))


def rows_of(folder):
  return [row for path in sorted(folder.glob('*.parquet')) for row in parquet.read_table(path).to_pylist()]


def test_rows_are_the_ranked_gallery_without_junk(search, tmp_path):
  index, query, gallery = search
  write_ranked_table(tmp_path / 'table', config_of(10_000), *search)
  rows = rows_of(tmp_path / 'table')
  scores = weighted(query, 0.5).features @ gallery.features.T
  expected = []
  for i, path in enumerate(index.query.paths):
    order = [
      j
      for j in np.argsort(-scores[i])
      if gallery.identity[j] >= 0
      and not (gallery.identity[j] == query.identity[i] and gallery.camera[j] == query.camera[i])
    ]
    expected += [(path, rank, index.gallery.paths[j]) for rank, j in enumerate(order, 1)]
  assert [(row['query_path'], row['rank'], row['gallery_path']) for row in rows] == expected
  cosines = {(q, g): scores[i, j] for i, q in enumerate(index.query.paths) for j, g in enumerate(index.gallery.paths)}
  for row in rows:
    assert row['similarity'] == pytest.approx(cosines[row['query_path'], row['gallery_path']] / 1.5, rel=1e-5)
    assert row['is_match'] == (row['query_identity'] == row['gallery_identity'])
    number = int(row['gallery_path'][1:3])
    assert row['gallery_identity'] == ('007', '8a', '9', 'junk', 'distractor')[number % 5]
    assert (row['gallery_camera'], row['query_camera']) == (f'c{number % 2}', f'c{int(row["query_path"][1]) % 2}')
  assert {row['gallery_identity'] for row in rows} == {'007', '8a', '9', 'distractor'}
  assert {True, False} == {row['is_match'] for row in rows}


def test_files_have_a_bounded_number_of_rows_and_the_same_content(search, tmp_path, monkeypatch):
  write_ranked_table(tmp_path / 'one', config_of(3), *search)
  monkeypatch.setattr(ranked_table, 'ROWS', 9)  # three images for each of three queries
  write_ranked_table(tmp_path / 'three', config_of(3), *search)
  names = [f'part-0000{i}-of-00003.parquet' for i in range(3)]
  assert sorted(os.listdir(tmp_path / 'three')) == sorted([PLAN_FILE, *names])
  assert rows_of(tmp_path / 'three') == rows_of(tmp_path / 'one')


def test_files_that_exist_are_kept_and_others_replaced(search, tmp_path, monkeypatch):
  monkeypatch.setattr(ranked_table, 'ROWS', 9)
  folder, index, query, gallery = tmp_path / 'table', *search
  write_ranked_table(folder, config_of(3), *search)
  files = sorted(folder.glob('*.parquet'))
  complete, content = rows_of(folder), files[2].read_bytes()
  files[0].write_bytes(b'kept')
  files[2].unlink()
  write_ranked_table(folder, config_of(3), *search)
  assert files[0].read_bytes() == b'kept' and files[2].read_bytes() == content
  other = query.with_features(query.features + 1)
  write_ranked_table(folder, config_of(3), index, other, gallery)
  assert len(rows_of(folder)) == len(complete) and rows_of(folder) != complete
  write_ranked_table(folder, config_of(2), *search)
  assert rows_of(folder) == [row for row in complete if row['rank'] <= 2]
  renamed = dataclasses.replace(index.query, paths=tuple(f'other_{path}' for path in index.query.paths))
  write_ranked_table(folder, config_of(2), dataclasses.replace(index, query=renamed), query, gallery)
  assert rows_of(folder)[0]['query_path'] == 'other_q0.jpg'
  (folder / PLAN_FILE).write_text('{')
  with pytest.raises(UserError, match='is damaged'):
    write_ranked_table(folder, config_of(2), *search)


TWO_PROCESSES = """
import pathlib
from dgnet_jax.reports import ranked_table
from tests.reports.test_ranked_table import config_of, make_search
ranked_table.ROWS = 9
written, save = [], ranked_table.save_table
ranked_table.save_table = lambda path, columns: written.append(path.name) or save(path, columns)
ranked_table.write_ranked_table(pathlib.Path(sys.argv[3]), config_of(3), *make_search())
assert len(written) == (2 if jax.process_index() == 0 else 1), written
"""


def test_two_processes_share_the_files(search, tmp_path, monkeypatch):
  monkeypatch.setattr(ranked_table, 'ROWS', 9)
  write_ranked_table(tmp_path / 'alone', config_of(3), *search)
  run_in_two_processes(TWO_PROCESSES, tmp_path / 'shared')
  files = sorted(path.name for path in (tmp_path / 'alone').iterdir())
  assert sorted(path.name for path in (tmp_path / 'shared').iterdir()) == files and len(files) == 4
  for name in files:
    assert (tmp_path / 'shared' / name).read_bytes() == (tmp_path / 'alone' / name).read_bytes()
