"""Runs without generated images (joint=False): the same lesson on real ones, or on the truth, for less work."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dgnet_jax.config.validation import validate
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.interop.release.exporter import export_release
from dgnet_jax.main import main
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training import objectives
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_train_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.tiny_run import tiny_config

PEOPLE = 4
WARM_UP, FULL = ActiveTerms(), ActiveTerms(codes=True, cycle=True, teaching=True)


def work(joint):
  """The config, (networks, teacher's network, optimisers), state, teachers and pixels of an iteration."""
  config = tiny_config()
  config.joint = joint
  for ramp in config.ramps.values():
    ramp.initial = 1.0
  networks, teacher_network = make_networks(config, PEOPLE), make_teacher_network(config, PEOPLE)
  optimizers = make_optimizers(config.optimizer)
  rng = np.random.default_rng(0)
  image, positive = rng.integers(256, size=(2, 2, 2, *config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(image, positive, np.array([[0, 1], [2, 3]], np.int32))
  teachers = [Teacher(*teacher_network.init(jax.random.key(1)))]
  state = create_train_state(networks, optimizers, seed=0)
  return config, (networks, teacher_network, optimizers), state, teachers, pixels


def one_step(joint, active, cost=False):
  """(state before, state after, metrics) of an iteration, or the operations that it takes."""
  config, parts, state, teachers, batch = work(joint)
  step = make_train_step(*parts, config, make_mesh(jax.devices()[:1]))
  if cost:
    return step.lower(state, teachers, batch, active).compile().cost_analysis()['flops']
  before = jax.tree.map(np.array, state.replace(rng=None))
  after, metrics = step(state, teachers, batch, active)
  return before, after.replace(rng=None), metrics


def largest_difference(one, other):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))) for a, b in pairs)


def test_the_re_id_network_learns_the_same_of_real_images():
  before, alone, metrics = one_step(False, WARM_UP)
  _, joint, _ = one_step(True, WARM_UP)
  assert set(metrics) == {'identity', 'positive_identity'}
  assert largest_difference(before.reid, alone.reid) > 1e-4
  for name in ('params', 'batch_stats'):  # of two programs, so up to rounding
    pairs = jax.tree.leaves(getattr(joint.reid, name)), jax.tree.leaves(getattr(alone.reid, name))
    for one, other in zip(*pairs, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  for name in ('generator', 'discriminator'):
    assert largest_difference(getattr(before, name), getattr(alone, name)) == 0
    assert largest_difference(getattr(before, name), getattr(joint, name)) > 0


def test_later_the_fine_head_learns_of_real_images_too():
  before, after, metrics = one_step(False, FULL)
  assert set(metrics) == {'identity', 'positive_identity', 'fine_identity'}
  heads = before.reid.params['fine_head'], after.reid.params['fine_head']
  assert largest_difference(*heads) > 1e-4
  assert largest_difference(before.generator, after.generator) == 0


def test_nothing_is_generated():
  assert one_step(False, FULL, cost=True) < 0.5 * one_step(True, FULL, cost=True)


def test_true_images_teach_as_generated_ones_do():
  config, parts, state, teachers, pixels = work(joint=True)
  networks = parts[0]
  batch, draws = draw_step(config, state, pixels, networks.reid_scale)
  codes, _ = objectives.appearance_codes(networks, state.reid.params, state.reid.batch_stats, batch)
  made = objectives.generate(networks, state.generator.params, batch.image, codes).cross_by_appearance

  @jax.jit
  def reid_after(state, cross_ground_truth):
    given = dataclasses.replace(batch, cross_ground_truth=cross_ground_truth)
    after, *_ = update(*parts, config, state, teachers, given, draws, FULL)
    return after.reid

  of_generated = reid_after(state, None)
  config.joint = False
  of_the_same, of_others = reid_after(state, made), reid_after(state, made[::-1])
  for one, other in zip(jax.tree.leaves(of_generated), jax.tree.leaves(of_the_same), strict=True):
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)
  assert largest_difference(of_generated.params, of_others.params) > 1e-3


@pytest.mark.parametrize('change', [{'joint': True}, {'data.layout': 'market1501', 'data.root': 'x'}])
def test_the_truth_must_be_known(change):
  config = tiny_config()
  config.joint = False
  config.teaching.images = 'ground_truth'
  validate(config)
  config.update_from_flattened_dict(change)
  with pytest.raises(ConfigError, match='teaching.images: truth needs'):
    validate(config)


def test_a_run_without_a_generator(tmp_path, capsys):
  config = tiny_config()
  config.joint = False
  config.batch_size = 8  # over the tests' eight devices
  config.num_steps = 3
  config.log.progress_every_steps = 1
  config.teaching.images = 'ground_truth'
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=1.0)
  (tmp_path / 'config.json').write_text(config.to_json_best_effort())
  main([f'--config={tmp_path}/config.json', f'--workdir={tmp_path}/run'])
  printed = capsys.readouterr().out
  assert 'nothing is generated' in printed and 'the rendered truth of cross images as well' in printed
  assert 'both, alpha' in printed
  records = [json.loads(line) for line in (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()]
  assert ['loss/fine_teaching' in record for record in records] == [False, False, True]
  evaluation = {path.name for path in (tmp_path / 'run' / 'evaluation').iterdir()}
  assert evaluation == {'results.json', 'rankings.csv', 'ranked.png'}
  assert not (tmp_path / 'run' / 'generated').exists() and not (tmp_path / 'run' / 'images').exists()
  with pytest.raises(UserError, match='joint=False'):
    export_release(tmp_path / 'run', tmp_path / 'exported')
  config.joint = True  # what the run was is what counts
  with pytest.raises(UserError, match='cannot go on with joint=True'):
    train(config, tmp_path / 'run')
  trained = load_predictor(config, tmp_path / 'run')
  with pytest.raises(UserError, match='no generator'):
    trained.swap(structure_from=np.zeros((1, 32, 16, 3), np.uint8), appearance_from=np.zeros((1, 32, 16, 3), np.uint8))


@pytest.mark.parametrize('field, value', [('style', 'normal'), ('detach_code', False)])
def test_the_generator_must_not_train_the_code(field, value):
  config = tiny_config()
  config.joint = False
  config.reid[field] = value
  with pytest.raises(ConfigError, match='joint: False needs'):
    validate(config)
