"""run.json: what each start of a job ran with and on and how it ended, and that it never stops a job."""

import contextlib
import dataclasses
import errno
import json
import os
import threading

import jax
import pytest

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError, Interrupted, UserError
from dgnet_jax.training import run_record
from dgnet_jax.training.data_record import TrainingData, write_record
from dgnet_jax.training.run_record import read_starts, record_training_data, recorded

CONFIG = dataclasses.replace(Config(), seed=3, batch_size=2)
DATA = TrainingData(('ann', 'ben'), {'1.jpg': (0, ''), '2.jpg': (1, ''), '3.jpg': (1, '')})
ENVIRONMENT = {
  'code': {'version': '0.1.0'},
  'python': '3.11.7',
  'packages': {'jax': '0.10.2'},
  'platform': 'Linux',
  'host': 'a',
}


@pytest.fixture(autouse=True)
def environment(monkeypatch):
  """A fixed environment, which may be changed."""
  values = json.loads(json.dumps(ENVIRONMENT))
  monkeypatch.setattr(run_record, 'describe_environment', lambda: values)
  return values


def start(workdir, mode='train', config=CONFIG, error=None):
  """Runs a job that ends at once, or with an error."""
  with contextlib.suppress(type(error) if error else ()), recorded(workdir, mode, config):
    if error:
      raise error


def text_of(workdir):
  return (workdir / 'run.json').read_text()


def save_steps(workdir, *steps, network='checkpoints'):
  for step in steps:
    (workdir / network / str(step)).mkdir(parents=True)


def test_start_and_end_are_recorded(tmp_path):
  save_steps(tmp_path, 3, network='teacher/checkpoints')
  with recorded(tmp_path, 'train', CONFIG):
    (running,) = read_starts(tmp_path)  # what a killed process leaves
    save_steps(tmp_path, 10, 20)
  (ended,) = read_starts(tmp_path)
  assert running['first_step'] == {'teacher': 3, 'dgnet': 0} and not {'ended', 'outcome', 'last_step'} & running.keys()
  assert ended == running | {name: ended[name] for name in ('ended', 'seconds')} | {
    'outcome': 'done',
    'last_step': {'teacher': 3, 'dgnet': 20},
  }
  assert (ended['mode'], ended['seed'], ended['changed_fields']) == ('train', 3, {'batch_size': 2, 'seed': 3})
  assert ended.items() >= ENVIRONMENT.items()
  assert ended['devices'] == {'backend': 'cpu', 'kind': 'cpu', 'count': 8, 'processes': 1}
  assert ended['started'].endswith('+00:00') and 'error' not in ended


@pytest.mark.parametrize(
  ('error', 'outcome', 'words'),
  [
    (Interrupted('stopped at step 3'), 'interrupted', None),
    (KeyboardInterrupt(), 'interrupted', None),
    (UserError('step 3: loss not finite'), 'failed', 'step 3: loss not finite'),
    (ConfigError(['a: wrong', 'b: \x1b[31m']), 'failed', '2 problems in the configuration: a: wrong b: \\x1b[31m'),
    (ZeroDivisionError('a defect'), 'failed', 'ZeroDivisionError: a defect'),
    (OSError(errno.ENOSPC, 'full', '/data'), 'failed', '/data: full; free some space, and run the same command again'),
    (UserError('x' * 10**6), 'failed', f'{"x" * 300}... (1000000 characters)'),
  ],
)
def test_other_endings_are_recorded_and_raised(tmp_path, error, outcome, words):
  with pytest.raises(type(error)) as caught, recorded(tmp_path, 'train', CONFIG):
    raise error
  assert caught.value is error
  (ended,) = read_starts(tmp_path)
  assert (ended['outcome'], ended.get('error')) == (outcome, words)


def test_every_start_is_kept_in_order(tmp_path, environment):
  start(tmp_path, error=Interrupted('stopped'))
  environment['packages']['jax'] = '0.11.0'
  start(tmp_path)
  start(tmp_path, 'evaluate')
  starts = read_starts(tmp_path)
  assert [(row['mode'], row['outcome'], row['packages']['jax']) for row in starts] == [
    ('train', 'interrupted', '0.10.2'),
    ('train', 'done', '0.11.0'),
    ('evaluate', 'done', '0.11.0'),
  ]
  assert [row['last_step'].keys() for row in starts[1:]] == [{'teacher', 'dgnet'}, {'dgnet'}]


def test_a_teacher_of_another_run_has_no_steps_here(tmp_path):
  config = dataclasses.replace(CONFIG, teacher=dataclasses.replace(CONFIG.teacher, checkpoint='other/teacher'))
  start(tmp_path, config=config)
  assert read_starts(tmp_path)[0]['first_step'] == {'dgnet': 0}


def test_training_data_are_recorded_as_soon_as_they_are_known(tmp_path):
  expected = {'fingerprint': DATA.fingerprint, 'num_images': 3, 'num_identities': 2}
  with recorded(tmp_path, 'train', CONFIG):
    record_training_data(DATA, tmp_path)
    assert read_starts(tmp_path)[0]['data'] == expected
  assert read_starts(tmp_path)[0]['data'] == expected
  write_record(DATA, tmp_path)
  start(tmp_path, 'evaluate')
  assert read_starts(tmp_path)[1]['data'] == expected
  (tmp_path / 'training_data.json').write_text('{')
  start(tmp_path, 'evaluate')
  assert 'data' not in read_starts(tmp_path)[2]


