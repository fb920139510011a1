"""`dgnet report`: one HTML file about a run."""

import json
import re
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.reports import inlined_images
from dgnet_jax.reports.inlined_images import InlinedImages
from dgnet_jax.reports.run_report import write_report
from dgnet_jax.training.data_record import TrainingData, write_record
from tests.reports.page_parser import PageParser
from tests.reports.run_folders import CALIBRATION, FIGURES, rankings, write_run

EVIL = '<script>alert(1)</script>"><img src=x onerror=alert(1)>'
IMAGES = {
  'cross': {'all': {'count': 512, 'psnr': 20.123, 'pattern_fidelity': 0.5}, 'plain': {'count': 90, 'psnr': 21.0}},
  'diversity': {'generated': 0.25, 'real': 0.125},
}


def write_picture(path, size_wh=(40, 30), seed=0):
  path.parent.mkdir(parents=True, exist_ok=True)
  noise = np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
  Image.fromarray(noise).save(path)


def write_figures(folder, figures=FIGURES):
  for name in ('embeddings', 'cameras', 'scores', 'failures'):
    write_picture(folder / f'{name}.png')
  (folder / 'figures.json').write_text(json.dumps(figures))


@pytest.fixture
def run(tmp_path):
  """A run with everything that a report shows."""
  results = rankings(both=0.8, teacher=0.5) | {
    'images': IMAGES,
    'overlaps': ['two people are one'],
    'reranked': {'both': {'mAP': 0.75}},
    'newer': {'nested': {'field': 3}},
  }
  run = write_run(
    tmp_path / 'run',
    settings={'seed': 7},
    starts=[{}, {'id': 'b', 'mode': 'evaluate', 'seconds': 60.0, 'outcome': 'failed', 'error': 'the disk is full'}],
    results={'evaluation': results, 'evaluation/on_duke_a': rankings(both=0.3) | {'data': 'dukemtmc'}},
    metrics=[{'step': 10, 'loss/total': 5.0, 'rate/reid': 0.1}, {'step': 20, 'loss/total': 3.0, 'rate/reid': 0.1}],
  )
  for name in ('ranked', 'swaps', 'ground_truth', 'roc', 'alphas'):
    write_picture(run / 'evaluation' / f'{name}.png')
  for step in (10, 20):
    write_picture(run / 'images' / f'pairs_{step:07d}.png')
    for number in range(5):
      write_picture(run / 'generated' / f'step_{step:07d}' / f'sheet_{number:03d}.png')
  write_figures(run / 'figures')
  (run / 'calibration.json').write_text(json.dumps(CALIBRATION))
  return run


def parsed(run, out=None):
  out = out or run.parent / 'out.html'
  write_report(run, out)
  return PageParser(out.read_text(encoding='utf-8'))


def table_rows(page_text):
  """Cells of every row of the tables."""
  rows = page_text.split('<tr>')[1:]
  return [PageParser(f'<table><tr>{row.split("</tr>")[0]}</tr></table>').texts for row in rows]


def test_report_has_everything(run):
  page = parsed(run)
  rows = table_rows((run.parent / 'out.html').read_text())
  assert ['seed', '7', '0'] in [[''.join(row[:-2]), *row[-2:]] for row in rows if len(row) >= 3]
  assert ['both', '80.00', '40.00', '90.00', '100.00'] in rows and ['both', '30.00', '15.00', '90.00', '100.00'] in rows
  assert ['both', '75.00'] in rows and ['1', 'two people are one'] in rows
  assert ["cross image: another person's clothes", '512', '20.12', '0.500'] in rows
  assert ["cross image: another person's clothes, plain clothes", '90', '21.00', '\u2013'] in rows
  assert ['SSIM between two images of a person: cross images', '0.25'] in rows
  assert ['1', '0.625', '0.6 to 0.65', '87.50', '80.00 to 90.00'] in rows
  assert ['c1', '3', '1'] in rows and ['c2', '0', '4'] in rows
  assert ['c1', 'c2', '7', '37.5', '25'] in rows and ['1', '0.625', '87.5'] in rows
  assert ['2026-01-01 00:00', 'evaluate', '1m00s', 'failed', 'the disk is full'] in rows
  assert any(row[-1] == '3' and ''.join(row[:-1]) == 'newer.nested.field' for row in rows)
  assert 'At step 20 2 of 6 queries do not find a match first' in page.text
  assert '2 at step 20' in page.text and '2 more sheets are in' in page.text
  assert '1 x H100' not in page.text and '8 x H100' in page.text
  # 5 of the evaluation, the curves, 4 figures, 3 sheets and the last grid.
  images = page.all('img')
  assert len(images) == 14
  names = {div['aria-label'] for div in page.all('div') if 'aria-label' in div}
  assert {'images/pairs_0000020.png', 'generated/step_0000020/sheet_002.png', 'figures/failures.png'} <= names
  assert not {'images/pairs_0000010.png', 'generated/step_0000010/sheet_000.png'} & names


