"""The `dgnet` command, through its own flags."""

import csv
import pathlib
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli.main import main

REPO = pathlib.Path(__file__).resolve().parents[2]
COMMANDS = ('embed', 'swap', 'interpolate', 'rank', 'page')


@pytest.fixture
def run(tiny_run, capsys):
  """Runs a command on the tiny run; the flags that follow its work folder are given. Returns what it printed."""

  def call(command, *arguments):
    main.main([command, str(tiny_run[1]), *map(str, arguments)])
    return capsys.readouterr().out

  return call


@pytest.fixture
def fails(tiny_run, capsys):
  def call(command, *arguments):
    with pytest.raises(SystemExit) as caught:
      main.main([command, str(tiny_run[1]), *map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err

  return call


@pytest.fixture
def images(tiny_run):
  return [pathlib.Path(path) for path in tiny_run[2].query.paths[::2][:3]]


@pytest.mark.parametrize('command', COMMANDS)
def test_help_has_an_example(command, capsys):
  with pytest.raises(SystemExit) as caught:
    main.main([command, '--help'])
  text = capsys.readouterr().out
  assert caught.value.code == 0 and f'dgnet {command} runs/market' in text
  assert max(map(len, text.splitlines())) <= 120


def test_help_and_version_import_nothing_heavy():
  code = (
    'import sys\n'
    'from dgnet_jax import cli\n'
    'try: main.main([sys.argv[1]])\n'
    'except SystemExit as stop: assert stop.code == 0\n'
    'print([m for m in ("jax", "numpy", "PIL") if m in sys.modules])'
  )
  for flag, words in (('--help', 'usage: dgnet'), ('--version', 'dgnet_jax 0.')):
    result = subprocess.run([sys.executable, '-c', code, flag], capture_output=True, text=True, check=True, cwd=REPO)
    assert words in result.stdout and result.stdout.endswith('[]\n')


def test_embed(run, images, tmp_path):
  run('embed', *images, f'--out={tmp_path / "e.npz"}')
  table = np.load(tmp_path / 'e.npz')
  assert table['path'].tolist() == list(map(str, images)) and table['embedding'].shape == (3, 16)


def test_swap(run, images, tmp_path):
  run('swap', f'--structure={images[0]}', f'--appearance={images[1]}', '--out', tmp_path / 'one.jpg')
  with Image.open(tmp_path / 'one.jpg') as file:
    assert file.size == (16, 32)
  run('swap', f'--structure={images[0]}', '--appearance', *images, '--out', tmp_path / 'many')
  names = [f'{i}_{image.stem}_in_{images[0].stem}.png' for i, image in enumerate(images)]
  assert sorted(path.name for path in (tmp_path / 'many').iterdir()) == names


@pytest.mark.parametrize(('out', 'size'), [('a.gif', (16, 32)), ('a.png', (48, 32)), ('a', None)])
def test_interpolate(run, images, tmp_path, out, size):
  arguments = ('--structure', images[0], '--appearance', *images[1:], '--steps=3', '--out', tmp_path / out)
  run('interpolate', *arguments)
  if size:
    with Image.open(tmp_path / out) as file:
      assert file.size == size
  else:
    assert sorted(path.name for path in (tmp_path / out).iterdir()) == [f'{i}_step.png' for i in range(3)]


def test_rank(run, images, tmp_path):
  lines = run('rank', images[1], '--gallery', *images, '--count=2').splitlines()
  assert lines[0] == str(images[1]) and len(lines) == 3
  assert lines[1].split() == ['1', '1.0000', str(images[1])]
  assert not run('rank', *images[:2], '--gallery', images[0].parent, '--alpha=0', '--out', tmp_path / 'r.csv')
  with (tmp_path / 'r.csv').open() as file:
    rows = list(csv.DictReader(file))
  assert [rows[0]['query'], rows[0]['rank'], rows[0]['path']] == [str(images[0]), '1', str(images[0])]
  assert len(rows) == 20 and {row['query'] for row in rows} == set(map(str, images[:2]))


def test_mistakes_are_told_before_work_starts(fails, images, tmp_path, monkeypatch):
  monkeypatch.setattr(main, '_load', lambda options: pytest.fail('loaded'))
  a, out = images[0], f'--out={tmp_path / "new.png"}'
  assert 'absent.jpg' in fails('embed', a, 'absent.jpg', f'--out={tmp_path / "e.npz"}')
  assert 'must end in .npz or .parquet' in fails('embed', a, out)
  assert '2 images do not go into one file' in fails('swap', '--structure', a, a, '--appearance', a, out)
  assert 'must end in .gif' in fails('interpolate', '--structure', a, '--appearance', a, '--out=x.mp4')
  assert 'must end in .csv' in fails('rank', a, '--gallery', a, '--out=x.txt')
  assert not list(tmp_path.iterdir())


def test_no_run(capsys, tmp_path):
  with pytest.raises(SystemExit) as caught:
    main.main(['rank', str(tmp_path / 'absent'), 'a.jpg', '--gallery', 'b.jpg'])
  assert caught.value.code == 2 and 'absent: no such folder' in capsys.readouterr().err
