"""A training step on several devices: the results of one device, and what the compiled program holds."""

import dataclasses
import functools
import re

import jax
import numpy as np
import pytest

from dgnet_jax.benchmarks.collectives import exchanges
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, make_train_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import correspondence_config, frozen, tiny_config

NUM_IDENTITIES = 4
BATCH = 8
EVERYTHING = ActiveTerms(codes=True, cycle=True, teaching=True)
REID_ALONE = ActiveTerms(generator=False)
CONFIGS = {'adain': tiny_config, 'correspondence': correspondence_config}
# Images that share BatchNorm statistics: two, which are on one device or, of eight, on neighbours; or the batch.
GROUPED, GLOBAL = 2, 0


def context_of(design, group, num_identities=NUM_IDENTITIES):
  config = CONFIGS[design]()
  config.batch_size = BATCH
  config.structure_encoder.dilations = (1,)
  config.reid.update(stage_sizes=(1,), batch_norm_group=group)
  config.teacher.stage_sizes = (1,)
  for ramp in config.ramps.values():
    ramp.update(initial=0.5, maximum=0.5)
  return make_step_context(frozen(config), num_identities)


@functools.cache
def inputs(design, num_identities=NUM_IDENTITIES):
  """State, teachers, augmented batch and draws of a step in float64; for every group size."""
  context, rng = context_of(design, GLOBAL, num_identities), np.random.default_rng(0)
  images = rng.integers(256, size=(2, BATCH, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(*images, rng.integers(num_identities, size=(BATCH, 2)).astype(np.int32))
  state = create_train_state(context.networks, context.optimizers, seed=0)
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
  batch, draws = jax.jit(functools.partial(draw_step, context))(state, pixels)
  state, teachers, batch = jax.tree.map(as_float64, (state, teachers, batch))
  # With fresh weights some fetched pixels are those of the image, and the sign of their difference is rounding error.
  params = jax.tree.map(lambda x: x + rng.normal(0, 0.05, x.shape), state.generator.params)
  state = dataclasses.replace(state, generator=dataclasses.replace(state.generator, params=params))
  return state, teachers, batch, draws


def as_float64(x):
  return x.astype(np.float64) if jax.dtypes.issubdtype(x.dtype, np.floating) else x


@functools.cache
def results(design, group, active, devices):
  """Losses, gradients and new BatchNorm statistics of a step."""
  context, mesh = context_of(design, group), make_mesh(jax.devices()[:devices])

  def step(state, teachers, batch, draws):
    after, metrics, gradients = update(context, state, teachers, batch, draws, active)
    return {'losses': metrics, 'statistics': after.reid.batch_stats, **gradients}

  state, teachers, batch, draws = inputs(design)
  state, teachers, draws = jax.device_put((state, teachers, draws), replicated(mesh))
  jitted = jax.jit(step, out_shardings=replicated(mesh))
  return jax.device_get(jitted(state, teachers, jax.device_put(batch, batch_sharding(mesh)), draws))


def assert_devices_agree(design, group, active, devices):
  expected, actual = results(design, group, active, 1), results(design, group, active, devices)
  gradients = {'reid', 'generator', 'discriminator'} if active.generator else {'reid'}
  assert expected.keys() == {'losses', 'statistics'} | gradients
  for part, tree in expected.items():
    # Devices sum in another order, and some gradients are what is left of much larger summands.
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(tree))
    assert largest > 0
    for (path, one), many in zip(jax.tree_util.tree_leaves_with_path(tree), jax.tree.leaves(actual[part]), strict=True):
      name = part + jax.tree_util.keystr(path)
      np.testing.assert_allclose(many, one, rtol=1e-9, atol=1e-11 * largest, err_msg=name)


@pytest.mark.usefixtures('x64')
def test_devices_train_the_reid_network_as_one_does():
  assert_devices_agree('adain', GLOBAL, REID_ALONE, 8)


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(
  ('design', 'group', 'devices'),
  [('adain', GROUPED, 8), ('correspondence', GLOBAL, 8)],
)
def test_devices_give_the_results_of_one(design, group, devices):
  assert_devices_agree(design, group, EVERYTHING, devices)


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('devices', [2, 4, 8])
@pytest.mark.parametrize('group', [GROUPED, GLOBAL], ids=['grouped', 'global'])
@pytest.mark.parametrize('design', CONFIGS)
def test_any_number_of_devices_gives_the_results_of_one(design, group, devices):
  assert_devices_agree(design, group, EVERYTHING, devices)


@functools.cache
def program(design, group):
  """XLA's text of the compiled training step with every term, and the size of the parameters in bytes.

  In float32: XLA does not split the gradient of max pooling in float64.
  """
  context, mesh = context_of(design, group), make_mesh()
  state = jax.eval_shape(lambda: create_train_state(context.networks, context.optimizers, seed=0))
  teachers = jax.eval_shape(lambda: (Teacher(*context.teacher_network.init(jax.random.key(1))),))
  image = jax.ShapeDtypeStruct((BATCH, 2, *context.config.data.image_size_hw, 3), np.uint8)
  pixels = PixelBatch(image, image, jax.ShapeDtypeStruct((BATCH, 2), np.int32))

  def placed(tree, sharding):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), tree)

  arguments = placed((state, teachers), replicated(mesh)), placed(pixels, batch_sharding(mesh))
  text = make_train_step(context, mesh).lower(*arguments[0], arguments[1], EVERYTHING).compile().as_text()
  networks = (state.generator.params, state.discriminator.params, state.reid.params)
  return text, sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(networks))


@pytest.mark.parametrize(
  ('design', 'group'),
  [
    ('adain', GROUPED),
    *(
      pytest.param(design, group, marks=[pytest.mark.long, EXHAUSTIVE])
      for design, group in [('adain', GLOBAL), ('correspondence', GROUPED), ('correspondence', GLOBAL)]
    ),
  ],
)
def test_devices_exchange_sums_and_no_images(design, group):
  text, num_bytes = program(design, group)
  found = exchanges(text)
  assert {exchange.kind for exchange in found} == {'all-reduce'}
  # Maps could also be exchanged as sums with zeros. Terms that share a network may exchange their gradients one by one.
  gradients = [exchange.num_bytes for exchange in found if exchange.purpose == 'gradients']
  others = [exchange.num_bytes for exchange in found if exchange.purpose != 'gradients']
  height, width = tiny_config().data.image_size_hw
  assert num_bytes <= sum(gradients) < 3 * num_bytes and 0 < max(others) < 4 * height * width * 3


def test_judging_and_learning_from_cross_images_share_a_forward_pass():
  text, _ = program('adain', GROUPED)
  convolutions = re.findall(r' convolution\(.*op_name="([^"]*AppearanceEncoder[^"]*/stem/[^"]*)"', text)
  forward = [name for name in convolutions if 'transpose(' not in name]
  assert len(forward) == 3  # of the clean images, the erased ones, and the cross images
