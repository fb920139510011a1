"""Runs side by side: which rows there are, what they say, and that they fit the terminal."""

import csv
import json

import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.reports.comparison import SETTINGS, SETUP, Row, compare_runs, comparison_text, write_comparison
from tests.reports.run_folders import rankings, write_run


def values(comparison, section):
  return {row.name: row.values for row in comparison.sections[section]}


@pytest.fixture
def two(tmp_path):
  """A run, and another one with other settings, results and code, which was interrupted once."""
  first = write_run(
    tmp_path / 'first',
    starts=[{}],
    results={
      'evaluation': rankings(both=0.8, teacher=0.5)
      | {'multi_query': {'both': {'mAP': 0.7}}, 'images': {'cross': {'all': {'psnr': 20.0, 'ssim': 0.5}}}}
    },
    metrics=[{'step': 10, 'loss/total': 5.0, 'loss/old': 1.0, 'rate/reid': 0.1}, {'step': 20, 'loss/total': 3.0}],
  )
  second = write_run(
    tmp_path / 'second',
    settings={'batch_size': 4, 'optimizer.adam_betas': (0.5, 0.99)},
    starts=[
      {'id': 'a', 'outcome': 'interrupted'},
      {'id': 'b', 'packages': {'jax': '0.11.0'}, 'code': {'version': '0.1.0', 'commit': 'f' * 40, 'dirty': True}},
      {'id': 'c', 'mode': 'evaluate', 'seconds': 3600.0, 'python': '3.12.1'},
    ],
    results={
      'evaluation': rankings(both=0.85, teacher=0.5)
      | {'settings': {'alpha': 0.7}, 'images': {'cross': {'all': {'psnr': 19.5}}}},
      'evaluation/on_dukemtmc_a': rankings(both=0.3) | {'data': 'dukemtmc'},
    },
    metrics=[{'step': 30, 'loss/total': 2.5}],
  )
  return first, second


def test_settings_that_differ(two):
  comparison = compare_runs(two)
  assert values(comparison, SETTINGS) == {'batch_size': (2, 4), 'optimizer.adam_betas': ((0, 0.999), (0.5, 0.99))}
  text = comparison_text(comparison)
  assert any(line.split() == ['optimizer.adam_betas', '0.0,0.999', '0.5,0.99'] for line in text.splitlines())


def test_code_and_versions_that_differ_with_their_changes_between_training_starts(two):
  assert values(compare_runs(two), SETUP) == {
    'dgnet_jax': ('0.1.0 01234567', '0.1.0 01234567 -> 0.1.0 ffffffff+changes'),
    'jax': ('0.10.2', '0.10.2 -> 0.11.0'),
  }


def test_starts_are_always_shown(two):
  (two[1] / 'checkpoints' / '1200').mkdir(parents=True)
  assert values(compare_runs(two), 'starts') == {
    'steps': (None, '1,200'),
    'first start, UTC': ('2026-01-01 00:00',) * 2,
    'starts': ('1 train', '2 train, 1 evaluate'),
    'last training': ('done', 'done'),
    'time of starts that ended': ('1m30s', '1h03m'),
  }


def test_settings_that_changed_when_a_run_was_resumed_are_named(tmp_path):
  starts = [{}, {'changed_fields': {'batch_size': 2, 'seed': 1}}, {'mode': 'evaluate', 'changed_fields': {}}]
  runs = [write_run(tmp_path / 'a', starts=[{}, {}]), write_run(tmp_path / 'b', starts=starts)]
  assert values(compare_runs(runs), 'starts')['settings changed on resuming'] == (None, 'seed')


@pytest.mark.parametrize(
  ('start', 'text'),
  [
    ({'outcome': 'failed', 'error': 'step 3: not finite'}, 'failed: step 3: not finite'),
    ({'outcome': 'interrupted'}, 'interrupted'),
  ],
)
def test_the_end_of_training_is_named(tmp_path, start, text):
  runs = [write_run(tmp_path / 'a', starts=[start]), write_run(tmp_path / 'b', starts=[{}])]
  assert values(compare_runs(runs), 'starts')['last training'] == (text, 'done')


