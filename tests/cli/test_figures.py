"""`dgnet figures` draws the figures of the paper."""

import json

from PIL import Image
import pytest

from dgnet_jax.cli.figures import FIGURES
from dgnet_jax.cli.main import main
from dgnet_jax.reports import figures
from tests.tiny_run import correspondence_config, frozen, save_checkpoint

SHEETS = [name for name in FIGURES if name not in ('curves', 'fetched', 'embeddings')]


@pytest.fixture
def draw(tiny_run):
  def call(figure, out, *arguments):
    main(['figures', figure, f'--workdir={tiny_run[1]}', f'--out={out}', *map(str, arguments)])

  return call


@pytest.fixture
def error_of(tiny_run, capsys):
  def call(figure, out, *arguments):
    with pytest.raises(SystemExit) as caught:
      main(['figures', figure, f'--workdir={tiny_run[1]}', f'--out={out}', *map(str, arguments)])
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
def test_figures_show_the_data_of_the_run(draw, tmp_path, figure):
  draw(figure, tmp_path / 'f.png', '--count=2')
  assert min(size_of(tmp_path / 'f.png')) > 200
  names = ['f.gif', 'f.png'] if figure == 'interpolate' else ['f.png']
  assert sorted(path.name for path in tmp_path.iterdir()) == names


def test_figures_show_named_images(draw, images, tmp_path):
  a, b, c = images
  draw('swap', tmp_path / 'swap.png', '--structures', a, '--appearances', a, b, c)
  height_of_two_rows = size_of(tmp_path / 'swap.png')[1]
  draw('swap', tmp_path / 'swap2.png', '--structures', a, b, '--appearances', a, b, c)
  assert size_of(tmp_path / 'swap2.png')[1] == pytest.approx(1.5 * height_of_two_rows, abs=2)
  draw('pairs', tmp_path / 'pairs.jpg', '--structures', a, b, '--appearances', b, c)
  draw('interpolate', tmp_path / 'interpolation.png', '--structures', a, b, '--appearances', c, '--steps=3')
  with Image.open(tmp_path / 'interpolation.gif') as image:
    assert image.n_frames == 4
  draw('appearances', tmp_path / 'appearances.png', '--structures', a, '--appearances', *images * 4)
  draw('attention', tmp_path / 'attention.png', '--images', *images)
  draw('ranked', tmp_path / 'ranked.png', '--queries', a, '--gallery', *images)
  assert size_of(tmp_path / 'ranked.png')[0] > 4 * 96


def test_split_and_checkpoint_can_be_selected(draw, tiny_run, tmp_path):
  draw('attention', tmp_path / 'f.png', '--split=train', '--count=3')
  checkpoint, out = tiny_run[1] / 'checkpoints' / '3', tmp_path / 'g.png'
  main(['figures', 'attention', f'--workdir={checkpoint}', f'--out={out}', '--count=3'])
  assert (tmp_path / 'f.png').read_bytes() != (tmp_path / 'g.png').read_bytes()


def test_ranked_lists_have_no_junk_and_mark_matches(draw, tmp_path, monkeypatch):
  sheet = {}

  def ranked_sheet(queries, query_labels, ranked, ranked_labels, is_match):
    sheet.update(queries=query_labels, ranked=ranked_labels, is_match=is_match)
    return queries[0]

  monkeypatch.setattr(figures.sheets, 'ranked_sheet', ranked_sheet)
  draw('ranked', tmp_path / 'f.png', '--count=3', '--matches=50')
  assert any(any(row) for row in sheet['is_match'])
  for (identity, camera, _), labels, is_match in zip(*sheet.values(), strict=True):
    assert not [label for label in labels if label[0] == 'junk' or (label[0], label[1]) == (identity, camera)]
    assert is_match == [label[0] == identity for label in labels]
    scores = [float(label[2]) for label in labels]
    assert scores == sorted(scores, reverse=True)


def test_curves_are_drawn_from_the_metrics(tmp_path, capsys):
  (tmp_path / 'metrics.jsonl').write_text(json.dumps({'step': 1, 'loss/total': 1.0}) + '\n')
  main(['figures', 'curves', f'--workdir={tmp_path}', f'--out={tmp_path / "c.png"}'])
  assert size_of(tmp_path / 'c.png')[0] > 500 and str(tmp_path / 'c.png') in capsys.readouterr().err


def test_mistakes_are_reported(error_of, images, tmp_path):
  out = tmp_path / 'f.png'
  assert 'must end in .png' in error_of('swap', tmp_path / 'f.tif')
  assert 'absent.jpg' in error_of('swap', out, '--structures', 'absent.jpg')
  assert "'0' must be a whole number of at least 1" in error_of('swap', out, '--count=0')
  assert 'as many --structures as --appearances' in error_of('pairs', out, '--structures', *images)
  assert 'one --structures and two --appearances' in error_of('interpolate', out, '--structures', *images)
  assert 'one image of --structures' in error_of('appearances', out, '--structures', *images)
  assert 'both --queries and --gallery' in error_of('ranked', out, '--queries', images[0])
  assert 'only fields of data' in error_of('swap', out, '--config.seed=1')
  assert 'must be one of csv' in error_of('swap', out, '--config.data.layout=duke')
  assert 'no such field' in error_of('swap', out, '--config.data.rot=x')
  assert 'metrics.jsonl: no such file' in error_of('curves', out)
  assert not list(tmp_path.iterdir())


def test_fetched_pixels_are_drawn_for_design_correspondence_only(tiny_run, draw, error_of, images, tmp_path):
  workdir = tmp_path / 'run'
  save_checkpoint(frozen(correspondence_config()), workdir, num_identities=4, step=1)
  named = ['--structures', *images[:2], '--appearances', *images[1:]]
  main(['figures', 'fetched', f'--workdir={workdir}', f'--out={tmp_path / "fetched.png"}', *named])
  assert min(size_of(tmp_path / 'fetched.png')) > 200
  assert 'design' in error_of('fetched', tmp_path / 'no.png', *named)
