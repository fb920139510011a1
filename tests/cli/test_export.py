"""Exported programs give the results of the run at any batch size, without this package."""

import json
import os
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.api import load
from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import save_config
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.inference.scoring import piece_shares, scored
from tests.tiny_run import frozen, save_checkpoint, tiny_config

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
  main(['export', str(workdir), f'--out={folder}', '--platforms=cpu'])
  return config, workdir, folder


@pytest.mark.long
def test_outputs_equal_those_of_the_run_without_the_package(exported, tmp_path):
  config, workdir, folder = exported
  images = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), np.uint8)
  np.save(tmp_path / 'images.npy', images)
  environment = {k: v for k, v in os.environ.items() if k != 'PYTHONPATH'} | {'JAX_PLATFORMS': 'cpu', 'XLA_FLAGS': ''}
  arguments = [str(folder), str(tmp_path / 'images.npy'), str(tmp_path / 'outputs.npz')]
  subprocess.run([sys.executable, '-c', SCRIPT, *arguments], check=True, cwd=tmp_path, env=environment)
  predictor = load_predictor(config, workdir)
  expected = scored(predictor.embed(images), piece_shares(config))
  with np.load(tmp_path / 'outputs.npz') as outputs:
    np.testing.assert_allclose(outputs['five'], expected, atol=1e-5)
    np.testing.assert_allclose(outputs['one'], expected[:1], atol=1e-5)
    swapped = predictor.swap(structure_from=images, appearance_from=images[::-1].copy())
    assert np.abs(outputs['swapped'].astype(int) - swapped).max() <= 1
    assert swapped.std() > 0


def test_example_runs(exported, tmp_path):
  folder = exported[2]
  for i in range(2):
    Image.new('RGB', (20, 40), (90 * i, 50, 50)).save(tmp_path / f'{i}.png')
  result = subprocess.run(
    [sys.executable, folder / 'load.py', '0.png', '1.png'], check=True, cwd=tmp_path, capture_output=True, text=True
  )
  assert 'score of the others' in result.stdout
  with Image.open(tmp_path / 'swapped_1.png') as image:
    assert image.size == (16, 32)
  description = json.loads((folder / 'model.json').read_text())
  assert description['image_size_hw'] == [32, 16]
  assert description['embedding']['share'] == pytest.approx([2 / 3, 1 / 3])


def test_existing_folder_is_not_overwritten(exported, capsys):
  _, workdir, folder = exported
  with pytest.raises(SystemExit):
    main(['export', str(workdir), f'--out={folder}'])
  assert 'exists already' in capsys.readouterr().err


def test_a_file_name_makes_one_file(exported, tmp_path):
  _, workdir, _ = exported
  main(['export', str(workdir), f'--out={tmp_path / "model.safetensors"}'])
  images = np.random.default_rng(0).integers(0, 256, (2, 32, 16, 3), np.uint8)
  np.testing.assert_array_equal(load(tmp_path / 'model.safetensors').embed(images), load(workdir).embed(images))


def test_a_run_without_generator_gets_the_embedder_alone(tmp_path):
  pytest.importorskip('flatbuffers')
  config = tiny_config()
  config.joint = False
  save_checkpoint(frozen(config), tmp_path / 'run', num_identities=4, step=1)
  save_config(frozen(config), tmp_path / 'run' / 'config.json')
  folder = tmp_path / 'exported'
  main(['export', str(tmp_path / 'run' / 'checkpoints' / '1'), f'--out={folder}', '--platforms= cpu'])
  assert not (folder / 'swap.stablehlo').exists()
  for i in range(2):
    Image.new('RGB', (20, 40), (90 * i, 50, 50)).save(tmp_path / f'{i}.png')
  result = subprocess.run(
    [sys.executable, folder / 'load.py', '0.png', '1.png'], check=True, cwd=tmp_path, capture_output=True, text=True
  )
  assert 'score of the others' in result.stdout and not (tmp_path / 'swapped_1.png').exists()
