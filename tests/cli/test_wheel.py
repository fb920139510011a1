"""A wheel has everything that a checkout has: the commands and the configs work without one."""

import configparser
import importlib.util
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

from tests.conftest import REPO
from tests.data.folders import write_image
from tests.reports.run_folders import write_run

CONFIG = """
from dgnet_jax.config.loading import read_config_file

def get_config():
  config = read_config_file('synthetic')
  config.batch_size, config.num_steps = 2, 2
  config.data.image_size_hw = (32, 16)
  config.data.synthetic.update(num_train_identities=4, num_test_identities=3, images_per_identity=4)
  config.data.synthetic.update(num_distractors=2, num_junk=2)
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1, 1, 2))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.correspondence.attention_stride = 2
  config.discriminator.update(width=2, num_scales=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, num_parts=2)
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, batch_size=8, num_epochs=1, decay_epoch=1)
  config.teacher.warmup_epochs = 0
  config.evaluation.update(batch_size=16, num_swaps=3, num_ranked_queries=3, num_ground_truth_pairs=10)
  return config
"""


def test_setup_cfg_lists_every_package():
  """A package that is missing from the list would be missing from the wheel."""
  setup = configparser.ConfigParser(interpolation=None)
  setup.read(REPO / 'setup.cfg')
  listed = [line for line in setup['options']['packages'].split() if line]
  folders = {path.parent.relative_to(REPO) for path in (REPO / 'dgnet_jax').rglob('*.py')}
  assert listed == sorted({'.'.join(folder.parts) for folder in folders} | {'dgnet_jax.configs'})


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
  """Folder into which a wheel of a copy of the sources is installed, without dependencies."""
  folder = tmp_path_factory.mktemp('wheel')
  for name in ('dgnet_jax', 'configs'):
    shutil.copytree(REPO / name, folder / 'source' / name, ignore=shutil.ignore_patterns('__pycache__'))
  for name in ('setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE'):
    shutil.copy(REPO / name, folder / 'source' / name)
  # Building in isolation would download setuptools.
  have_tools = all(importlib.util.find_spec(name) for name in ('setuptools', 'wheel'))
  isolation = ['--no-build-isolation'] if have_tools else []
  pip = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check']
  subprocess.run([*pip, 'wheel', folder / 'source', '--no-deps', *isolation, '-w', folder], check=True)
  (wheel,) = folder.glob('*.whl')
  subprocess.run([*pip, 'install', '--no-deps', '--target', folder / 'site', wheel], check=True)
  return folder / 'site'


@pytest.fixture
def dgnet(installed, tmp_path):
  """Runs the installed command in an empty folder, where the checkout cannot be imported."""
  dependencies = sysconfig.get_paths()['purelib']
  environment = os.environ | {
    'PYTHONPATH': os.pathsep.join([str(installed), dependencies]),
    'XLA_FLAGS': '',
    'JAX_PLATFORMS': 'cpu',
  }

  def run(*arguments, python=(str(installed / 'bin' / 'dgnet'),)):
    # -S ignores .pth files, by which an editable installation would supply modules that the wheel lacks.
    command = [sys.executable, '-S', *python, *arguments]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout + result.stderr

  return run


def test_command_and_configs_are_in_the_wheel(dgnet, installed):
  assert 'check-data' in dgnet('--help')
  assert '{small,more_cameras,large}' in dgnet('ablation', '--help')
  code = 'import dgnet_jax; from dgnet_jax.config.loading import config_folder; print(config_folder())'
  assert pathlib.Path(dgnet(python=('-c', code)).strip()) == installed / 'dgnet_jax' / 'configs'


def test_data_is_checked_from_the_wheel(dgnet, tmp_path):
  for camera, folder in enumerate(('train/Anna', 'train/Anna', 'train/Bob', 'train/Bob', 'query/Cleo', 'gallery/Cleo')):
    (tmp_path / 'data' / folder).mkdir(parents=True, exist_ok=True)
    write_image(tmp_path / 'data' / folder / f'c{camera}.jpg', seed=camera)
  assert 'no problems' in dgnet('check-data', '--root=data', '--config.data.camera_pattern=c(?P<camera>[0-9])')


def test_reports_are_styled_from_the_wheel(dgnet, tmp_path):
  write_run(tmp_path / 'run')
  dgnet('report', 'run')
  assert 'prefers-color-scheme' in (tmp_path / 'run' / 'report.html').read_text()


@pytest.mark.long
def test_training_and_evaluation_work_from_the_wheel(dgnet, tmp_path):
  (tmp_path / 'tiny.py').write_text(CONFIG)
  text = dgnet('train', '--config=tiny.py', '--workdir=run')
  assert 'config tiny.py' in text and (tmp_path / 'run' / 'evaluation' / 'results.json').is_file()
  assert list((tmp_path / 'run').glob('generated/*/*.png'))
  assert 'mode evaluate, config run/config.json' in dgnet('evaluate', '--workdir=run')
