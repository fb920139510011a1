import io
import json
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.training import metrics
from dgnet_jax.training.metrics import MetricWriter


def records(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


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
  writer._sinks[0].close()


def test_only_process_0_writes(tmp_path, monkeypatch, image):
  monkeypatch.setattr(metrics.jax, 'process_index', lambda: 1)
  writer = MetricWriter(tmp_path / 'run', open_sinks=lambda *_: pytest.fail('opened'))
  writer.write_scalars(1, {'x': 1})
  writer.write_images(1, {'pairs': image})
  writer.close()
  assert not (tmp_path / 'run').exists()


def test_sinks_receive_what_is_written(tmp_path, image):
  received = []

  class Sink:
    def write_scalars(self, step, numbers):
      received.append((step, numbers))

    def write_image(self, step, name, size_hw, png):
      received.append((step, name, size_hw, np.asarray(Image.open(io.BytesIO(png))).tolist()))

    def close(self, *, failed):
      received.append('failed' if failed else 'closed')

  writer = MetricWriter(tmp_path, 20, lambda folder, step: received.append((folder, step)) or [Sink()])
  writer.write_scalars(30, {'x': np.float32(0.5)})
  writer.write_images(30, {'pairs': image})
  writer.close()
  assert received == [(tmp_path, 20), (30, {'x': 0.5}), (30, 'pairs', (4, 6), image.tolist()), 'closed']


def test_float_image_raises(tmp_path):
  writer = MetricWriter(tmp_path)
  with pytest.raises(ValueError, match='float'):
    writer.write_images(1, {'pairs': np.zeros((4, 6, 3))})
  writer.close()


def test_import_does_not_import_tensorflow():
  code = 'import sys, dgnet_jax.training.metrics; print("tensorflow" in sys.modules)'
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == 'False'