def test_a_start_without_an_end_was_killed_or_is_running(tmp_path):
  run = write_run(tmp_path / 'a', starts=[{}])
  record = json.loads((run / 'run.json').read_text())
  del record['starts'][0]['outcome'], record['starts'][0]['seconds']
  (run / 'run.json').write_text(json.dumps(record))
  found = values(compare_runs([run, run]), 'starts')
  assert (found['last training'][0], found['time of starts that ended'][0]) == ('running, or killed', '0s')


def test_results_have_differences_to_the_first_run(two):
  comparison = compare_runs(two)
  evaluation = values(comparison, 'evaluation')
  assert evaluation['both: rank-1, %'] == (80, 85) and evaluation['both: mAP, %'] == (40, 42.5)
  assert evaluation['multi-query, both: mAP, %'] == (70, None)
  assert evaluation['evaluation.alpha'] == (0.5, 0.7)  # of the evaluation, not of config.json
  assert not any('chance' in name or 'protocol' in name for name in evaluation.keys() - {'protocol'})
  assert values(comparison, 'evaluation on_dukemtmc_a')['both: rank-1, %'] == (None, 30)
  assert values(comparison, 'generated images') == {'cross: PSNR, dB': (20, 19.5), 'cross: SSIM': (0.5, None)}
  assert values(comparison, 'losses at the end') == {'step': (20, 30), 'total': (3, 2.5)}
  lines = [line.split() for line in comparison_text(comparison).splitlines()]
  assert ['both:', 'rank-1,', '%', '80.00', '85.00', '(+5.00)'] in lines
  assert ['cross:', 'SSIM', '0.500', '-'] in lines and ['total', '3.000', '2.500', '(-0.5000)'] in lines
  assert ['both:', 'rank-1,', '%', '-', '30.00'] in lines


def test_equal_evaluation_settings_are_left_out(tmp_path):
  runs = [write_run(tmp_path / name, results={'evaluation': rankings(primary=0.5)}) for name in 'ab']
  names = values(compare_runs(runs), 'evaluation').keys()
  assert 'evaluation.alpha' not in names and 'primary: rank-10, %' in names


def test_runs_of_earlier_versions_compare_by_what_they_have(two, tmp_path):
  old = write_run(tmp_path / 'old', settings={'batch_size': 4})
  (old / 'metrics.jsonl').unlink()
  comparison = compare_runs([two[0], old])
  assert values(comparison, SETTINGS) == {'batch_size': (2, 4)}
  assert values(comparison, SETUP).keys() == {'training data'}  # nothing else is known
  assert values(comparison, 'starts')['starts'] == ('1 train', None)
  bare = write_run(tmp_path / 'bare')
  for name in ('training_data.json', 'metrics.jsonl'):
    (bare / name).unlink()
  assert not any(compare_runs([bare, bare]).sections.values())
  assert 'settings that differ: none' in comparison_text(compare_runs([bare, bare]))


def test_code_that_only_evaluated_a_run_is_not_that_of_its_training(tmp_path):
  starts = [{'mode': 'evaluate', 'packages': {'jax': '0.11.0'}}]
  runs = [write_run(tmp_path / 'a', starts=[{}]), write_run(tmp_path / 'b', starts=starts)]
  assert 'jax' not in values(compare_runs(runs), SETUP)


def test_former_names_of_fields_do_not_differ(tmp_path):
  runs = [write_run(tmp_path / name) for name in 'ab']
  config = json.loads((runs[0] / 'config.json').read_text())
  config['generation']['num_pictures'] = config['generation'].pop('num_images')
  config['from_the_future'] = 1
  (runs[0] / 'config.json').write_text(json.dumps(config))
  assert values(compare_runs(runs), SETTINGS) == {'from_the_future': (1, None)}


