"""One iteration: its random draws, and the terms that it must have."""

import jax
import numpy as np
import pytest

from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training import objectives
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import REID_TERMS, draw_step, make_step_context, make_train_step, update
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.tiny_run import frozen, tiny_config
from tests.training.key_record import key_bytes, record_keys

NUM_IDENTITIES = 4
PHASES = (ActiveTerms(), ActiveTerms(codes=True), ActiveTerms(codes=True, cycle=True, teaching=True))


@pytest.fixture(scope='module')
def context():
  return make_step_context(frozen(tiny_config()), NUM_IDENTITIES)


@pytest.fixture(scope='module')
def state(context):
  return create_train_state(context.networks, context.optimizers, seed=0)


def make_pixels(context):
  images = np.random.default_rng(0).integers(256, size=(2, 2, 2, *context.config.data.image_size_hw, 3), dtype=np.uint8)
  return PixelBatch(*images, np.array([[0, 1], [2, 3]], np.int32))


def iteration_terms(context, state, active):
  """Traces an iteration and returns the names of its metrics."""

  def step(state, pixels):
    teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
    batch, draws = draw_step(context, state, pixels)
    return update(context, state, teachers, batch, draws, active)[1]

  return set(jax.eval_shape(step, state, make_pixels(context)))


@pytest.mark.parametrize('active', PHASES)
def test_metrics_are_the_terms_of_the_phase(context, state, active):
  expected = objectives.term_names(context.networks, active, taught=active.teaching)
  assert iteration_terms(context, state, active) == {*expected, *objectives.DISCRIMINATOR_TERMS, 'total'}


def test_features_are_matched_if_the_term_has_a_weight(state):
  config = tiny_config()
  config.weights.feature_matching = 0.5
  context = make_step_context(frozen(config), NUM_IDENTITIES)
  names = objectives.term_names(context.networks, PHASES[0], taught=False, match_features=True)
  assert 'feature_matching' in names
  assert iteration_terms(context, state, PHASES[0]) == {*names, *objectives.DISCRIMINATOR_TERMS, 'total'}


@pytest.mark.parametrize('active', [*PHASES, ActiveTerms(generator=False, teaching=True)])
def test_metric_losses_are_terms_if_they_have_a_weight(state, active):
  config = tiny_config()
  config.weights.update(triplet=0.5, circle=0.1)
  context = make_step_context(frozen(config), NUM_IDENTITIES)
  metric = ('triplet', 'circle')
  names = objectives.term_names(context.networks, active, taught=active.teaching, metric=metric)
  fine = {f'fine_{name}' for name in metric}
  assert set(metric) < set(names) and fine & set(names) == (fine if active.teaching else set())
  expected = {*names, *objectives.DISCRIMINATOR_TERMS, 'total'} if active.generator else {*names} & {*REID_TERMS}
  assert iteration_terms(context, state, active) == expected


def test_labels_of_real_images_are_smoothed(state):
  """Fresh classifiers are nearly uniform, so the classifiers are made to judge."""
  reid = dict(state.reid.params)
  for head in ('primary_head', 'fine_head'):
    kernel = jax.random.normal(jax.random.key(2), reid[head]['classifier']['kernel'].shape)
    reid[head] = reid[head] | {'classifier': reid[head]['classifier'] | {'kernel': kernel}}
  state = state.replace(reid=state.reid.replace(params=reid))
  metrics = []
  for smoothing in (0.0, 0.2):
    config = tiny_config()
    config.joint, config.reid.label_smoothing = False, smoothing
    context = make_step_context(frozen(config), NUM_IDENTITIES)

    def step(state, pixels, context=context):
      batch, draws = draw_step(context, state, pixels)
      return update(context, state, (), batch, draws, ActiveTerms(teaching=True))[1]

    metrics.append(jax.jit(step)(state, make_pixels(context)))
  assert {name for name, value in metrics[0].items() if not np.allclose(value, metrics[1][name])} == {
    *('identity', 'positive_identity', 'fine_identity')
  }


@pytest.mark.parametrize('missing', ['identity', 'cycle', 'fine_teaching'])
def test_missing_term_raises(context, state, monkeypatch, missing):
  compute = objectives.generator_and_reid_terms

  def without_one(*args):
    terms, batch_stats = compute(*args)
    return {name: term for name, term in terms.items() if name != missing}, batch_stats

  monkeypatch.setattr(objectives, 'generator_and_reid_terms', without_one)
  with pytest.raises(ValueError, match=missing):
    iteration_terms(context, state, PHASES[-1])


@pytest.mark.parametrize(
  'active', [PHASES[-1], ActiveTerms(generator=False, teaching=True)], ids=['full', 'reid_alone']
)
def test_the_whole_state_is_donated(context, state, active):
  mesh = make_mesh()
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
  step = make_train_step(context, mesh)
  lowered = step.lower(jax.device_put(state, replicated(mesh)), teachers, make_pixels(context), active)
  # The memory of every array of the state is that of an array of the new state.
  assert lowered.as_text().count('tf.aliasing_output') == len(jax.tree.leaves(state))


def test_every_key_of_a_step_is_used_once(context, state, monkeypatch):
  used = record_keys(monkeypatch)
  _, draws = draw_step(context, state, make_pixels(context))
  keys = [draws.dropout_key, draws.structure_key, draws.cross_structure_key]
  used += [key_bytes(key) for key in keys]
  assert len(used) > 10 and len(set(used)) == len(used)


def test_draws_are_a_function_of_seed_and_step(context, state):
  pixels = make_pixels(context)
  batch, draws = draw_step(context, state, pixels)
  again, draws_again = draw_step(context, state, pixels)
  later, draws_later = draw_step(context, state.replace(step=state.step + 1), pixels)
  np.testing.assert_array_equal(batch.image, again.image)
  assert key_bytes(draws.dropout_key) == key_bytes(draws_again.dropout_key)
  assert not np.array_equal(batch.image, later.image)
  assert key_bytes(draws.dropout_key) != key_bytes(draws_later.dropout_key)
