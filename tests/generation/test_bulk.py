"""Large sets of generated images: equal however they were generated."""

import csv
import dataclasses
import pathlib
import shutil

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.config.validation import with_fields
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.generation import bulk, manifest
from dgnet_jax.generation.bulk import Plan
from dgnet_jax.inference.loading import load_predictor

parquet = pytest.importorskip('pyarrow.parquet')

# Without optimization the last bit of an image depends on its position in the batch.
pytestmark = pytest.mark.usefixtures('optimised')

DEFAULTS = {'plan': 'images', 'num_images': 40}


def read_rows(folder):
  with (folder / 'manifest.csv').open() as file:
    return list(csv.DictReader(file))


def contents(folder):
  return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_manifest_names_both_sources_of_every_image(run):
  folder = run.generate(**DEFAULTS)
  rows, train = read_rows(folder), run.index.train
  assert folder.name == 'step_0000007_images_seed0' and len(rows) == 40
  assert {row['path'] for row in rows} == {str(path.relative_to(folder)) for path in folder.rglob('*.jpg')}
  for i, row in enumerate(rows):
    assert row['path'] == (f'images/{row["identity"]}/{row["identity"]}_{i:07d}_in_{row["structure_identity"]}.jpg')
    assert row['identity'] != row['structure_identity']
    assert row['appearance_from'].startswith(f'bounding_box_train/{row["identity"]}_')
    assert row['structure_from'].startswith(f'bounding_box_train/{row["structure_identity"]}_c{row["camera"]}')
    with Image.open(folder / row['path']) as image:
      assert image.size == (16, 32) and image.format == 'JPEG'
  donors = [row['appearance_from'] for row in rows]
  assert donors[: len(train)] == donors[len(train) : 2 * len(train)] and len(set(donors)) == len(train) == 16
  assert len({row['structure_from'] for row in rows}) > 8


def test_nobody_is_held_out_of_other_data(run, tiny_run, tmp_path):
  save_config(run.config, tmp_path / 'run' / 'config.json')
  shutil.copytree(tiny_run[1] / 'synthetic_data', moved := tmp_path / 'moved')
  run.config = with_fields(run.config, {'data.root': str(moved), 'data.val_identities': 2})
  folder = run.generate(plan='identities', num_images=4)
  assert len({row['identity'] for row in read_rows(folder)}) == 4


def test_images_are_the_swaps_of_their_sources(run, tiny_run):
  folder = run.generate(plan='images', format='png', num_images=3)
  row = read_rows(folder)[-1]
  structure, appearance = (
    ImageFiles([pathlib.Path(run.index.root) / row[key]], (32, 16)) for key in ('structure_from', 'appearance_from')
  )
  expected = load_predictor(run.config, tiny_run[1]).swap(structure_from=structure, appearance_from=appearance)[0]
  with Image.open(folder / row['path']) as image:
    np.testing.assert_allclose(np.asarray(image).astype(int), expected, atol=1)


def test_manifest_is_a_data_set_of_layout_csv(run):
  index = read_layout(run.generate(**DEFAULTS) / 'manifest.csv')
  assert len(index.train) == 40 and index.num_identities == 4
  assert set(index.identity_names.values()) >= set(map(run.index.identity_names.get, run.index.class_of))


def test_plan_identities_takes_each_identity_equally_often(run):
  fields = {'plan': 'identities', 'appearance_split': 'query', 'structure_split': 'gallery', 'num_images': 0}
  rows = read_rows(run.generate(**fields))
  assert len(rows) == 5 and len({row['identity'] for row in rows}) == 5
  rows = read_rows(run.generate(per_appearance=3))
  assert len(rows) == 15 and {row['appearance_from'].split('/')[0] for row in rows} == {'query'}
  assert all(row['structure_from'].startswith('bounding_box_test/00') for row in rows)
  assert len({row['appearance_from'] for row in rows}) > 5


def test_a_set_is_determined_by_its_seed(run):
  first = contents(run.generate('first', **DEFAULTS))
  assert contents(run.generate('second')) == first
  other = run.generate('third', seed=1)
  assert other.name.endswith('seed1') and read_rows(other) != read_rows(run.generate('first', seed=0))


