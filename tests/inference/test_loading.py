"""Predictors from the checkpoints of a run."""

import re

import jax
import numpy as np
import pytest

import dgnet_jax
from dgnet_jax.errors import UserError
from dgnet_jax.inference.loading import find_checkpoints, load_predictor, load_teacher_predictor
from dgnet_jax.models.build import make_networks
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state


def test_parameters_are_those_of_the_newest_checkpoint(tiny_run):
  config, workdir, index = tiny_run
  predictor = load_predictor(config, workdir)
  assert predictor.step == 7 and predictor.num_identities == index.num_identities
  networks = make_networks(config, index.num_identities)
  state = create_train_state(networks, make_optimizers(config), seed=1)  # that of the second checkpoint
  jax.tree.map(np.testing.assert_array_equal, predictor.generator, dict(state.generator.params))
  jax.tree.map(np.testing.assert_array_equal, predictor.reid, dict(state.reid.params))
  jax.tree.map(np.testing.assert_array_equal, predictor.reid_stats, dict(state.reid.batch_stats))


def test_batch_size_is_that_of_evaluation_by_default(tiny_run):
  config, workdir, _ = tiny_run
  assert load_predictor(config, workdir).batch_size == config.evaluation.batch_size == 16
  assert load_predictor(config, workdir, batch_size=3).batch_size == 3


def test_missing_checkpoints_and_teachers_are_reported(tiny_run, tmp_path):
  config, workdir, index = tiny_run
  with pytest.raises(UserError, match='no checkpoint of DG-Net'):
    load_predictor(config, tmp_path)
  with pytest.raises(UserError, match='no teacher in'):
    load_teacher_predictor(config, workdir, index.num_identities)


def test_find_checkpoints_accepts_relative_steps(tmp_path, monkeypatch):
  (tmp_path / 'run' / 'checkpoints' / '12').mkdir(parents=True)
  assert find_checkpoints(tmp_path / 'run') == (tmp_path / 'run', tmp_path / 'run' / 'checkpoints', None)
  monkeypatch.chdir(tmp_path / 'run' / 'checkpoints')
  assert find_checkpoints('12') == (tmp_path / 'run', tmp_path / 'run' / 'checkpoints', 12)


@pytest.mark.parametrize('step', ['7', 'Best', True, 7.0, ['best'], b'best'])
def test_a_step_of_another_type_is_named(tiny_run, step):
  with pytest.raises(UserError, match=re.escape(f"step={step!r} must be a whole number, 'best' or None")):
    dgnet_jax.load(tiny_run[1], step=step)


@pytest.mark.parametrize('size', ['8', 0, True, 2.0, None])
def test_a_batch_size_of_another_type_is_named(tiny_run, size):
  with pytest.raises(UserError, match=re.escape(f'batch_size={size!r} must be a whole number of at least 1')):
    dgnet_jax.load(tiny_run[1], batch_size=size)


def test_numbers_of_numpy_are_whole_numbers(tiny_run):
  model = dgnet_jax.load(tiny_run[1], step=np.int64(7), batch_size=np.int32(2))
  assert (model.step, model.batch_size) == (7, 2) and type(model.batch_size) is int
