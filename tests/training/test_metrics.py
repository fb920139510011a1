import json
import struct
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.training import metrics
from dgnet_jax.training.metrics import MetricWriter


def records(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


def read_events(path):
  """Reads TFRecords: length u64, its checksum u32, content, its checksum u32. TensorBoard's reader needs TensorFlow."""
  data, events = path.read_bytes(), []
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    events.append(metrics.Event.FromString(data[12 : 12 + length]))
    data = data[16 + length :]
  return events


@pytest.fixture
def image():
  return np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)


def test_scalars_and_images_are_written(tmp_path, image):
  writer = MetricWriter(tmp_path)
  writer.write_scalars(3, {'loss/identity': np.float32(0.5), 'rate': 2, 'broken': float('nan')})
  writer.write_images(3, {'pairs': image})
  writer.close()
  assert records(tmp_path) == [{'step': 3, 'loss/identity': 0.5, 'rate': 2.0, 'broken': None}]
  with Image.open(tmp_path / 'images' / 'pairs_0000003.png') as file:
    np.testing.assert_array_equal(np.asarray(file), image)


def test_lines_after_the_resumed_step_are_dropped(tmp_path):
  writer = MetricWriter(tmp_path)
  for step in (10, 20, 30):
    writer.write_scalars(step, {'x': step})
  writer.close()
  with open(tmp_path / 'metrics.jsonl', 'a') as file:
    file.write('{"step": 40, "x')  # killed while writing
  writer = MetricWriter(tmp_path, resume_step=20)
  writer.write_scalars(30, {'x': -1})
  writer.close()
  assert records(tmp_path) == [{'step': 10, 'x': 10.0}, {'step': 20, 'x': 20.0}, {'step': 30, 'x': -1.0}]
  assert sorted(path.name for path in tmp_path.iterdir()) == ['metrics.jsonl', 'tensorboard']


@pytest.mark.parametrize('line', [b'[]', b'3', b'{}', b'{"step": "x"}', b'\xff', b'[' * 9999])
def test_lines_that_are_not_metrics_are_dropped(tmp_path, line):
  (tmp_path / 'metrics.jsonl').write_bytes(b'{"step": 10}\n' + line + b'\n{"step": 20}\n')
  MetricWriter(tmp_path, resume_step=20).close()
  assert [record['step'] for record in records(tmp_path)] == [10, 20]


def test_full_disk_is_blamed_on_the_file(tmp_path):
  writer = MetricWriter(tmp_path)
  writer._lines.close()
  writer._lines = open('/dev/full', 'a')
  with pytest.raises(OSError, match='No space left') as caught:
    writer.write_scalars(1, {'x': 1})
  assert caught.value.filename == '/dev/full'
  with pytest.raises(OSError, match='No space left'):
    writer._lines.close()  # what is left in its buffer; then it is closed
  writer._events.close()


@pytest.mark.skipif(not metrics.HAS_TENSORBOARD, reason='tensorboard is not installed')
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


@pytest.mark.skipif(not metrics.HAS_TENSORBOARD, reason='tensorboard is not installed')
def test_tensorboard_reads_files_in_order_even_if_the_clock_was_set_back(tmp_path, monkeypatch):
  for clock in (2e15, 1e15, 10.0):
    monkeypatch.setattr(metrics.time, 'time_ns', lambda now=clock: int(now * 1000))
    before = set(tmp_path.glob('tensorboard/*'))
    MetricWriter(tmp_path).close()
    (path,) = set(tmp_path.glob('tensorboard/*')) - before
    assert all(path.name > other.name for other in before)


def test_without_tensorboard_metrics_are_still_written(tmp_path, monkeypatch, image, lines):
  monkeypatch.setattr(metrics, 'HAS_TENSORBOARD', False)
  writer = MetricWriter(tmp_path)
  writer.write_scalars(1, {'x': 1})
  writer.write_images(1, {'pairs': image})
  writer.close()
  assert len(lines) == 1 and 'tensorboard is not installed' in lines[0]
  assert sorted(path.name for path in tmp_path.iterdir()) == ['images', 'metrics.jsonl']


def test_only_process_0_writes(tmp_path, monkeypatch, image):
  monkeypatch.setattr(metrics.jax, 'process_index', lambda: 1)
  writer = MetricWriter(tmp_path / 'run')
  writer.write_scalars(1, {'x': 1})
  writer.write_images(1, {'pairs': image})
  writer.close()
  assert not (tmp_path / 'run').exists()


def test_float_image_raises(tmp_path):
  writer = MetricWriter(tmp_path)
  with pytest.raises(ValueError, match='float'):
    writer.write_images(1, {'pairs': np.zeros((4, 6, 3))})
  writer.close()


def test_import_does_not_import_tensorflow():
  code = 'import sys, dgnet_jax.training.metrics; print("tensorflow" in sys.modules)'
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == 'False'
