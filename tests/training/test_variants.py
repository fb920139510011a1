"""A full iteration with every architecture and loss option, and what the goldens do not cover of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import validate
from dgnet_jax.inference.functions import embedding
from dgnet_jax.losses.adversarial import adversarial_losses
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.training.forward import Draws
from dgnet_jax.training.objectives import discriminator_terms
from dgnet_jax.training.soft_labels import soft_labels
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import make_step_context, update
from dgnet_jax.types import ActiveTerms, PairBatch, Teacher

NUM_IDENTITIES = 5
PCB = {'reid.style': 'PCB', 'ramps.teaching.maximum': 0.0}
# Tracing an iteration takes seconds, so each entry combines several independent options.
OPTIONS = (
  {
    'discriminator.gan_type': 'nsgan',
    'decoder.block': 'series',
    'decoder.mlp_norm': 'instance',
    'generator.activation': 'prelu',
    'reid.last_stride': 2,
  },
  {
    'discriminator.gan_type': 'wgan',
    'data.image_size_hw': (64, 64),
    'decoder.block': 'parallel',
    'generator.padding': 'zero',
    'teaching.label_style': 'uniform',
  },
  {
    'decoder.non_local': 1,
    'discriminator.non_local': 2,
    'generator.non_local_residual': True,
    'structure_encoder.tanh': True,
    'teaching.label_style': 'argmax',
  },
  {
    'discriminator.norm': 'instance',
    'discriminator.activation': 'selu',
    'discriminator.padding': 'zero',
    'reid.style': 'normal',
    'reid.normalize_code': True,
    'teaching.label_style': 'donors',
  },
  {'discriminator.norm': 'layer', 'structure_encoder.input': 'edge', 'teaching.label_style': 'appearance'},
  PCB | {'discriminator.norm': 'batch', 'reid.pool': 'avg'},
  {'reid.backbone': 'resnet_ibn_a', 'reid.pool': 'gem', 'reid.neck': 'bnneck', 'teacher.neck': 'bnneck'},
  {'reid.backbone': 'osnet', 'reid.stage_sizes': (1, 1, 1), 'teacher.backbone': 'resnet_ibn_a', 'teacher.pool': 'gem'},
)


def tiny_config(options):
  config = default_config()
  config.batch_size = 2
  config.data.update(layout='synthetic', image_size_hw=(32, 16))
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1, 1, 2))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.discriminator.update(width=2, num_scales=2, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, num_parts=2, input_scale=1)
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8)
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=0.5, initial=0.5)
  for field, value in options.items():
    loading.set_field(config, field, value)
  if not config.ramps.teaching.maximum:
    config.ramps.teaching.initial = 0.0
  return validate(config)


def make_step(config):
  """Returns a function without arguments that performs one iteration."""
  context = make_step_context(config, NUM_IDENTITIES)
  height, width = config.data.image_size_hw

  def step():
    state = create_train_state(context.networks, context.optimizers, 0)
    teachers = [Teacher(*context.teacher_network.init(jax.random.key(0)))]
    images = jax.random.normal(jax.random.key(1), (4, 2, 2, height, width, 3))
    batch = PairBatch(*images, identity=jnp.array([[0, 1], [2, 3]]))
    draws = Draws(jnp.asarray(False), *jax.random.split(jax.random.key(2), 4))
    active = ActiveTerms(codes=True, cycle=True, teaching=config.ramps.teaching.maximum > 0)
    after, metrics, gradients = update(context, state, teachers, batch, draws, active)
    return state.replace(rng=0), after.replace(rng=0), metrics, gradients

  return step


@pytest.mark.long
@pytest.mark.parametrize('options', OPTIONS, ids=lambda options: ' '.join(map(str, options.values())))
def test_iteration_keeps_shapes_and_structure(options):
  before, after, metrics, gradients = jax.eval_shape(make_step(tiny_config(options)))
  assert jax.tree.structure(before) == jax.tree.structure(after)
  for name, gradient in gradients.items():
    assert jax.tree.structure(gradient) == jax.tree.structure(getattr(before, name).params)
  assert ('fine_teaching' in metrics) == ('reid.style' not in options)


@pytest.mark.long
def test_discriminator_batch_norm_treats_streams_separately():
  config = tiny_config({'discriminator.norm': 'batch', 'discriminator.num_scales': 1})
  networks, losses = make_networks(config, NUM_IDENTITIES), adversarial_losses('nsgan', 3)
  params = networks.init_discriminator(jax.random.key(0))
  real, fake = jax.random.normal(jax.random.key(1), (2, 3, 2, 32, 16, 3))
  terms = jax.jit(functools.partial(discriminator_terms, networks, losses, r1_weight=0.5))

  together = terms(params, real, fake)
  twice = [terms(params, *(jnp.stack([x[:, i]] * 2, axis=1) for x in (real, fake))) for i in range(2)]
  for name, value in together.items():
    np.testing.assert_allclose(value, jnp.stack([alone[name][:, 0] for alone in twice], axis=1), rtol=1e-5)
  mixed = losses.discriminator(*(networks.discriminate(params, x.reshape(-1, 32, 16, 3)) for x in (real, fake)))
  assert not np.allclose(together['discriminator'], mixed.reshape(3, 2), rtol=1e-4)


def test_edge_noise_depends_only_on_its_key():
  config = tiny_config({'structure_encoder.input': 'edge'})
  networks = make_networks(config, NUM_IDENTITIES)
  params = networks.init_generator(jax.random.key(0))
  encode = jax.jit(functools.partial(networks.encode_structure, params))
  image = jax.random.normal(jax.random.key(1), (1, 32, 16, 3))
  clean, again = encode(image), encode(image)
  np.testing.assert_array_equal(clean, again)
  noisy = encode(image, jax.random.key(2))
  assert not np.allclose(noisy, clean)
  assert not np.allclose(noisy, encode(image, jax.random.key(3)))


@pytest.mark.long
def test_soft_labels_average_the_teachers_in_each_stream():
  config = tiny_config({})
  network = make_teacher_network(config, NUM_IDENTITIES)
  teachers = [Teacher(*network.init(jax.random.key(i))) for i in range(2)]
  # Fresh classifiers predict nearly uniform probabilities; larger weights make them differ.
  teachers = [t.replace(params=jax.tree.map(lambda x: 3 * x, t.params)) for t in teachers]
  image, identity = jax.random.normal(jax.random.key(3), (3, 2, 32, 16, 3)), jnp.array([[0, 1], [2, 3], [4, 0]])

  def label(teachers, style='soft'):
    return soft_labels(network, teachers, image, identity, style=style, norm='batch', dropout_key=None)

  first, second = (np.asarray(label([teacher])) for teacher in teachers)
  assert first.shape == (3, 2, NUM_IDENTITIES)
  assert not np.allclose(first, second, rtol=1e-3)
  np.testing.assert_allclose(label(teachers), (first + second) / 2, rtol=1e-5)
  appearance = label(teachers, style='appearance')
  np.testing.assert_array_equal(appearance.argmax(-1), identity)
  donors = np.asarray(label(teachers, style='donors')) > 0
  expected = jax.nn.one_hot(identity, NUM_IDENTITIES) + jax.nn.one_hot(identity[:, ::-1], NUM_IDENTITIES)
  np.testing.assert_array_equal(donors, expected > 0)


@pytest.mark.parametrize(('options', 'pieces'), [({}, 2), ({'reid.style': 'normal'}, 1), (PCB, 3)])
def test_embedding_has_one_normalised_piece_per_head(options, pieces):
  networks = make_networks(tiny_config(options | {'reid.num_parts': 3}), NUM_IDENTITIES)
  params, stats = networks.init_reid(jax.random.key(0))
  image = jax.random.normal(jax.random.key(1), (3, 32, 16, 3))
  embedded = jax.jit(functools.partial(embedding, networks))(params, stats, image)
  assert embedded.shape == (3, pieces * 8)
  np.testing.assert_allclose(jnp.linalg.norm(embedded.reshape(3, pieces, 8), axis=-1), 1.0, rtol=1e-5)
