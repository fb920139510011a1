"""Runs without a generator (joint=False): the re-id network learns the same from real images, or from ground truth."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from dgnet_jax.cli.command import execute
from dgnet_jax.config.loading import save_config
from dgnet_jax.config.validation import validate
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.interop.release.exporter import export_release
from dgnet_jax.main import COMMAND
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training.forward import appearance_codes, generate
from dgnet_jax.training.loop import train
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, make_train_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.tiny_run import frozen, tiny_config

NUM_IDENTITIES = 4
WARM_UP, FULL = ActiveTerms(), ActiveTerms(codes=True, cycle=True, teaching=True)


def make_context(**fields):
  """Returns the step context of a tiny config with all ramped terms active from the start."""
  config = tiny_config()
  for ramp in config.ramps.values():
    ramp.initial = 1.0
  config.update_from_flattened_dict(fields)
  return make_step_context(frozen(config), NUM_IDENTITIES)


def make_inputs(context):
  """Returns the state, teachers and pixels of an iteration."""
  rng = np.random.default_rng(0)
  image, positive = rng.integers(256, size=(2, 2, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(image, positive, np.array([[0, 1], [2, 3]], np.int32))
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
  return create_train_state(context.networks, context.optimizers, seed=0), teachers, pixels


def make_step(context):
  return make_train_step(context, make_mesh(jax.devices()[:1]))


def one_step(joint, active):
  """Returns the state before and after an iteration, and its metrics."""
  context = make_context(joint=joint)
  state, teachers, pixels = make_inputs(context)
  before = jax.tree.map(np.array, state.replace(rng=None))
  after, metrics = make_step(context)(state, teachers, pixels, active)
  return before, after.replace(rng=None), metrics


def flops(joint):
  """Returns the operations of an iteration of the full phase."""
  context = make_context(joint=joint)
  return make_step(context).lower(*make_inputs(context), FULL).compile().cost_analysis()['flops']


def largest_difference(one, other):
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return max(np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64))) for a, b in pairs)


def assert_close(one, other):
  """Equality up to rounding, for results of two programs."""
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.long
def test_reid_learns_the_same_from_real_images_with_and_without_generator():
  before, alone, metrics = one_step(False, WARM_UP)
  _, joint, _ = one_step(True, WARM_UP)
  assert set(metrics) == {'identity', 'positive_identity'}
  assert largest_difference(before.reid, alone.reid) > 1e-4
  for name in ('params', 'batch_stats'):
    assert_close(getattr(joint.reid, name), getattr(alone.reid, name))
  for name in ('generator', 'discriminator'):
    assert largest_difference(getattr(before, name), getattr(alone, name)) == 0
    assert largest_difference(getattr(before, name), getattr(joint, name)) > 0


@pytest.mark.long
def test_fine_head_learns_from_real_images_after_the_warm_up():
  before, after, metrics = one_step(False, FULL)
  assert set(metrics) == {'identity', 'positive_identity', 'fine_identity'}
  heads = before.reid.params['fine_head'], after.reid.params['fine_head']
  assert largest_difference(*heads) > 1e-4
  assert largest_difference(before.generator, after.generator) == 0


@pytest.mark.long
def test_step_without_generator_computes_less():
  assert flops(joint=False) < 0.5 * flops(joint=True)


@pytest.mark.long
def test_ground_truth_teaches_as_generated_images_do():
  joint = make_context()
  state, teachers, pixels = make_inputs(joint)
  batch, draws = draw_step(joint, state, pixels)
  codes, _ = appearance_codes(joint.networks, state.reid.params, state.reid.batch_stats, batch)
  generated = generate(joint.networks, state.generator.params, batch, codes).cross_by_appearance

  def reid_after(context, cross_ground_truth):
    @jax.jit
    def step(state, batch):
      after, *_ = update(context, state, teachers, batch, draws, FULL)
      return after.reid

    return step(state, dataclasses.replace(batch, cross_ground_truth=cross_ground_truth))

  alone = make_context(**{'joint': False, 'teaching.images': 'ground_truth'})
  from_generated = reid_after(joint, None)
  from_the_same, from_others = reid_after(alone, generated), reid_after(alone, generated[::-1])
  assert_close(from_generated, from_the_same)
  assert largest_difference(from_generated.params, from_others.params) > 1e-3


def test_batch_without_the_ground_truth_raises():
  context = make_context(**{'joint': False, 'teaching.images': 'ground_truth'})
  with pytest.raises(ValueError, match='the batch has no cross_ground_truth'):
    make_step(context).lower(*make_inputs(context), FULL)


@pytest.mark.parametrize('change', [{'joint': True}, {'data.layout': 'market1501', 'data.root': 'x'}])
def test_ground_truth_needs_synthetic_data_and_no_generator(change):
  config = tiny_config()
  config.joint = False
  config.teaching.images = 'ground_truth'
  validate(config)
  config.update_from_flattened_dict(change)
  with pytest.raises(ConfigError, match='teaching.images'):
    validate(config)


@pytest.mark.long
def test_run_without_generator(tmp_path, lines):
  config = tiny_config()
  config.joint = False
  config.batch_size = 8  # over the tests' eight devices
  config.num_steps = 3
  config.log.progress_every_steps = 1
  config.teaching.images = 'ground_truth'
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=1.0)
  config = frozen(config)
  save_config(config, tmp_path / 'config.json')
  workdir = tmp_path / 'run'
  execute(COMMAND, [f'--config={tmp_path}/config.json', f'--workdir={workdir}'], 'main')
  assert any('nothing is generated' in line and 'the ground truth of cross images' in line for line in lines)
  records = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  assert ['loss/fine_teaching' in record for record in records] == [False, False, True]
  evaluation = {path.name for path in (workdir / 'evaluation').iterdir()}
  assert evaluation == {'results.json', 'rankings.csv', 'ranked.png'}
  assert not (workdir / 'generated').exists() and not (workdir / 'images').exists()
  with pytest.raises(UserError, match='joint=False'):
    export_release(workdir, tmp_path / 'exported')
  joint = dataclasses.replace(config, joint=True, teaching=dataclasses.replace(config.teaching, images='generated'))
  with pytest.raises(UserError, match='cannot be resumed with joint=True'):
    train(joint, workdir)
  # What the run was trained with counts, not the current config.
  predictor = load_predictor(joint, workdir)
  images = np.zeros((1, 32, 16, 3), np.uint8)
  with pytest.raises(UserError, match='no generator'):
    predictor.swap(structure_from=images, appearance_from=images)


@pytest.mark.parametrize('field, value', [('style', 'normal'), ('detach_code', False)])
def test_joint_false_needs_a_detached_code(field, value):
  config = tiny_config()
  config.joint = False
  config.reid[field] = value
  with pytest.raises(ConfigError, match='joint: False needs'):
    validate(config)
