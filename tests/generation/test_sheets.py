"""Sheets of test people in each other's clothes, their images and their manifest."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest

from dgnet_jax.data.images import read_unresized
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.generation.sheets import write_swap_sheet
from dgnet_jax.inference.loading import load_predictor

SIZE = (32, 16)


@pytest.fixture
def folder(run):
  return run.generate(plan='sheets')


def read_rows(folder):
  with (folder / 'manifest.csv').open() as file:
    return list(csv.DictReader(file))


def test_manifest_names_both_sources_of_every_image(run, folder):
  rows = read_rows(folder)
  people = np.unique(run.index.query.identity)
  assert folder.name == 'step_0000007' and folder.parent.name == 'generated'
  assert len(rows) == len(people) * run.config.evaluation.num_swaps
  assert {row['file'] for row in rows} == {f'images/{path.name}' for path in (folder / 'images').iterdir()}
  assert {int(row['appearance_identity']) for row in rows} == set(people.tolist())
  for row in rows:
    appearance, structure = row['appearance_identity'], row['structure_identity']
    assert row['file'] == f'images/{int(appearance):04d}_in_{int(structure):04d}.png'
    assert row['appearance_from'].startswith(f'query/{int(appearance):04d}_')
    assert row['structure_from'].startswith(f'query/{int(structure):04d}_')


def test_images_are_the_swaps_of_their_sources(run, folder, tiny_run):
  rows = read_rows(folder)
  root = pathlib.Path(run.index.root)
  structures, appearances = (
    ImageFiles([root / row[key] for row in rows], SIZE) for key in ('structure_from', 'appearance_from')
  )
  predictor = load_predictor(run.config, tiny_run[1])
  expected = predictor.swap(structure_from=structures, appearance_from=appearances)
  images = [read_unresized(str(folder / row['file'])) for row in rows]
  np.testing.assert_allclose(np.stack(images).astype(int), expected, atol=1)


def test_sheets_show_num_swaps_appearances_each(run, folder):
  assert run.config.evaluation.num_swaps == 3
  sheets = sorted(folder.glob('sheet_*.png'))
  assert [sheet.name for sheet in sheets] == ['sheet_000.png', 'sheet_001.png']  # of three and of two people
  first, second = (read_unresized(str(sheet)) for sheet in sheets)
  assert first.shape[0] == second.shape[0] and first.shape[1] > second.shape[1]


def test_other_pairs_do_not_replace_the_images_of_earlier_ones(run, folder):
  earlier = {path.relative_to(folder): path.read_bytes() for path in folder.rglob('*.png')}
  assert run.generate(plan='sheets') == folder and not (folder.parent / 'earlier').exists()
  run.config = dataclasses.replace(run.config, evaluation=dataclasses.replace(run.config.evaluation, num_swaps=2))
  assert run.generate(plan='sheets') == folder and len(list(folder.glob('sheet_*.png'))) == 3
  assert {row['file'] for row in read_rows(folder)} == {f'images/{path.name}' for path in (folder / 'images').iterdir()}
  (kept,) = (folder.parent / 'earlier').iterdir()
  assert {path.relative_to(kept): path.read_bytes() for path in kept.rglob('*.png')} == earlier


def test_swap_sheet_has_a_row_and_a_column_for_each_person(run, tiny_run, tmp_path):
  predictor = load_predictor(run.config, tiny_run[1])
  paths = [write_swap_sheet(tmp_path / f'{n}.png', run.index.query, predictor, n) for n in (2, 4)]
  smaller, larger = (np.array(read_unresized(str(path)).shape[:2]) for path in paths)
  assert (larger - smaller >= 2 * np.array(SIZE)).all()
