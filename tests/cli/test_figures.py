"""The tool that draws the paper's figures, through its command line."""

import json
import pathlib
import subprocess
import sys

from PIL import Image
import pytest

from dgnet_jax.cli.figures import FIGURES, main

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
SHEETS = [name for name in FIGURES if name != 'curves']


@pytest.fixture
def run(tiny_run):
  def call(figure, out, *arguments):
    main([figure, f'--workdir={tiny_run[1]}', f'--out={out}', *map(str, arguments)])

  return call


@pytest.fixture
def fails(tiny_run, capsys):
  def call(figure, out, *arguments):
    with pytest.raises(SystemExit) as caught:
      main([figure, f'--workdir={tiny_run[1]}', f'--out={out}', *map(str, arguments)])
    assert caught.value.code == 2
    return capsys.readouterr().err

  return call


@pytest.fixture
def images(tiny_run):
  return list(tiny_run[2].query.paths[::2][:3])


def size_of(path):
  with Image.open(path) as image:
    return image.size


@pytest.mark.parametrize('figure', SHEETS)
def test_figures_of_the_runs_own_data(run, tmp_path, figure):
  run(figure, tmp_path / 'f.png', '--count=2')
  assert min(size_of(tmp_path / 'f.png')) > 200
  names = ['f.gif', 'f.png'] if figure == 'interpolate' else ['f.png']
  assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_figures_of_named_images(run, images, tmp_path):
  a, b, c = images
  run('swap', tmp_path / 'swap.png', '--structures', a, '--appearances', a, b, c)
  height_of_two_rows = size_of(tmp_path / 'swap.png')[1]
  run('swap', tmp_path / 'swap2.png', '--structures', a, b, '--appearances', a, b, c)
  assert size_of(tmp_path / 'swap2.png')[1] == pytest.approx(1.5 * height_of_two_rows, abs=2)
  run('pairs', tmp_path / 'pairs.jpg', '--structures', a, b, '--appearances', b, c)
  run('interpolate', tmp_path / 'way.png', '--structures', a, b, '--appearances', c, '--steps=3')
  with Image.open(tmp_path / 'way.gif') as image:
    assert image.n_frames == 4
  run('appearances', tmp_path / 'wardrobe.png', '--structures', a, '--appearances', *images * 4)
  run('attention', tmp_path / 'attention.png', '--images', *images)
  run('ranked', tmp_path / 'ranked.png', '--queries', a, '--gallery', *images)
  assert size_of(tmp_path / 'ranked.png')[0] > 4 * 96


def test_another_split_and_a_checkpoint(run, tiny_run, tmp_path):
  run('attention', tmp_path / 'f.png', '--split=train', '--count=3')
  main(['attention', f'--workdir={tiny_run[1] / "checkpoints" / "3"}', f'--out={tmp_path / "g.png"}', '--count=3'])
  assert (tmp_path / 'f.png').read_bytes() != (tmp_path / 'g.png').read_bytes()


def test_ranked_lists_follow_the_protocol(run, tiny_run, tmp_path, monkeypatch):
  from dgnet_jax.plots import figures, sheets

  seen = {}

  def ranked_sheet(queries, query_labels, matches, match_labels, right):
    seen.update(queries=query_labels, matches=match_labels, right=right)
    return queries[0]

  monkeypatch.setattr(figures.sheets, 'ranked_sheet', ranked_sheet)
  assert figures.sheets is sheets
  run('ranked', tmp_path / 'f.png', '--count=3', '--matches=50')
  assert any(any(right) for right in seen['right'])
  for (identity, camera, _), matches, right in zip(seen['queries'], seen['matches'], seen['right'], strict=True):
    assert not [m for m in matches if m[0] == 'junk' or (m[0], m[1]) == (identity, camera)]
    assert right == [match[0] == identity for match in matches]
    scores = [float(match[2]) for match in matches]
    assert scores == sorted(scores, reverse=True)


def test_curves(tmp_path, capsys):
  (tmp_path / 'metrics.jsonl').write_text(json.dumps({'step': 1, 'loss/total': 1.0}) + '\n')
  main(['curves', f'--workdir={tmp_path}', f'--out={tmp_path / "c.png"}'])
  assert size_of(tmp_path / 'c.png')[0] > 500 and str(tmp_path / 'c.png') in capsys.readouterr().out


def test_mistakes_are_told(fails, images, tmp_path):
  out = tmp_path / 'f.png'
  assert 'must end in .png' in fails('swap', tmp_path / 'f.tif')
  assert 'absent.jpg' in fails('swap', out, '--structures', 'absent.jpg')
  assert '--count=0 must be at least 1' in fails('swap', out, '--count=0')
  assert 'as many --structures as --appearances' in fails('pairs', out, '--structures', *images)
  assert 'two --appearances and one' in fails('interpolate', out, '--structures', *images)
  assert 'one image of --structures' in fails('appearances', out, '--structures', *images)
  assert 'both --queries and --gallery' in fails('ranked', out, '--queries', images[0])
  assert 'only fields of data' in fails('swap', out, '--config.seed=1')
  assert 'none of csv' in fails('swap', out, '--config.data.layout=duke')
  assert 'no such field' in fails('swap', out, '--config.data.rot=x')
  assert 'metrics.jsonl: no such file' in fails('curves', out)
  assert not list(tmp_path.iterdir())


def test_help_imports_nothing_heavy():
  code = (
    'import sys\n'
    'from tools import figures\n'
    'try: figures.main(["--help"])\n'
    'except SystemExit as stop: assert stop.code == 0\n'
    'print([m for m in ("jax", "numpy", "PIL", "matplotlib") if m in sys.modules])'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd=REPO)
  assert 'tools.figures swap --workdir=runs/market' in result.stdout and result.stdout.endswith('[]\n')