def test_page_is_well_formed_and_loads_nothing(run):
  page = parsed(run)
  assert all(image['alt'] and image['src'].startswith('data:image/') for image in page.all('img'))
  for tag, attributes in page.elements:
    for name in ('src', 'href'):
      assert attributes.get(name, '#').startswith(('#', 'data:image/')), (tag, attributes)
  assert 'http' not in ''.join(
    value for tag, a in page.elements if tag != 'meta' for value in a.values() if value[:5] != 'data:'
  )
  targets = {part['id'] for part in page.all('section')}
  assert {link['href'][1:] for link in page.all('a')} == targets and len(targets) == 10


def test_texts_of_files_are_never_markup(tmp_path):
  run = write_run(
    tmp_path / '<img src=x onerror=alert(1)>',
    settings={'data.root': EVIL},
    starts=[{'host': EVIL, 'error': EVIL, 'outcome': EVIL, 'mode': EVIL, 'platform': EVIL}],
    results={
      'evaluation': rankings(both=0.5)
      | {
        'data': EVIL,
        'overlaps': [EVIL],
        EVIL: EVIL,
        'images': {EVIL: {EVIL: {EVIL: 1}}},
        'reranked': {EVIL: {EVIL: 1}},
      }
    },
    metrics=[{'step': 10, f'loss/{EVIL}': 5.0}],
  )
  write_record(TrainingData((EVIL,), {EVIL: (0, '')}), run)
  write_picture(run / 'generated' / 'step_0000020' / f'sheet_{EVIL.replace("/", "")}.png')
  write_figures(run / 'figures', {**FIGURES, 'cameras': {EVIL: {EVIL: 1}}, 'step': EVIL, 'num_failing_queries': EVIL})
  page = parsed(run)  # which refuses unknown tags
  assert all(image['src'].startswith('data:image/') for image in page.all('img'))
  assert not [name for _, attributes in page.elements for name in attributes if name.startswith('on')]
  assert EVIL in page.text


def test_what_is_missing_is_said(tmp_path):
  run = write_run(tmp_path / 'run')
  (run / 'training_data.json').unlink()
  page = parsed(run)
  for words in (
    *('Nothing was trained yet', 'The training data were not recorded', 'There is no record of starts'),
    *('Not evaluated', 'There are no curves', 'Not drawn', 'No sheets', 'no images of training'),
  ):
    assert words in page.text
  assert not page.all('img')


def test_every_evaluation_is_shown_and_the_best_named(tmp_path):
  scores = {
    **{'': 0.8, 'step_0000010': 0.9, 'step_0000015': 0.5, 'validation': 0.7, 'validation/step_0000010': 0.75},
    **{'on_duke_a': 0.3, 'on_duke_a/step_0000010': 0.35, 'earlier/step_0000005_release_abc': 0.1},
  }
  run = write_run(
    tmp_path / 'run',
    results={
      f'evaluation/{name}'.rstrip('/'): rankings(both=score)
      | {'step': 10 if '10' in name else 15 if '15' in name else 20}
      for name, score in scores.items()
    },
    metrics=[{'step': step, 'loss/total': 1, 'validation/mAP': 0.5 - step / 100} for step in (5, 10, 20)],
  )
  for step in (10, 15, 20):  # the best of step 5 is gone
    (run / 'checkpoints' / str(step)).mkdir(parents=True)
  write_picture(run / 'evaluation' / 'step_0000010' / 'ranked.png')
  page, text = parsed(run), (tmp_path / 'out.html').read_text()
  best = 'Step 10 (best during training)'
  titles = ['Step 20', best, 'Step 15', f'{best} on held-out identities', f'{best} on other data: on_duke_a']
  titles += ['Step 20 on held-out identities', 'Step 20 on other data: on_duke_a']
  assert re.findall('<h3>(Step[^<]*)', text) == titles
  shown = [row[1] for row in table_rows(text) if row[0] == 'both']
  assert shown == ['80.00', '90.00', '50.00', '75.00', '35.00', '70.00', '30.00']
  assert 'rank-1, both (best step)' in page.text and '90.00%' in page.text and '80.00%' in page.text
  assert [div['aria-label'] for div in page.all('div') if 'ranked' in div.get('aria-label', '')] == [
    'evaluation/step_0000010/ranked.png'
  ]