def test_a_killed_set_is_resumed(run, tmp_path, monkeypatch, lines):
  """Complete images are not generated again, and the result is that of an uninterrupted set."""
  expected = contents(run.generate('uninterrupted', **DEFAULTS))
  save, written, resumed = bulk.save_image, [], []

  def save_until_killed(path, *arguments, **options):
    if len(written) == 20:
      (path.parent / f'.{path.name}.0123abcd.part').write_text('half')
      raise MemoryError
    written.append(path)
    return save(path, *arguments, **options)

  def save_after_resuming(path, *arguments, **options):
    resumed.append(path)
    return save(path, *arguments, **options)

  monkeypatch.setattr(bulk, 'save_image', save_until_killed)
  monkeypatch.setattr(bulk, 'WRITERS', 1)
  with pytest.raises(MemoryError):
    run.generate('killed')
  (folder,) = (tmp_path / 'killed' / 'generated').iterdir()
  assert not (folder / 'manifest.csv').exists() and len(list(folder.rglob('*.jpg'))) == 20
  monkeypatch.setattr(bulk, 'save_image', save_after_resuming)
  run.generate('killed')
  assert contents(folder) == expected and len(resumed) == 20 and not set(resumed) & set(written)
  assert any('20 of the 40 of this process exist' in line for line in lines)


def test_a_signal_stops_generation_between_batches(run, monkeypatch):
  class Stopped:
    def __enter__(self):
      return lambda: True

    def __exit__(self, *_):
      return None

  with monkeypatch.context() as patch:
    patch.setattr(bulk, 'stop_signals', Stopped)
    with pytest.raises(Interrupted, match='16 of 40 images in .*Run the same command to resume'):
      run.generate('stopped', **DEFAULTS)
  assert contents(run.generate('stopped')) == contents(run.generate('uninterrupted'))


def test_processes_share_the_work(run, monkeypatch, lines):
  expected = contents(run.generate('alone', **DEFAULTS))
  for process in (2, 0, 1):
    monkeypatch.setattr(bulk, 'turns_of', lambda count, process=process: range(process, count, 3))
    folder = run.generate('shared')
    processes = {int(path.name.split('_')[1]) % 3 for path in folder.rglob('*.jpg')}
    assert processes == {2: {2}, 0: {2, 0}, 1: {0, 1, 2}}[process]
    assert (folder / 'manifest.csv').exists() == (process == 1)
    assert ('of other processes are missing' in lines[-1]) == (process != 1)
  assert contents(folder) == expected


def test_a_set_can_grow(run):
  before = contents(run.generate('grown', plan='images', num_images=10))
  after = contents(run.generate('grown', num_images=25))
  assert len(after) == 27  # with plan.json and manifest.csv
  for path, content in before.items():
    assert after[path] == content or path.name == 'manifest.csv'


def read_table(folder):
  """The rows of the manifest's Parquet files, in order."""
  files = sorted((folder / 'manifest_table').iterdir())
  return [row for file in files for row in parquet.read_table(file).to_pylist()], [file.name for file in files]


def test_the_manifest_is_also_written_as_parquet_files(run, monkeypatch):
  monkeypatch.setattr(manifest, 'ROWS', 4)
  folder = run.generate('table', plan='images', num_images=5, manifest_table=True)
  rows, names = read_table(folder)
  assert rows == read_rows(folder) and len(rows) == 5
  assert names == ['part-00000-of-00002.parquet', 'part-00001-of-00002.parquet']
  for count in (9, 3):  # a table that exists grows and shrinks with its set
    run.generate('table', num_images=count, manifest_table=False)
    rows, names = read_table(folder)
    assert rows == read_rows(folder) and len(rows) == count and len(names) == -(-count // 4)


def test_no_table_of_an_incomplete_set_stays(run, monkeypatch):
  folder = run.generate('incomplete', plan='images', num_images=5, manifest_table=True)
  monkeypatch.setattr(bulk, 'turns_of', lambda count: range(0, count, 2))
  run.generate('incomplete', num_images=9)
  assert read_table(folder) == ([], []) and not (folder / 'manifest.csv').exists()
  monkeypatch.setattr(bulk, 'turns_of', lambda count: range(1, count, 2))
  run.generate('incomplete')
  monkeypatch.setattr(bulk, 'turns_of', range)
  alone = run.generate('alone', manifest_table=True)
  assert contents(folder) == contents(alone) and len(read_table(alone)[0]) == 9


def test_another_set_in_the_folder_is_refused(run):
  folder = run.generate(plan='images', num_images=3)
  with pytest.raises(UserError, match=r'holds another set \(jpeg_quality: 95 -> 80\)'):
    run.generate(jpeg_quality=80)
  (folder / 'plan.json').write_text('{')
  with pytest.raises(UserError, match=r'plan\.json is damaged'):
    run.generate()


def test_a_single_person_is_refused(run):
  query = run.index.query
  lonely = dataclasses.replace(query, identity=np.full_like(query.identity, 3))
  index = dataclasses.replace(run.index, train=lonely)
  with pytest.raises(UserError, match='an appearance and a structure of two different people'):
    _ = Plan(run.config.generation, index).pairs
