"""The commands that use a trained model on any images."""

import csv
import pathlib

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli.main import main


@pytest.fixture
def run(tiny_run, capsys):
  """Runs a command on the tiny run and returns what it printed; takes the arguments after the work folder."""

  def call(command, *arguments):
    main([command, str(tiny_run[1]), *map(str, arguments)])
    return capsys.readouterr().out

  return call


@pytest.fixture
def error_of(tiny_run, capsys):
  """Runs a command that must fail, and returns the message."""

  def call(command, *arguments):
    with pytest.raises(SystemExit) as caught:
      main([command, str(tiny_run[1]), *map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err

  return call


@pytest.fixture
def images(tiny_run):
  return [pathlib.Path(path) for path in tiny_run[2].query.paths[::2][:3]]


def test_embed_writes_paths_and_embeddings(run, images, tmp_path):
  run('embed', *images, '--alpha=1', f'--out={tmp_path / "e.npz"}')
  table = np.load(tmp_path / 'e.npz')
  assert table['path'].tolist() == list(map(str, images)) and table['embedding'].shape == (3, 16)
  assert table['share'].tolist() == [0.5, 0.5]
  np.testing.assert_allclose(np.linalg.norm(table['embedding'], axis=1), 1, rtol=1e-6)


def test_embed_writes_a_folder_of_tables(run, images, tmp_path, error_of):
  parquet = pytest.importorskip('pyarrow.parquet')
  run('embed', *images, f'--out={tmp_path / "parts"}/')
  run('embed', *images, f'--out={tmp_path / "e.npz"}')
  table = parquet.read_table(tmp_path / 'parts' / 'part-00000-of-00001.parquet')
  single = np.load(tmp_path / 'e.npz')
  assert table['path'].to_pylist() == single['path'].tolist()
  np.testing.assert_array_equal(np.float32(table['embedding'].to_pylist()), single['embedding'])
  assert 'divides a folder' in error_of('embed', *images, '--share=0/2', f'--out={tmp_path / "f.npz"}')
  assert "'2/2' must be I/N" in error_of('embed', *images, '--share=2/2', f'--out={tmp_path / "parts"}/')
  assert 'holds other embeddings (shares changed)' in error_of(
    'embed', *images, '--alpha=3', '--out', tmp_path / 'parts'
  )


def test_swap_writes_a_file_or_a_folder(run, images, tmp_path):
  run('swap', f'--structure={images[0]}', f'--appearance={images[1]}', '--out', tmp_path / 'one.jpg')
  with Image.open(tmp_path / 'one.jpg') as file:
    assert file.size == (16, 32)
  run('swap', f'--structure={images[0]}', '--appearance', *images, '--out', tmp_path / 'many')
  names = [f'{i}_{image.stem}_in_{images[0].stem}.png' for i, image in enumerate(images)]
  assert sorted(path.name for path in (tmp_path / 'many').iterdir()) == names


@pytest.mark.parametrize(('out', 'size'), [('a.gif', (16, 32)), ('a.png', (48, 32)), ('a', None)])
def test_interpolate_writes_animation_strip_or_folder(run, images, tmp_path, out, size):
  arguments = ('--structure', images[0], '--appearance', *images[1:], '--steps=3', '--out', tmp_path / out)
  run('interpolate', *arguments)
  if size:
    with Image.open(tmp_path / out) as file:
      assert file.size == size
  else:
    assert sorted(path.name for path in (tmp_path / out).iterdir()) == [f'{i}_step.png' for i in range(3)]


def test_rank_prints_or_writes_a_table(run, images, tmp_path):
  lines = run('rank', images[1], '--gallery', *images, '--count=2').splitlines()
  assert lines[0] == str(images[1]) and len(lines) == 3
  assert lines[1].split() == ['1', '1.0000', str(images[1])]
  assert not run('rank', *images[:2], '--gallery', images[0].parent, '--alpha=0', '--out', tmp_path / 'r.csv')
  with (tmp_path / 'r.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [rows[0]['query'], rows[0]['rank'], rows[0]['path']] == [str(images[0]), '1', str(images[0])]
  assert len(rows) == 20 and {row['query'] for row in rows} == set(map(str, images[:2]))


def test_rank_writes_parquet(run, images, tmp_path):
  parquet = pytest.importorskip('pyarrow.parquet')
  for suffix in ('csv', 'parquet'):
    run('rank', *images[:2], '--gallery', *images, '--count=2', '--out', tmp_path / f'r.{suffix}')
  with (tmp_path / 'r.csv').open() as file:
    lines = list(csv.DictReader(file))
  table = parquet.read_table(tmp_path / 'r.parquet').to_pylist()
  assert [name for name in table[0] if name not in ('query_path', 'rank', 'gallery_path', 'similarity')] == [
    *('query_num_images', 'gallery_identity', 'gallery_camera', 'gallery_num_images', 'same_person')
  ]
  assert [(row['query_path'], row['rank'], row['gallery_path'], f'{row["similarity"]:.6f}') for row in table] == [
    (line['query'], int(line['rank']), line['path'], line['score']) for line in lines
  ]
  assert len(table) == 4


def test_mistakes_are_reported_before_the_model_is_loaded(error_of, images, tmp_path, monkeypatch):
  monkeypatch.setattr('dgnet_jax.api.load', lambda *_, **__: pytest.fail('loaded'))
  image, out = images[0], f'--out={tmp_path / "new.png"}'
  assert 'absent.jpg' in error_of('embed', image, 'absent.jpg', f'--out={tmp_path / "e.npz"}')
  assert 'must end in .npz or .parquet' in error_of('embed', image, out)
  assert '--alpha: -2 ' in error_of('embed', image, out, '--alpha=-2')
  assert '2 images do not fit into one file' in error_of(
    'swap', '--structure', image, image, '--appearance', image, out
  )
  assert 'must end in .gif' in error_of('interpolate', '--structure', image, '--appearance', image, '--out=x.mp4')
  assert 'at least 2' in error_of('interpolate', '--structure', image, '--appearance', image, '--out=x', '--steps=1')
  assert 'must end in .csv or .json or .parquet' in error_of('rank', image, '--gallery', image, '--out=x.txt')
  both = 'rank', image, '--gallery', image, f'--out={tmp_path / "x.csv"}', '--format=json'
  assert 'the suffix of --out selects its format' in error_of(*both)
  assert 'at least 1' in error_of('rank', image, '--gallery', image, '--count=0')
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('command', ['embed', 'swap', 'interpolate', 'rank', 'serve', 'page'])
def test_missing_run_is_reported(command, capsys, tmp_path):
  arguments = {
    'embed': ['a.jpg', '--out=e.npz'],
    'rank': ['a.jpg', '--gallery', 'b.jpg'],
    'serve': [],
    'page': [],
  }.get(command, ['--structure=a.jpg', '--appearance=b.jpg', '--out=c.png'])
  with pytest.raises(SystemExit) as caught:
    main([command, str(tmp_path / 'absent'), *arguments])
  assert caught.value.code == 2 and 'absent: no such folder' in capsys.readouterr().err
