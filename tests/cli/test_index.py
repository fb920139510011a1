"""`dgnet index`, and searching what it makes."""

import csv
import json
import pathlib
import shutil

from PIL import Image
import pytest

from dgnet_jax.cli.main import main

pyarrow = pytest.importorskip('pyarrow')
pytest.importorskip('pyarrow.parquet')


@pytest.fixture
def call(capsys):
  """Runs a command and returns what it printed."""

  def run(*arguments):
    main([*map(str, arguments)])
    return capsys.readouterr().out

  return run


@pytest.fixture
def error_of(capsys):
  """Runs a command that must fail, and returns the message."""

  def run(*arguments):
    with pytest.raises(SystemExit) as caught:
      main([*map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err

  return run


@pytest.fixture(scope='module')
def photos(tiny_run, tmp_path_factory):
  """The first images of two people, in a folder each."""
  index = tiny_run[2]
  folder = tmp_path_factory.mktemp('photos')
  for path in index.gallery.paths[-6:]:
    name = pathlib.Path(path).name
    (folder / name[:4]).mkdir(exist_ok=True)
    shutil.copy(path, folder / name[:4] / name)
  return folder


@pytest.fixture(scope='module')
def gallery(tiny_run, photos, tmp_path_factory):
  folder = tmp_path_factory.mktemp('gallery')
  patterns = ['--identity-pattern=^(?P<identity>[0-9]+)/', '--camera-pattern=_c(?P<camera>[0-9])']
  main(['index', 'build', str(tiny_run[1]), str(photos), f'--out={folder}', *patterns])
  return folder


def scores(text):
  return [(line.split()[0], line.split()[1], line.split()[2]) for line in text.splitlines()[1:]]


def test_a_gallery_ranks_as_its_images(call, tiny_run, photos, gallery):
  query = tiny_run[2].query.paths[0]
  for alpha in (0.5, 0, -1):
    arguments = ['rank', tiny_run[1], query, f'--alpha={alpha}', '--count=4', '--gallery']
    stored, images = call(*arguments, gallery), call(*arguments, photos)
    assert scores(stored) == scores(images) and '(identity 0' in stored and 'identity' not in images


def test_info_says_what_is_in_a_gallery(call, gallery, photos, tiny_run):
  text = call('index', 'info', gallery)
  assert f'built by:         step 7 of {tiny_run[1]}' in text and 'images:           6, resized to 32x16' in text
  assert f'folder:           {photos}, 6 images' in text and 'identities:       ' in text and 'left out' not in text


def test_json_is_one_object(call, tiny_run, gallery):
  query = tiny_run[2].query.paths[0]
  found = json.loads(call('rank', tiny_run[1], query, '--gallery', gallery, '--count=2', '--format=json'))
  (ranking,) = found.pop('queries')
  assert found == {
    **{'run': str(tiny_run[1]), 'step': 7, 'alpha': 0.5, 'search': 'exact', 'reranked': False, 'threshold': None},
    **{'gallery': [str(gallery)], 'num_entries': 6},
  }
  assert ranking['path'] == query and [match['rank'] for match in ranking['matches']] == [1, 2]
  match = ranking['matches'][0]
  assert match.keys() == {'rank', 'score', 'path', 'same_person', 'identity', 'camera', 'num_images'}
  assert match['same_person'] is None and match['identity'] == pathlib.Path(match['path']).name[:4]


def test_csv_has_a_line_for_each_match(call, tiny_run, gallery):
  query = tiny_run[2].query.paths[0]
  rows = list(csv.DictReader(call('rank', tiny_run[1], query, '--gallery', gallery, '--format=csv').splitlines()))
  assert len(rows) == 6 and rows[0]['query'] == query and rows[0]['rank'] == '1' and rows[0]['num_images'] == '1'


def test_files_are_what_is_printed(call, tiny_run, gallery, tmp_path):
  arguments = ['rank', tiny_run[1], tiny_run[2].query.paths[0], '--gallery', gallery]
  for kind in ('csv', 'json'):
    assert not call(*arguments, f'--out={tmp_path / kind}.{kind}')
    assert (tmp_path / f'{kind}.{kind}').read_text() == call(*arguments, f'--format={kind}')
  call(*arguments, f'--out={tmp_path / "r.parquet"}')
  rows = pyarrow.parquet.read_table(tmp_path / 'r.parquet').to_pylist()
  assert [(row['gallery_identity'], row['same_person']) for row in rows] == [
    (pathlib.Path(row['gallery_path']).name[:4], None) for row in rows
  ]


def test_tracks_are_entries_and_queries(call, tiny_run, photos, tmp_path):
  call('index', 'build', tiny_run[1], photos, f'--out={tmp_path / "tracks"}', '--tracks=folder')
  arguments = ['rank', tiny_run[1], photos, '--tracks', '--format=json', '--gallery', tmp_path / 'tracks']
  queries = json.loads(call(*arguments))['queries']
  folders = sorted(photos.iterdir())
  assert [pathlib.Path(query['path']).parent for query in queries] == folders
  for query in queries:
    best = query['matches'][0]
    assert query['num_images'] == best['num_images']
    assert best['score'] == pytest.approx(1, abs=1e-5) and best['path'] == query['path']
    assert best['num_images'] == len(list(pathlib.Path(query['path']).parent.iterdir()))


def test_skipped_files_are_said_once(call, tiny_run, photos, tmp_path, lines):
  shutil.copytree(photos, tmp_path / 'photos')
  (tmp_path / 'photos' / 'notes.txt').write_text('')
  call('index', 'build', tiny_run[1], tmp_path / 'photos', f'--out={tmp_path / "gallery"}')
  assert sum('skipped 1 entries that are not images (notes.txt)' in line for line in lines) == 1


def test_reranking_keeps_the_scores(call, tiny_run, gallery):
  query = tiny_run[2].query.paths[0]
  few = ['rank', tiny_run[1], query, '--gallery', gallery]  # entries, fewer than evaluation.reranking.k1
  assert sorted(scores(call(*few))) == sorted(scores(call(*few, '--rerank')))
  arguments = ['rank', tiny_run[1], query, '--count=40', '--gallery']
  arguments += [*tiny_run[2].gallery.paths, *tiny_run[2].query.paths]
  plain, reranked = scores(call(*arguments)), scores(call(*arguments, '--rerank'))
  assert len(plain) > 20 and sorted(row[1:] for row in plain) == sorted(row[1:] for row in reranked)


def test_mistakes_are_named(error_of, tiny_run, gallery, photos, tmp_path):
  run, query = tiny_run[1], tiny_run[2].query.paths[0]
  assert 'can only be searched alone' in error_of('rank', run, query, '--gallery', gallery, photos)
  older = run / 'checkpoints' / '3'
  assert 'built by other networks (step 7' in error_of('rank', older, query, '--gallery', gallery)
  assert 'built by other networks' in error_of('index', 'build', older, photos, f'--out={gallery}')
  assert 'needs a gallery on disk' in error_of('rank', run, query, '--gallery', photos, '--search=faiss')
  assert 'no gallery' in error_of('index', 'info', tmp_path)
  new = tmp_path / 'new'
  assert 'no group named camera' in error_of('index', 'build', run, photos, f'--out={new}', '--camera-pattern=c')
  Image.new('RGB', (4, 8)).save(tmp_path / 'good.png')
  (tmp_path / 'bad.png').write_bytes(b'')
  assert '--skip-bad' in error_of('index', 'build', run, tmp_path, f'--out={new}')
