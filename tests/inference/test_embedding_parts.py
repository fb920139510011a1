"""Embeddings in a folder of Parquet files."""

import dataclasses
import os
import signal

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.inference.embedding_parts import EmbeddingParts
from dgnet_jax.utils.parquet_parts import PLAN_FILE

parquet = pytest.importorskip('pyarrow.parquet')

SHARES = np.float32([0.5, 0.5])


@pytest.fixture
def paths(tmp_path):
  """Seven images, each of one grey level."""
  paths = [tmp_path / 'images' / f'{level}.png' for level in range(7)]
  paths[0].parent.mkdir()
  for level, path in enumerate(paths):
    Image.new('RGB', (4, 8), (level,) * 3).save(path)
  return list(map(str, paths))


@pytest.fixture
def parts(tmp_path, paths):
  return EmbeddingParts(tmp_path / 'embeddings', paths, SHARES, networks='a', rows=3)


class Embed:
  """Embeds an image as its grey level, and remembers what it was called with."""

  def __init__(self):
    self.called_with = []

  def __call__(self, images):
    self.called_with.append(len(images))
    return np.repeat(images.resized((8, 4))[:].mean(axis=(1, 2, 3))[:, None], 4, axis=1).astype(np.float32)


def rows_of(parts):
  """Pairs of a path and the first number of its embedding."""
  rows = [row for path in parts.files for row in parquet.read_table(path).to_pylist()]
  return [(row['path'], row['embedding'][0]) for row in rows]


def test_files_hold_all_images_in_order(parts, paths):
  parts.write(embed := Embed())
  assert rows_of(parts) == [(path, float(level)) for level, path in enumerate(paths)]
  assert embed.called_with == [3, 3, 1]
  names = ['part-00000-of-00003.parquet', 'part-00001-of-00003.parquet', 'part-00002-of-00003.parquet']
  assert sorted(os.listdir(parts.folder)) == sorted([PLAN_FILE, *names])


def test_a_stopped_job_goes_on_with_the_next_file(parts, paths):
  def stop(images):
    os.kill(os.getpid(), signal.SIGTERM)
    return Embed()(images)

  with pytest.raises(Interrupted, match='stopped after .*part-00000-of-00003'):
    parts.write(stop)
  os.remove(paths[0])  # not needed again, but counted in the plan: another set
  with pytest.raises(UserError, match=r'0\.png: cannot be read'):
    parts.write(Embed())
  Image.new('RGB', (4, 8)).save(paths[0])
  parts.write(embed := Embed())
  assert embed.called_with == [3, 1]
  assert [level for _, level in rows_of(parts)] == list(range(7))


def test_shares_are_disjoint_and_complete(parts, paths):
  calls = []
  for i in range(2):
    parts.write(embed := Embed(), share=(i, 2))
    calls.append(embed.called_with)
  assert calls == [[3, 1], [3]]
  assert [path for path, _ in rows_of(parts)] == paths


def test_unreadable_images_are_named_before_anything_is_embedded(parts, paths):
  with open(paths[6], 'wb') as file:
    file.write(b'no image')
  with pytest.raises(UserError, match=r'6\.png'):
    parts.write(embed := Embed())
  assert not embed.called_with


@pytest.mark.parametrize(
  ('changed', 'names'),
  [
    ({'networks': 'b'}, 'networks'),
    ({'shares': np.float32([1, 0])}, 'shares'),
    ({'rows': 4}, 'rows'),
  ],
)
def test_other_embeddings_are_not_mixed(parts, changed, names):
  parts.write(Embed())
  with pytest.raises(UserError, match=rf'holds other embeddings \({names} changed\)'):
    dataclasses.replace(parts, **changed).write(Embed())
  with pytest.raises(UserError, match='images, num_images changed'):
    dataclasses.replace(parts, paths=parts.paths[:6]).write(Embed())


def test_folders_of_others_and_damaged_plans_are_refused(parts):
  parts.folder.mkdir()
  (parts.folder / 'other.parquet').touch()
  with pytest.raises(UserError, match='Parquet files of something else'):
    parts.write(Embed())
  for text in ('', '[1]', '{'):
    (parts.folder / PLAN_FILE).write_text(text)
    with pytest.raises(UserError, match='damaged|other embeddings'):
      parts.write(Embed())


def test_duckdb_ranks_them(parts, paths):
  """The query of docs/your_own_images.md."""
  duckdb = pytest.importorskip('duckdb')
  parts.write(Embed())
  query = f"""
    SELECT gallery.path, list_inner_product(query.embedding, gallery.embedding) AS score
    FROM '{parts.folder}/*.parquet' AS gallery, '{parts.folder}/*.parquet' AS query
    WHERE query.path = '{paths[1]}' ORDER BY score DESC LIMIT 2
  """
  assert duckdb.sql(query).fetchall() == [(paths[6], 24.0), (paths[5], 20.0)]