def test_training_data_of_a_job_that_is_not_recorded_are_ignored(tmp_path):
  record_training_data(DATA, tmp_path)
  assert not list(tmp_path.iterdir())


def test_jobs_that_run_at_once_lose_nothing(tmp_path):
  inside, leave = threading.Barrier(9), threading.Event()

  def job():
    with recorded(tmp_path, 'evaluate', CONFIG):
      inside.wait(60)
      leave.wait(60)

  threads = [threading.Thread(target=job) for _ in range(8)]
  for thread in threads:
    thread.start()
  inside.wait(60)
  assert ['outcome' in row for row in read_starts(tmp_path)] == [False] * 8
  leave.set()
  for thread in threads:
    thread.join()
  assert [row['outcome'] for row in read_starts(tmp_path)] == ['done'] * 8
  assert [path.name for path in tmp_path.iterdir()] == ['run.json']


def test_a_run_that_is_resumed_often_stays_small(tmp_path):
  for _ in range(100):
    start(tmp_path, error=UserError('x' * 1000))
  values = json.loads(text_of(tmp_path))
  assert len(values['starts']) == 100 and len(values['setups']) == 1
  assert len(text_of(tmp_path)) < 100 * 1000


def test_a_full_record_is_kept_beside_the_next(tmp_path, monkeypatch):
  monkeypatch.setattr(run_record, 'FULL_BYTES', 5000)
  for _ in range(40):
    start(tmp_path)
  kept = sorted(tmp_path.glob('run*.json'), key=lambda path: path.stat().st_mtime_ns)
  assert len(kept) > 2 and kept[-1].name == 'run.json' and kept[0].name == 'run_earlier_1.json'
  assert max(path.stat().st_size for path in kept) < 6500
  starts = [row for path in kept for row in json.loads(path.read_text())['starts']]
  assert len({row['id'] for row in starts}) == len(starts) == 40


def test_long_values_of_fields_are_shortened(tmp_path):
  data = dataclasses.replace(CONFIG.data, root='r' * 10**5)
  reid = dataclasses.replace(CONFIG.reid, stage_sizes=(1,) * 10**5)
  start(tmp_path, config=dataclasses.replace(CONFIG, data=data, reid=reid))
  fields = read_starts(tmp_path)[0]['changed_fields']
  assert fields['data.root'] == f'{"r" * 300}... (100000 characters)' and len(text_of(tmp_path)) < 5000
  start(tmp_path, config=dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, image_size_hw=(8, 4))))
  assert read_starts(tmp_path)[1]['changed_fields']['data.image_size_hw'] == [8, 4]


@pytest.mark.parametrize(
  'content',
  [
    *(b'', b'{', b'\xff', b'[]', b'{"starts": []}', b'{"starts": 1, "setups": []}', b' ' * (2**20 + 1)),
    *(b'{"starts": [{"id": "a", "mode": "train", "setup": 0}], "setups": []}', b'[' * 10**5),
    *(b'{"starts": [{"id": 1, "mode": "train", "setup": 0}], "setups": [{}]}',),
    *(b'{"starts": [{"id": "a", "mode": "train", "setup": 0}], "setups": [1]}', None),
  ],
)
def test_a_damaged_record_is_set_aside_and_the_job_runs(tmp_path, lines, content):
  path = tmp_path / 'run.json'
  path.mkdir() if content is None else path.write_bytes(content)
  with pytest.raises(UserError, match=r'run\.json: damaged \(.*; move it away to go on without it'):
    read_starts(tmp_path)
  start(tmp_path)
  assert [row['outcome'] for row in read_starts(tmp_path)] == ['done']
  kept = tmp_path / 'run_earlier_1.json'
  assert kept.is_dir() if content is None else kept.read_bytes() == content
  (warning,) = [line for line in lines if 'damaged' in line]
  assert 'kept as run_earlier_1.json, and a new record is started' in warning


def test_a_start_survives_that_the_record_is_set_aside_meanwhile(tmp_path):
  with recorded(tmp_path, 'train', CONFIG):
    (tmp_path / 'run.json').write_text('damaged')
  (ended,) = read_starts(tmp_path)
  assert ended['outcome'] == 'done' and ended['packages'] == ENVIRONMENT['packages']


def test_a_record_that_cannot_be_written_does_not_stop_the_job(tmp_path, monkeypatch, lines):
  start(tmp_path)
  before = text_of(tmp_path)

  def refuse(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

  monkeypatch.setattr(run_record, 'write_json', refuse)
  with recorded(tmp_path, 'train', CONFIG):
    record_training_data(DATA, tmp_path)
  assert text_of(tmp_path) == before
  assert sum('run.json: cannot be written (No space left on device)' in line for line in lines) == 3


def test_the_clock_may_be_set_meanwhile(tmp_path, monkeypatch):
  times = iter(['2026-01-01T00:00:00+00:00', '1970-01-01T00:00:00+00:00'])
  monkeypatch.setattr(run_record, '_now', lambda: next(times))
  start(tmp_path)
  (ended,) = read_starts(tmp_path)
  assert ended['ended'] < ended['started'] and 0 <= ended['seconds'] < 60


def test_other_processes_write_nothing(tmp_path, monkeypatch):
  monkeypatch.setattr(jax, 'process_index', lambda: 1)
  with recorded(tmp_path, 'train', CONFIG):
    record_training_data(DATA, tmp_path)
  assert not list(tmp_path.iterdir())


def test_runs_of_earlier_versions_have_no_record(tmp_path):
  assert read_starts(tmp_path) == []