def test_a_teacher_alone_is_shown_and_is_not_the_best(tmp_path):
  run = write_run(
    tmp_path / 'run',
    results={'evaluation/teacher': rankings(both=0.6) | {'step': 20}},
    metrics=[{'step': 20, 'loss/total': 1, 'validation/mAP': 0.5}],
  )
  (run / 'checkpoints' / '20').mkdir(parents=True)
  page = parsed(run)
  assert 'Teacher alone, step 20' in page.text and 'best during training' not in page.text
  assert 'Not evaluated' not in page.text


def test_evaluations_are_bounded(tmp_path):
  names = [f'evaluation/step_{step:07d}' for step in range(1, 12)]
  run = write_run(tmp_path / 'run', results={name: rankings(both=0.5) for name in names})
  assert 'Left out of evaluation/: step_0000009, step_0000010, step_0000011' in parsed(run).text


@pytest.mark.parametrize('text', ['{', '[]', '{"thresholds": 3}', '{"thresholds": [1, {"score_interval": [1]}]}'])
def test_damaged_calibration_does_no_harm(run, text):
  (run / 'calibration.json').write_text(text)
  assert ('calibration.json cannot be read' in parsed(run).text) != ('[1' in text)


def test_damaged_images_are_named(run):
  (run / 'evaluation' / 'ranked.png').write_bytes(b'nonsense')
  (run / 'figures' / 'scores.png').unlink()
  page = parsed(run)
  assert 'evaluation/ranked.png is not shown' in page.text and 'figures/scores.png is not there' in page.text
  assert len(page.all('img')) == 12


@pytest.mark.parametrize('text', ['{', '[]', '{"map": 3, "cameras": [1], "worst_camera_pairs": {"a": 1}, "step": []}'])
def test_figures_of_another_form_do_no_harm(run, text):
  (run / 'figures' / 'figures.json').write_text(text)
  is_read = 'map' in text
  assert ('figures/figures.json cannot be read' in parsed(run).text) != is_read


def test_figures_of_other_data_are_named(run):
  (run / 'figures' / 'on_duke_a').mkdir()
  (run / 'figures' / 'on_duke_a' / 'figures.json').write_text('{}')
  assert 'Those of other data are in figures/on_duke_a.' in parsed(run).text


def test_size_is_bounded(run, monkeypatch, lines):
  for number in range(3):
    write_picture(run / 'generated' / 'step_0000020' / f'sheet_{number:03d}.png', (600, 600), seed=number)
  monkeypatch.setattr(inlined_images, 'MAX_TOTAL_BYTES', 600_000)
  out = run / 'report.html'
  main(['report', str(run)])
  page = PageParser(out.read_text())
  assert out.stat().st_size < 4 / 3 * 600_000 + 100_000
  assert 'Left out' in page.text and 'generated/step_0000020/sheet_002.png: 0.' in page.text
  assert any(line.startswith('no room for generated/step_0000020/sheet') for line in lines)


def test_large_images_shrink(tmp_path):
  write_picture(tmp_path / 'a.png', (5_000, 50))
  html = InlinedImages().figure(tmp_path / 'a.png', 'a.png', alt='a', caption='b').text
  assert 'width="1800" height="18"' in html and 'class="wide"' in html and 'image/jpeg' in html


def test_reports_of_the_same_files_are_equal_and_atomic(run, tmp_path):
  first, again = tmp_path / 'a.html', tmp_path / 'b.html'
  write_report(run, first)
  write_report(run, again)
  assert first.read_bytes() == again.read_bytes()
  (run / 'config.json').write_text('{')
  with pytest.raises(SystemExit):
    main(['report', str(run), f'--out={first}'])
  assert first.read_bytes() == again.read_bytes()


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['nowhere'], 'nowhere: no such folder'),
    (['nowhere', '--out=x.html'], 'nowhere: no such folder'),
    (['.'], 'there is no config.json in it'),
    (['.', '--out=x.txt'], 'the name must end in .html'),
  ],
)
def test_mistakes_are_one_line(tmp_path, monkeypatch, capsys, arguments, words):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(SystemExit) as caught:
    main(['report', *arguments])
  errors = capsys.readouterr().err
  assert caught.value.code == 2 and words in errors and len(errors.splitlines()) == 1
  assert not list(tmp_path.iterdir())


def test_neither_jax_nor_tensorflow_is_imported(run):
  code = (
    'import sys\n'
    'from dgnet_jax.cli.main import main\n'
    'main(["report", *sys.argv[1:]])\n'
    'assert not {"jax", "tensorflow"} & sys.modules.keys()'
  )
  subprocess.run([sys.executable, '-c', code, run], capture_output=True, check=True)
