"""Exported programs give what the run's own networks give, at any batch size, without this package."""

import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli import export
from dgnet_jax.config.loading import save_config
from dgnet_jax.inference.trained import load_trained

SCRIPT = """
import sys
import numpy as np
sys.path.insert(0, sys.argv[1])
import load
embed, swap = load.load()
images = np.load(sys.argv[2])
np.savez(sys.argv[3], one=embed(images[:1]), five=embed(images), swapped=swap(images, images[::-1].copy()))
assert not {'dgnet_jax', 'flax', 'safetensors', 'optax', 'orbax'} & sys.modules.keys()
"""


@pytest.fixture(scope='module')
def exported(tiny_run, tmp_path_factory):
  config, original, _ = tiny_run
  pytest.importorskip('flatbuffers')
  workdir = tmp_path_factory.mktemp('run')
  (workdir / 'checkpoints').symlink_to(original / 'checkpoints')
  save_config(config, workdir / 'config.json')
  folder = workdir / 'exported'
  export.main([str(workdir), f'--out={folder}', '--platforms=cpu'])
  return config, workdir, folder


def test_outputs_are_equal_without_the_package(exported, tmp_path):
  config, workdir, folder = exported
  images = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), np.uint8)
  np.save(tmp_path / 'images.npy', images)
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  arguments = [str(folder), str(tmp_path / 'images.npy'), str(tmp_path / 'made.npz')]
  subprocess.run([sys.executable, '-c', SCRIPT, *arguments], check=True, cwd=tmp_path, env=environment)
  trained = load_trained(config, workdir)
  expected = trained.embed(images)
  with np.load(tmp_path / 'made.npz') as made:
    np.testing.assert_allclose(made['five'], expected, atol=1e-5)
    np.testing.assert_allclose(made['one'], expected[:1], atol=1e-5)
    swapped = np.concatenate(list(trained.swap_images(images, images[::-1].copy())))
    assert np.abs(made['swapped'].astype(int) - swapped).max() <= 1
    assert swapped.std() > 0


def test_the_example_runs(exported, tmp_path):
  folder = exported[2]
  for i in range(2):
    Image.new('RGB', (20, 40), (90 * i, 50, 50)).save(tmp_path / f'{i}.png')
  told = subprocess.run(
    [sys.executable, folder / 'load.py', '0.png', '1.png'], check=True, cwd=tmp_path, capture_output=True, text=True
  )
  assert 'scores of the first image' in told.stdout
  with Image.open(tmp_path / 'swapped_1.png') as image:
    assert image.size == (16, 32)
  assert json.loads((folder / 'model.json').read_text())['image_size_hw'] == [32, 16]


def test_nothing_is_overwritten(exported, capsys):
  _, workdir, folder = exported
  with pytest.raises(SystemExit):
    export.main([str(workdir), f'--out={folder}'])
  assert 'is there already' in capsys.readouterr().err
