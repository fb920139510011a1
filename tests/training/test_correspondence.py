"""An iteration with the correspondence generator: its terms, what they train, and its moved copies."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.losses.adversarial import adversarial_losses
from dgnet_jax.models.warping import sample
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training.augment import moved_copies
from dgnet_jax.training.correspondence_terms import NAMES, correspondence_terms
from dgnet_jax.training.forward import appearance_codes, generate
from dgnet_jax.training.objectives import DISCRIMINATOR_TERMS, StepInputs, generator_and_reid_terms, term_names
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import draw_step, make_step_context, make_train_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import correspondence_config, frozen

NUM_IDENTITIES = 4
EVERYTHING = ActiveTerms(codes=True, cycle=True, teaching=True)
SHAPE, MATCH = {'shape_encoder'}, {'shape_encoder', 'fetch'}
FETCH = MATCH | {'relighting'}
ALL = FETCH | {'refinement'}
# The parts of the generator that a term trains. Nothing flows back through the image that the cycle starts from.
REACHED = {
  'matching': MATCH,
  'fetched': FETCH,
  'erasure': SHAPE,
  'mask_area': SHAPE,
  'positive_reconstruction': ALL,
  'dissimilarity': ALL,
  'adversarial': ALL,
  'cross_identity': ALL,
  'cycle': ALL,
  'cycle_dissimilarity': ALL,
  'structure_code': SHAPE,
  'appearance_code': set(),
}


@pytest.fixture(scope='module')
def context():
  return make_step_context(frozen(correspondence_config()), NUM_IDENTITIES)


@pytest.fixture(scope='module')
def state(context):
  return create_train_state(context.networks, context.optimizers, seed=0)


@pytest.fixture(scope='module')
def teachers(context):
  params, batch_stats = context.teacher_network.init(jax.random.key(3))
  # A fresh classifier predicts nearly uniform probabilities.
  return (Teacher(jax.tree.map(lambda x: 3 * x, params), batch_stats),)


def make_pixels(context, count=2):
  rng = np.random.default_rng(0)
  images = rng.integers(256, size=(2, count, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  return PixelBatch(*images, rng.integers(NUM_IDENTITIES, size=(count, 2)).astype(np.int32))


def test_moved_copies_say_where_they_come_from():
  image = jax.random.normal(jax.random.key(0), (3, 2, 16, 8, 3))
  moved = moved_copies(image, jax.random.key(1))
  expected = sample(image.reshape(6, 16, 8, 3), moved.place.reshape(6, 16, 8, 2)).reshape(image.shape)
  np.testing.assert_allclose(moved.image, expected, atol=1e-6)
  # Each image is moved differently, and by the key alone.
  assert len({place.tobytes() for place in np.asarray(moved.place).reshape(6, -1)}) == 6
  np.testing.assert_array_equal(moved.place, moved_copies(image, jax.random.key(1)).place)
  assert not np.array_equal(moved.place, moved_copies(image, jax.random.key(2)).place)


def test_moved_copies_are_scaled_shifted_and_sheared_within_bounds():
  height, width = 16, 8
  place = np.asarray(moved_copies(jnp.zeros((200, 2, height, width, 3)), jax.random.key(0)).place, np.float64)
  down, right = (np.diff(place, axis=axis).reshape(400, -1, 2) for axis in (2, 3))
  assert np.ptp(down, axis=1).max() < 1e-4 and np.ptp(right, axis=1).max() < 1e-4  # linear in the place
  row_scale, column_scale, shear = down[:, 0, 0], right[:, 0, 1], down[:, 0, 1] / right[:, 0, 1]
  centre = place.mean((2, 3)).reshape(-1, 2) - [(height - 1) / 2, (width - 1) / 2]
  assert not right[:, 0, 0].any()
  for values in (row_scale, column_scale):
    assert 0.8 <= values.min() < 0.85 and 1.15 < values.max() <= 1.2
  assert 0.14 < np.abs(shear).max() <= 0.1501
  for axis, size in enumerate((height, width)):
    assert 0.13 * size < np.abs(centre[:, axis]).max() <= 0.1501 * size


def test_moving_is_independent_of_the_augmentation(context, state):
  """Otherwise, say, flipped images would tend to be enlarged."""
  flipped, scale = [], []
  draw = jax.jit(lambda state, pixels: draw_step(context, state, pixels)[0])
  pixels = make_pixels(context, 8)
  ramp = np.broadcast_to(np.arange(pixels.image.shape[3], dtype=np.uint8)[:, None], pixels.image.shape)
  for step in range(20):
    batch = draw(dataclasses.replace(state, step=jnp.asarray(step)), dataclasses.replace(pixels, image=ramp))
    flipped.append(np.diff(batch.image[..., 0], axis=3).mean((2, 3)) < 0)
    scale.append(np.diff(np.asarray(batch.moved.place)[..., 0], axis=2).mean((2, 3)))
  flipped, scale = np.concatenate(flipped).ravel(), np.concatenate(scale).ravel()
  assert 0.3 < flipped.mean() < 0.7
  assert abs(np.corrcoef(flipped, scale)[0, 1]) < 0.2  # 320 images: 3.5 standard deviations


@pytest.mark.parametrize('active', [ActiveTerms(), EVERYTHING])
def test_metrics_are_the_terms_of_the_phase(context, state, teachers, active):
  def step(state, pixels):
    batch, draws = draw_step(context, state, pixels)
    return update(context, state, teachers, batch, draws, active)[1]

  metrics = jax.eval_shape(step, state, make_pixels(context))
  expected = term_names(context.networks, active, taught=active.teaching)
  assert set(NAMES) < set(expected) and 'self_reconstruction' not in expected
  assert set(metrics) == {*expected, *DISCRIMINATOR_TERMS, 'total'}


@pytest.fixture(scope='module')
def reached(context, state, teachers):
  """The parts of the generator that each term trains."""
  networks = context.networks
  batch, draws = draw_step(context, state, make_pixels(context))

  def terms_of(generator):
    codes, stats = appearance_codes(networks, state.reid.params, state.reid.batch_stats, batch)
    generated = generate(networks, generator, batch, codes, draws.structure_key)
    losses = adversarial_losses('lsgan', 2)
    inputs = StepInputs(batch, codes, stats, state.discriminator.params, None, draws, teachers)
    active = ActiveTerms(codes=True, cycle=True)
    terms, _ = generator_and_reid_terms(networks, losses, generated, generator, state.reid.params, inputs, active)
    terms |= correspondence_terms(context.teacher_network, teachers, batch, batch.moved, generated.fetches)
    return {name: term.sum() for name, term in terms.items() if name in REACHED}

  # The last layers of flow and AdaIN start at 0, which stops the gradients of the layers before them.
  rng = np.random.default_rng(0)
  params = jax.tree.map(lambda x: x + 0.05 * rng.normal(size=x.shape).astype(np.float32), state.generator.params)
  jacobian = jax.jit(jax.jacrev(terms_of))(params)
  return {
    name: {part for part, tree in gradient.items() if any(np.any(x != 0) for x in jax.tree.leaves(tree))}
    for name, gradient in jacobian.items()
  }


@pytest.mark.parametrize('term', REACHED)
def test_what_a_term_trains(reached, term):
  assert reached[term] == REACHED[term]


def test_nothing_flows_back_through_the_image_that_the_cycle_starts_from(context, state, teachers):
  networks = context.networks
  batch, draws = draw_step(context, state, make_pixels(context))
  codes, stats = appearance_codes(networks, state.reid.params, state.reid.batch_stats, batch)
  generator = state.generator.params
  generated = generate(networks, generator, batch, codes, draws.structure_key)

  def cycle(cross):
    inputs = StepInputs(batch, codes, stats, state.discriminator.params, None, draws, teachers)
    replaced = dataclasses.replace(generated, cross=cross)
    losses, active = adversarial_losses('lsgan', 2), ActiveTerms(cycle=True)
    terms, _ = generator_and_reid_terms(networks, losses, replaced, generator, state.reid.params, inputs, active)
    return terms['cycle'].sum(), terms['cross_identity'].sum()

  to_cycle, to_identity = jax.jit(jax.jacrev(cycle))(generated.cross)
  assert not to_cycle.any() and to_identity.any()


@pytest.mark.long
def test_trained_generator_teaches_without_changing(context, state, teachers):
  step, before = make_train_step(context, make_mesh(jax.devices()[:1])), jax.device_get(state)
  after, metrics = step(
    jax.tree.map(jnp.copy, state), teachers, make_pixels(context), ActiveTerms(generator=False, teaching=True)
  )
  assert 'primary_teaching' in metrics and 'cycle' not in metrics and 'total' not in metrics
  for name in ('generator', 'discriminator'):
    jax.tree.map(np.testing.assert_array_equal, getattr(before, name).params, getattr(after, name).params)
  changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before.reid.params, jax.device_get(after.reid.params))
  assert any(jax.tree.leaves(changed)) and int(after.step) == 1


@pytest.mark.long
@EXHAUSTIVE
def test_devices_give_the_same_step(context, teachers):
  pixels = make_pixels(context, count=4)

  def advance(num_devices):
    mesh = make_mesh(jax.devices()[:num_devices])
    fresh = create_train_state(context.networks, context.optimizers, seed=0)
    state, given_teachers = jax.device_put((fresh, teachers), replicated(mesh))
    return make_train_step(context, mesh)(
      state, given_teachers, jax.device_put(pixels, batch_sharding(mesh)), EVERYTHING
    )

  (alone, metrics), (together, metrics_together) = advance(1), advance(4)
  for name, value in metrics.items():
    np.testing.assert_allclose(value, metrics_together[name], rtol=2e-3, atol=1e-4, err_msg=name)
  assert jax.tree.structure(alone) == jax.tree.structure(together)


@EXHAUSTIVE
@pytest.mark.long
def test_bfloat16_trains_the_generator_in_the_direction_of_float32(state, teachers):
  def gradients(compute_dtype):
    config = correspondence_config()
    config.compute_dtype = compute_dtype
    context = make_step_context(frozen(config), NUM_IDENTITIES)
    batch, draws = draw_step(context, state, make_pixels(context, 4))
    step = jax.jit(lambda state: update(context, state, teachers, batch, draws, EVERYTHING)[2]['generator'])
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(step(state))])

  expected, actual = gradients('float32'), gradients('bfloat16')
  cosine = expected @ actual / np.linalg.norm(expected) / np.linalg.norm(actual)
  assert cosine > 0.995  # 0.988 with a shape encoder in bfloat16
