"""Large sets of generated images: the same however they came about."""

import csv
import pathlib

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.generation import bulk
from dgnet_jax.generation.sheets import generate
from dgnet_jax.inference.trained import load_trained

# Without optimisation an image's last bit depends on its place in the batch.
pytestmark = pytest.mark.usefixtures('optimised')


def quiet(line):
  pass


@pytest.fixture
def run(tiny_run, tmp_path):
  """The config and a work folder of its own; `make` generates with fields of config.generation set."""
  config, workdir, index = tiny_run
  config = config.copy_and_resolve_references()
  config.generation.update(plan='images', num_images=40)

  class Run:
    def __init__(self):
      self.config, self.index = config, index

    def make(self, name='w', log=quiet, **fields):
      folder = tmp_path / name
      folder.mkdir(exist_ok=True)
      for part in ('checkpoints', 'synthetic_data'):
        if not (folder / part).exists():
          (folder / part).symlink_to(workdir / part)
      config.generation.update(fields)
      return generate(config, folder)

  return Run()


def rows_of(folder):
  with (folder / 'manifest.csv').open() as file:
    return list(csv.DictReader(file))


def content(folder):
  return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob('*')) if path.is_file()}


def test_manifest_says_who_gave_what(run):
  folder = run.make()
  rows, train = rows_of(folder), run.index.train
  assert folder.name == 'step_0000007_images_seed0' and len(rows) == 40
  assert {row['path'] for row in rows} == {str(path.relative_to(folder)) for path in folder.rglob('*.jpg')}
  for i, row in enumerate(rows):
    assert row['path'] == (f'images/{row["identity"]}/{row["identity"]}_{i:07d}_in_{row["structure_identity"]}.jpg')
    assert row['identity'] != row['structure_identity']
    assert row['appearance_from'].startswith(f'bounding_box_train/{row["identity"]}_')
    assert row['structure_from'].startswith(f'bounding_box_train/{row["structure_identity"]}_c{row["camera"]}')
    with Image.open(folder / row['path']) as image:
      assert image.size == (16, 32) and image.format == 'JPEG'
  # Each image gives its appearance equally often, and structures vary.
  given = [row['appearance_from'] for row in rows]
  assert given[: len(train)] == given[len(train) : 2 * len(train)] and len(set(given)) == len(train) == 16
  assert len({row['structure_from'] for row in rows}) > 8


def test_images_are_those_of_their_sources(run, tiny_run):
  folder = run.make(format='png', num_images=3)
  trained = load_trained(run.config, tiny_run[1])
  row = rows_of(folder)[-1]
  structure, appearance = (
    bulk.ImageFiles([pathlib.Path(run.index.root) / row[key]], (32, 16))[:]
    for key in ('structure_from', 'appearance_from')
  )
  with Image.open(folder / row['path']) as image:
    expected = next(trained.swap_images(structure, appearance))[0]
    np.testing.assert_allclose(np.asarray(image).astype(int), expected, atol=1)


def test_the_manifest_is_a_data_set(run):
  index = read_layout(run.make() / 'manifest.csv')
  assert len(index.train) == 40 and index.num_identities == 4
  assert set(index.identity_names.values()) >= set(map(run.index.identity_names.get, run.index.class_of))


def test_people_and_splits(run):
  rows = rows_of(run.make(plan='identities', appearance_split='query', structure_split='gallery', num_images=0))
  assert len(rows) == 5 and len({row['identity'] for row in rows}) == 5
  rows = rows_of(run.make(per_appearance=3))
  assert len(rows) == 15 and {row['appearance_from'].split('/')[0] for row in rows} == {'query'}
  assert all(row['structure_from'].startswith('bounding_box_test/00') for row in rows)
  assert len({row['appearance_from'] for row in rows}) > 5


def test_a_set_depends_on_the_seed_alone(run):
  first = content(run.make('first'))
  assert content(run.make('second')) == first
  other = run.make('third', seed=1)
  assert other.name.endswith('seed1') and rows_of(other) != rows_of(run.make('first', seed=0))


def test_an_interrupted_set_goes_on(run, tmp_path, monkeypatch, lines):
  """Killed while it wrote: what is whole is not made again, and the end is the same."""
  expected = content(run.make('whole'))
  save, written = bulk.save_image, []

  def dies(path, *arguments, **options):
    if len(written) == 20:
      (path.parent / f'.{path.name}.0.part').write_text('half')
      raise MemoryError
    written.append(path)
    return save(path, *arguments, **options)

  monkeypatch.setattr(bulk, 'save_image', dies)
  monkeypatch.setattr(bulk, 'WRITERS', 1)
  with pytest.raises(MemoryError):
    run.make('killed')
  (folder,) = (tmp_path / 'killed' / 'generated').iterdir()
  assert not (folder / 'manifest.csv').exists() and len(list(folder.rglob('*.jpg'))) == 20
  again = []
  monkeypatch.setattr(bulk, 'save_image', lambda path, *a, **o: again.append(path) or save(path, *a, **o))
  lines.clear()
  run.make('killed')
  assert content(folder) == expected and len(again) == 20 and not set(again) & set(written)
  assert any('20 of our 40 are there' in line for line in lines)


def test_a_signal_stops_between_batches(run, monkeypatch):
  class Stopped:
    def __enter__(self):
      return lambda: True

    def __exit__(self, *_):
      return None

  with monkeypatch.context() as patch:
    patch.setattr(bulk, 'stop_signals', Stopped)
    with pytest.raises(Interrupted, match='16 of 40 images in .*The same command goes on'):
      run.make('stopped')
  assert content(run.make('stopped')) == content(run.make('whole'))


def test_processes_share_the_work(run, monkeypatch):
  expected = content(run.make('alone'))
  for process in (2, 0, 1):
    monkeypatch.setattr(bulk, '_turn', lambda process=process: (process, 3))
    lines = []
    folder = run.make('shared')
    numbers = [int(path.name.split('_')[1]) % 3 for path in folder.rglob('*.jpg')]
    assert set(numbers) == {2: {2}, 0: {2, 0}, 1: {0, 1, 2}}[process]
    assert (folder / 'manifest.csv').exists() == (process == 1)
    assert process == 1 or 'of other processes' in lines[-1]
  assert content(folder) == expected


def test_a_set_can_grow(run):
  small = run.make('grown', num_images=10)
  before = content(small)
  large = content(run.make('grown', num_images=25))
  assert len(large) == 27  # with plan and manifest
  for path, data in before.items():
    assert large[path] == data or path.name == 'manifest.csv'


def test_what_does_not_fit_is_told(run, monkeypatch):
  folder = run.make(num_images=3)
  with pytest.raises(UserError, match=r'holds another set \(jpeg_quality: 95 -> 80\)'):
    run.make(jpeg_quality=80)
  (folder / 'plan.json').write_text('{')
  with pytest.raises(UserError, match='plan.json: damaged'):
    run.make()
  with pytest.raises(UserError, match='take two people'):
    lonely = run.index.query.identity.copy()
    lonely[:] = 3
    one = bulk.Split(run.index.query.paths, lonely, run.index.query.camera)
    index = bulk.dataclasses.replace(run.index, train=one)
    bulk.Plan(run.config.generation, index).pairs()
