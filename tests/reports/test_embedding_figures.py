"""Figures of embeddings, and the tables behind them, through the command line."""

import csv
import json

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.api import load
from dgnet_jax.cli.main import main
from dgnet_jax.data.index import Split
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.ranking import rank
from dgnet_jax.reports.embedding_figures import FILES, TABLES
from dgnet_jax.reports.embedding_map import choose_images
from dgnet_jax.utils import extras
from tests.storage.fake import new_address

NO_MAP = ('--images=0',)


@pytest.fixture
def draw(tiny_run, tmp_path):
  def call(*arguments):
    out = tmp_path / 'figures'
    main(['figures', 'embeddings', f'--workdir={tiny_run[1]}', f'--out={out}', *arguments])
    return out, json.loads((out / 'figures.json').read_text())

  return call


@pytest.fixture
def error_of(tiny_run, tmp_path, capsys):
  def call(*arguments):
    with pytest.raises(SystemExit) as caught:
      main(['figures', 'embeddings', f'--workdir={tiny_run[1]}', f'--out={tmp_path / "figures"}', *arguments])
    assert caught.value.code == 2 and not (tmp_path / 'figures').exists()
    return capsys.readouterr().err

  return call


def rows_of(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


def test_numbers_are_those_of_the_evaluation(draw, tiny_run):
  config, workdir, index = tiny_run
  out, described = draw(*NO_MAP)
  expected = {*FILES.values(), *TABLES.values(), 'figures.json'} - {FILES['embeddings']}
  assert {path.name for path in out.iterdir()} == expected
  model = load(workdir)
  query, gallery = (
    Embeddings(model.embed(list(split.paths)), split.identity, split.camera) for split in (index.query, index.gallery)
  )
  result = rank(query, gallery, alpha=None, protocol='standard')
  num_failing = round((1 - result.at(1)) * described['num_valid_queries'])
  assert described['num_failing_queries'] == num_failing == len(rows_of(out / 'failures.csv'))
  ranks = [int(row['rank_of_first_match']) for row in rows_of(out / 'failures.csv')]
  assert ranks == sorted(ranks, reverse=True) and min(ranks) > 1
  pairs = rows_of(out / 'cameras.csv')
  assert all(row['query_camera'] != row['gallery_camera'] and 0 <= float(row['mAP']) <= 1 for row in pairs)
  bins = rows_of(out / 'scores.csv')
  num_same = sum(
    int(((index.gallery.identity == identity) & (index.gallery.camera != camera)).sum())
    for identity, camera in zip(index.query.identity, index.query.camera, strict=True)
  )
  assert sum(int(row['same_person']) for row in bins) == num_same
  assert described['step'] == 7 and sum(camera['query'] for camera in described['cameras'].values()) == len(index.query)


def test_figures_of_another_step_are_kept(draw, tiny_run, tmp_path):
  out, _ = draw(*NO_MAP)
  before = (out / 'scores.png').read_bytes()
  main(['figures', 'embeddings', f'--workdir={tiny_run[1]}/checkpoints/3', f'--out={out}', *NO_MAP, '--failures=0'])
  (earlier,) = (out / 'earlier').iterdir()
  assert earlier.name.startswith('step_0000007') and (earlier / 'scores.png').read_bytes() == before
  assert json.loads((out / 'figures.json').read_text())['num_failures_shown'] == 0
  assert not (out / 'failures.png').exists() and (earlier / 'failures.png').exists()


def test_a_step_can_be_chosen(draw):
  assert draw(*NO_MAP, '--step=3')[1]['step'] == 3


def test_map_is_drawn_and_repeated_exactly(draw):
  pytest.importorskip('sklearn', reason="the extra 'plots' is not installed: pip install -e '.[plots]'")
  out, described = draw('--images=12', '--identities=2', '--thumbnails=4', '--perplexity=3', '--failures=0')
  expected = {'images': 12, 'identities': 2, 'perplexity': 3, 'seed': 0}
  assert described['map'].pop('divergence') >= 0 and described['map'] == expected
  first = (out / 'embeddings.png').read_bytes()
  with Image.open(out / 'embeddings.png') as image:
    assert image.width > 2 * image.height
  out, again = draw('--images=12', '--identities=2', '--thumbnails=4', '--perplexity=3', '--failures=0')
  again['map'].pop('divergence')
  assert again == described and (out / 'embeddings.png').read_bytes() == first


def test_maps_show_all_images_of_the_coloured_people():
  split = Split(tuple('abcdefghij'), np.array([1, 1, 2, 2, 3, 3, -1, 0, 2, 3]), np.zeros(10, int))
  chosen, coloured = choose_images(split, count=7, identities=2, seed=0)
  assert coloured.tolist() == [1, 3] and set(chosen[:5]) == {0, 1, 4, 5, 9}
  assert set(chosen[5:]) < {2, 3, 7, 8}
  everything, _ = choose_images(split, count=99, identities=2, seed=1)
  assert sorted(everything) == [0, 1, 2, 3, 4, 5, 7, 8, 9]


def test_mistakes_are_reported_before_anything_is_embedded(error_of, monkeypatch):
  assert 'at most 36 can be told apart' in error_of('--identities=37')
  monkeypatch.setattr(extras.importlib.util, 'find_spec', lambda name: None)
  message = error_of()
  assert 'scikit-learn' in message and '--images=0' in message
  monkeypatch.setattr(extras.importlib.util, 'find_spec', lambda name: name)
  monkeypatch.setattr('dgnet_jax.api.Model.embed', None)
  assert 'needs at least 5 images, not 4' in error_of('--images=4')
  assert '--perplexity=8: must be less than the number of images, 8' in error_of('--images=8', '--perplexity=8')


def test_results_need_a_folder_of_this_machine(tmp_path, capsys):
  (tmp_path / 'file').write_text('')
  with pytest.raises(SystemExit):
    main(['figures', 'embeddings', '--workdir=run', f'--out={tmp_path / "file"}'])
  assert 'is a file; the figures need a folder' in capsys.readouterr().err
  with pytest.raises(SystemExit):
    main(['figures', 'embeddings', f'--workdir={new_address()}'])
  assert '--out=FOLDER' in capsys.readouterr().err
