"""A batch in parts: the parts, and an iteration that computes one after the other."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.benchmarks.operations import flops_by_origin
from dgnet_jax.config.validation import problems
from dgnet_jax.training import micro_batches
from dgnet_jax.training.forward import Draws
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import correspondence_config, frozen, tiny_config

NUM_IDENTITIES = 4
BATCH, GROUP, PARTS = 8, 2, 2
EVERYTHING = ActiveTerms(codes=True, cycle=True, teaching=True)
REID_ALONE = ActiveTerms(generator=False, teaching=True)
CONFIGS = {'adain': tiny_config, 'correspondence': correspondence_config}


def test_parts_have_whole_groups_and_are_joined_again():
  batch = {'image': np.arange(24).reshape(12, 2), 'identity': np.arange(12)}
  parts = micro_batches.split(batch, 3, 2)
  np.testing.assert_array_equal(parts['identity'], [[0, 1, 6, 7], [2, 3, 8, 9], [4, 5, 10, 11]])
  assert parts['image'].shape == (3, 4, 2)
  joined = micro_batches.join(parts, 2)
  jax.tree.map(np.testing.assert_array_equal, joined, batch)


def test_results_are_averaged_and_others_stacked():
  parts = np.arange(6.0).reshape(3, 2)
  mean, others = micro_batches.mean_over_parts(lambda part: ({'sum': part.sum()}, part[::-1]), parts)
  assert mean['sum'] == 5.0
  np.testing.assert_array_equal(others, parts[:, ::-1])


def test_parts_have_their_own_keys_and_share_the_coin():
  draws = Draws(jnp.bool_(True), dropout_key=jax.random.key(0), teacher_dropout_key=jax.random.key(1))
  first, second = (micro_batches.draws_of(draws, jnp.int32(part)) for part in (0, 1))
  assert first.dropout_key != second.dropout_key
  assert first.update_structure_encoder == second.update_structure_encoder == draws.update_structure_encoder
  assert first.structure_key is None and first.teacher_dropout_key == draws.teacher_dropout_key


def context_of(design, parts):
  config = CONFIGS[design]()
  if design == 'adain':
    config.weights.feature_matching = 0.5
    config.augment.random_erasing_prob = 0.0
  config.update(batch_size=BATCH, micro_batches=parts)
  config.reid.batch_norm_group = GROUP
  for ramp in config.ramps.values():
    ramp.update(initial=0.5, maximum=0.5)
  return make_step_context(frozen(config), NUM_IDENTITIES)


def inputs(context):
  """State, teachers, augmented batch and draws without dropout and other noise, in float64."""
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(2, BATCH, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(*images, rng.integers(NUM_IDENTITIES, size=(BATCH, 2)).astype(np.int32))
  state = create_train_state(context.networks, context.optimizers, seed=0)
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
  batch, draws = draw_step(context, state, pixels)
  state, teachers, batch = jax.tree.map(as_float64, (state, teachers, batch))
  # With fresh weights some fetched pixels are those of the image, and the sign of their difference is rounding error.
  params = jax.tree.map(lambda x: x + rng.normal(0, 0.05, x.shape), state.generator.params)
  state = dataclasses.replace(state, generator=dataclasses.replace(state.generator, params=params))
  return state, teachers, batch, Draws(draws.update_structure_encoder)


def as_float64(x):
  return x.astype(np.float64) if jax.dtypes.issubdtype(x.dtype, np.floating) else x


def assert_close(actual, expected):
  """Compares trees of arrays, relative to the largest number: the gradient of some biases is rounding error only."""
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
  for (path, ours), theirs in zip(jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-10 * scale, err_msg=jax.tree_util.keystr(path))


def check_in_parts(design, active):
  """Compares an iteration in parts with one at once."""
  step = jax.jit(update, static_argnums=(0, 5))
  arguments = inputs(context_of(design, 1))
  (whole, metrics, gradients), in_parts = (step(context_of(design, parts), *arguments, active) for parts in (1, PARTS))
  assert_close(in_parts[0].reid.batch_stats, whole.reid.batch_stats)
  assert_close(in_parts[1], metrics)
  assert in_parts[2].keys() == gradients.keys()
  for network, expected in gradients.items():
    assert_close(in_parts[2][network], expected)
  # Plain SGD, so that the new parameters are as close as the gradients.
  assert_close(in_parts[0].reid.params, whole.reid.params)


def test_the_reid_network_learns_the_same_in_parts(x64):
  check_in_parts('adain', REID_ALONE)


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.parametrize('design', CONFIGS)
def test_everything_learns_the_same_in_parts(x64, design):
  check_in_parts(design, EVERYTHING)


def test_the_reid_network_alone_does_not_train_the_generator_in_parts(x64):
  context = context_of('adain', PARTS)
  traced = jax.jit(update, static_argnums=(0, 5)).trace(context, *inputs(context), REID_ALONE)
  backward = {origin.network for origin in flops_by_origin(traced.jaxpr.jaxpr) if origin.backward}
  assert backward == {'AppearanceEncoder'}


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'micro_batches': 4}, 'a multiple of 32 images'),
    ({'micro_batches': 2, 'group': 0}, 'batch_norm_group above 0'),
    ({'micro_batches': 2, 'norm': 'batch'}, 'discriminator.norm=batch'),
    ({'micro_batches': 0}, 'micro_batches'),
    ({'micro_batches': 2}, ''),
  ],
)
def test_config_that_cannot_be_computed_in_parts_is_refused(fields, problem):
  config = tiny_config()
  config.update(batch_size=16, micro_batches=fields['micro_batches'])
  config.reid.batch_norm_group = fields.get('group', 8)
  config.discriminator.norm = fields.get('norm', 'none')
  found = '\n'.join(problems(config))
  assert problem in found and bool(problem) == bool(found)
