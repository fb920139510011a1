"""The plain formulation of an iteration computes what the step that is trained with computes."""

import dataclasses

import jax
import numpy as np
import pytest

from dgnet_jax.benchmarks.plain_step import plain_update
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import frozen, tiny_config

NUM_IDENTITIES = 4


def inputs():
  """The arguments of `update` in float64, with two teachers and every ramped weight above 0."""
  config = tiny_config()
  config.discriminator.update(gan_type='nsgan', num_scales=2)
  config.data.image_size_hw = (48, 32)
  for ramp in config.ramps.values():
    ramp.update(initial=0.5, maximum=0.5)
  context = make_step_context(frozen(config), NUM_IDENTITIES)
  images = np.random.default_rng(0).integers(256, size=(2, 3, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(*images, np.array([[0, 1], [2, 3], [3, 1]], np.int32))
  state = create_train_state(context.networks, context.optimizers, seed=0)
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(i))) for i in (1, 2)]
  batch, draws = draw_step(context, state, pixels)
  draws = draws.replace(dropout_key=None, teacher_dropout_key=None)
  state, teachers, batch = jax.tree.map(as_float64, (state, teachers, batch))
  return context, state, teachers, batch, draws


def as_float64(x):
  return x.astype(np.float64) if jax.dtypes.issubdtype(x.dtype, np.floating) else x


@EXHAUSTIVE
@pytest.mark.long
def test_same_losses_and_state_as_the_step():
  active = ActiveTerms(codes=True, cycle=True, teaching=True)
  with jax.enable_x64(True):
    context, state, teachers, batch, draws = inputs()
    step, plain_step = (jax.jit(function, static_argnums=(0, 5)) for function in (update, plain_update))
    for train_encoder in (True, False):
      draws = draws.replace(update_structure_encoder=np.bool_(train_encoder))
      arguments = context, state, teachers, batch, draws, active
      expected_state, expected, _ = step(*arguments)
      plain_state, metrics, thrown_away = plain_step(*arguments)
      assert_equal(expected_state, expected, plain_state, metrics)
      assert all(np.linalg.norm(x) > 0 for x in jax.tree.leaves(thrown_away['discriminator']))


def assert_equal(expected_state, expected, state, metrics):
  assert metrics.keys() == expected.keys()
  for name, value in metrics.items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-9, err_msg=name)
  for network in ('generator', 'discriminator', 'reid'):
    ours, plain = getattr(expected_state, network), getattr(state, network)
    for part in (field.name for field in dataclasses.fields(ours)):
      jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-7, atol=1e-9), getattr(plain, part), getattr(ours, part)
      )
