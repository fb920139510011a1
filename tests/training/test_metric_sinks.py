"""TensorBoard and Weights & Biases: what they receive."""

import importlib.machinery
import json
import struct
import sys
import types

import numpy as np
import pytest

from dgnet_jax.config.schema import Config, LogConfig
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training import metric_sinks
from dgnet_jax.training.metric_sinks import COMPARED, WandbRun, configured_sinks
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.utils.extras import require_wandb


def read_events(path):
  """Reads TFRecords: length u64, its checksum u32, content, its checksum u32. TensorBoard's reader needs TensorFlow."""
  data, events = path.read_bytes(), []
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    events.append(metric_sinks.Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  return events


@pytest.fixture
def image():
  return np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


@pytest.mark.skipif(not metric_sinks.HAS_TENSORBOARD, reason='tensorboard is not installed')
def test_tensorboard_drops_steps_that_are_run_again(tmp_path, image):
  for resume_step, steps in ((0, (10, 20)), (10, (20,))):
    writer = MetricWriter(tmp_path, resume_step=resume_step)
    for step in steps:
      writer.write_scalars(step, {'x': step})
    writer.write_images(20, {'pairs': image})
    writer.close()
  files = sorted((tmp_path / 'tensorboard').iterdir())
  events = [read_events(path) for path in files]
  starts = [event.step for file in events for event in file if event.HasField('session_log')]
  assert starts == [1, 11]
  scalars = [
    (event.step, value.tag, value.simple_value)
    for event in events[0]
    for value in event.summary.value
    if value.HasField('simple_value')
  ]
  assert scalars == [(10, 'x', 10.0), (20, 'x', 20.0)]
  encoded = events[1][-1].summary.value[0].image
  assert (encoded.height, encoded.width) == (4, 6)


@pytest.mark.skipif(not metric_sinks.HAS_TENSORBOARD, reason='tensorboard is not installed')
def test_tensorboard_reads_files_in_order_even_if_the_clock_was_set_back(tmp_path, monkeypatch):
  for clock in (2e15, 1e15, 10.0):
    monkeypatch.setattr(metric_sinks.time, 'time_ns', lambda now=clock: int(now * 1000))
    before = set(tmp_path.glob('tensorboard/*'))
    MetricWriter(tmp_path).close()
    (path,) = set(tmp_path.glob('tensorboard/*')) - before
    assert all(path.name > other.name for other in before)


def test_without_tensorboard_metrics_are_still_written(tmp_path, monkeypatch, image, lines):
  monkeypatch.setattr(metric_sinks, 'HAS_TENSORBOARD', False)
  writer = MetricWriter(tmp_path)
  writer.write_scalars(1, {'x': 1})
  writer.write_images(1, {'pairs': image})
  writer.close()
  assert len(lines) == 1 and 'tensorboard is not installed' in lines[0]
  assert sorted(path.name for path in tmp_path.iterdir()) == ['images', 'metrics.jsonl']


@pytest.mark.skipif(not metric_sinks.HAS_TENSORBOARD, reason='tensorboard is not installed')
class TestHparams:
  def settings(self, folder):
    """What the files of a folder say about settings and columns, as TensorBoard's plugin reads it."""
    from tensorboard.plugins.hparams import metadata

    values = [
      value for path in folder.glob('tensorboard/*') for event in read_events(path) for value in event.summary.value
    ]
    tagged = {value.tag: value.metadata.plugin_data.content for value in values}
    started = metadata.parse_session_start_info_plugin_data(tagged[metadata.SESSION_START_INFO_TAG])
    columns = metadata.parse_experiment_plugin_data(tagged[metadata.EXPERIMENT_TAG])
    return started.hparams, [column.name.tag for column in columns.metric_infos]

  def test_all_settings_are_written(self, tmp_path):
    config = Config(batch_size=6, log=LogConfig(hparams=True))
    for sink in configured_sinks(config, tmp_path, 0):
      sink.close()
    hparams, columns = self.settings(tmp_path)
    assert hparams['batch_size'].number_value == 6 and hparams['joint'].bool_value is True
    assert hparams['data.image_size_hw'].string_value == '256, 128'
    assert columns == list(COMPARED) and 'validation/mAP' in columns

  def test_are_off_by_default(self, tmp_path):
    for sink in configured_sinks(Config(), tmp_path, 0):
      sink.close()
    with pytest.raises(KeyError):
      self.settings(tmp_path)


class FakeWandb(types.ModuleType):
  """Weights & Biases without a network: keeps what it receives in `runs`, by id."""

  def __init__(self):
    super().__init__('wandb')
    self.__spec__ = importlib.machinery.ModuleSpec('wandb', None)  # it is found
    self.runs, self.error = {}, ''
    self.errors = types.SimpleNamespace(Error=type('Error', (Exception,), {}))
    self.Image = lambda image: ('image', image.size)

  def init(self, *, id, resume, **about):
    assert resume == 'allow'
    if self.error:
      raise self.errors.Error(self.error)
    self.runs.setdefault(id, []).append(about)
    return types.SimpleNamespace(
      define_metric=lambda name, step_metric: self.runs[id].append((name, step_metric)),
      log=self.runs[id].append,
      finish=lambda exit_code: self.runs[id].append('failed' if exit_code else 'finished'),
    )


class TestWandb:
  @pytest.fixture
  def wandb(self, monkeypatch):
    monkeypatch.setitem(sys.modules, 'wandb', fake := FakeWandb())
    return fake

  def write(self, folder, step, image):
    config = Config(log=LogConfig(wandb_project='people'))
    writer = MetricWriter(folder, step, lambda folder, step: configured_sinks(config, folder, step))
    writer.write_scalars(step + 1, {'loss/total': 0.5})
    writer.write_images(step + 1, {'pairs': image})
    writer.close()

  def test_a_resumed_run_goes_on_with_its_own(self, wandb, tmp_path, image):
    for step in (0, 10):
      self.write(tmp_path, step, image)
    ((run_id, received),) = wandb.runs.items()
    assert json.loads((tmp_path / 'wandb_run.json').read_text()) == {'id': run_id}
    about = received[0]
    assert (about['project'], about['name'], about['dir']) == ('people', tmp_path.name, str(tmp_path))
    assert about['config']['batch_size'] == 8
    once = [('*', 'step'), {'step': 1, 'loss/total': 0.5}, {'step': 1, 'pairs': ('image', (6, 4))}, 'finished']
    again = [once[0], {'step': 11, 'loss/total': 0.5}, {'step': 11, 'pairs': ('image', (6, 4))}, 'finished']
    assert received == [about, *once, about, *again]

  def test_a_run_that_fails_is_not_finished(self, wandb, tmp_path):
    config = Config(log=LogConfig(wandb_project='people'))
    with (
      pytest.raises(Interrupted),
      MetricWriter(tmp_path, 0, lambda folder, step: configured_sinks(config, folder, step)),
    ):
      raise Interrupted('stopped')
    ((_, received),) = wandb.runs.items()
    assert received[-1] == 'failed'

  def test_the_teacher_is_a_run_of_its_own(self, wandb, tmp_path, image):
    (tmp_path / 'teacher').mkdir()
    for folder in (tmp_path, tmp_path / 'teacher'):
      self.write(folder, 0, image)
    assert [run[0]['name'] for run in wandb.runs.values()] == [tmp_path.name, f'{tmp_path.name}/teacher']

  def test_refusal_says_what_to_do(self, wandb, tmp_path, image):
    wandb.error = 'api_key not configured'
    with pytest.raises(UserError, match='log.wandb_project=people: .*api_key not configured.*WANDB_MODE=offline'):
      self.write(tmp_path, 0, image)

  @pytest.mark.parametrize('content', ['', '[]', '{"id": "../x"}', '{"id": 5}'])
  def test_damaged_id(self, wandb, tmp_path, image, content):
    (tmp_path / 'wandb_run.json').write_text(content)
    with pytest.raises(UserError, match='wandb_run.json is damaged .*; remove it'):
      self.write(tmp_path, 0, image)
    assert not wandb.runs

  def test_missing_package(self, monkeypatch, tmp_path):
    require_wandb('')
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    with pytest.raises(UserError, match='log.wandb_project=people: wandb is missing: pip install "wandb'):
      require_wandb('people')
    with pytest.raises(UserError, match='log.wandb_project=people: wandb is missing'):
      WandbRun(tmp_path, 'people', {})