@pytest.mark.parametrize('count', [2, 3, 4, 9])
def test_tables_fit_the_terminal_and_show_what_differs(tmp_path, count):
  shared = 'r' * 300
  runs = [
    write_run(
      tmp_path / ('long' * 40) / f'run_{i}',
      settings={'data.root': f'{shared}/set_{i}', 'optimizer.adam_betas': (0.1 * i, 0.9)},
      starts=[{'outcome': 'failed', 'error': 'e' * 300}],
      results={'evaluation': rankings(both=0.1 * i)},
    )
    for i in range(count)
  ]
  text = comparison_text(compare_runs(runs))
  assert max(map(len, text.splitlines())) <= 120
  tables = text.split('\n\n')
  assert len(tables) == (2 if count == 9 else 1)
  for table in tables:
    assert 'run_0' in table.splitlines()[0] and '/set_0' in table
  assert all(text.count(f'{kind}_{i}') == 1 for kind in ('run', 'set') for i in range(1, count))
  assert '...' in text


def test_names_from_files_cannot_control_the_terminal(tmp_path):
  runs = [write_run(tmp_path / name, settings={'data.root': f'{name}\x1b[31m'}) for name in 'ab']
  config = json.loads((runs[0] / 'config.json').read_text())
  (runs[0] / 'config.json').write_text(json.dumps(config | {'\x1b[32m': 1}))
  assert '\x1b' not in comparison_text(compare_runs(runs))


def test_files_have_complete_values(two, tmp_path):
  root = 'r' * 300
  third = write_run(tmp_path / 'third', settings={'data.root': root}, results={'evaluation': rankings(both=0.7)})
  comparison = compare_runs([*two, third])
  write_comparison(comparison, tmp_path / 'out' / 'x.json')
  found = json.loads((tmp_path / 'out' / 'x.json').read_text())
  assert found['runs'] == [*map(str, two), str(third)]
  assert found[SETTINGS]['data.root'] == {'values': ['', '', root]}
  rank_1 = found['evaluation']['both: rank-1, %']
  assert rank_1['values'] == [80, 85, 70] and rank_1['differences'] == pytest.approx([0, 5, -10])
  assert found['generated images']['cross: PSNR, dB'] == {'values': [20, 19.5, None], 'differences': [0, -0.5, None]}
  write_comparison(comparison, tmp_path / 'x.csv')
  with (tmp_path / 'x.csv').open(newline='') as file:
    header, *rows = csv.reader(file)
  assert header == ['section', 'name', *found['runs'], f'{two[1]} - {two[0]}', f'{third} - {two[0]}']
  assert [SETTINGS, 'data.root', '', '', root, '', ''] in rows
  assert ['generated images', 'cross: PSNR, dB', '20.0', '19.5', '', '-0.5', ''] in rows


def test_differences_need_the_first_run():
  assert Row('x', (None, 1.0), '.1f').differences() == [None, None]
  assert Row('x', (None, 1.0), '.1f').texts() == ['-', '1.0']


@pytest.mark.parametrize(
  ('file', 'content', 'words'),
  [
    ('run.json', '{', 'move it away'),
    ('config.json', '{', 'damaged'),
    ('evaluation/results.json', '[]', 'move it away'),
    ('training_data.json', '{', 'delete this file'),
    ('metrics.jsonl', 'nothing', 'no metrics'),
  ],
)
def test_damaged_files_are_named(tmp_path, file, content, words):
  runs = [write_run(tmp_path / name, results={'evaluation': rankings(both=0.5)}) for name in 'ab']
  (runs[1] / file).write_text(content)
  with pytest.raises(UserError, match=words) as caught:
    compare_runs(runs)
  assert str(runs[1] / file) in str(caught.value)


@pytest.mark.parametrize(
  'results',
  [
    {'step': [1], 'data': {'a': 1}, 'single_query': 3, 'images': [], 'settings': 1},
    {'single_query': {'both': {'rank_1': 'x', 'mAP': None}}, 'images': {'cross': {'all': {'psnr': True}}}},
    {'single_query': {'both': {'rank_1': float('nan'), 'mAP': 1e300}}, 'images': {'diversity': {'generated': None}}},
  ],
)
def test_results_of_another_form_are_shown_as_far_as_possible(tmp_path, results):
  runs = [write_run(tmp_path / name, results={'evaluation': results}) for name in 'ab']
  comparison = compare_runs(runs)
  assert not any(row.shown_as for rows in comparison.sections.values() for row in rows)
  assert max(map(len, comparison_text(comparison).splitlines())) <= 120
