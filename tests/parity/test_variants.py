"""Other architectures and losses than the released configuration's against the release, float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config import ConfigError, validate
from dgnet_jax.interop import torch_names
from dgnet_jax.losses.adversarial import adversarial_losses, scores_and_penalty
from dgnet_jax.models.build import make_networks
from dgnet_jax.models.layers import enlarge
from dgnet_jax.objectives import Draws
from dgnet_jax.optimizers import make_optimizers
from dgnet_jax.schedules import active_terms, loss_weights
from tests.parity import goldens
from tests.parity.iteration import NETWORKS, compiled_update, golden_losses, initial_state

RTOL = 1e-8
# Of the largest gradient: a bias in front of a normalisation has a zero gradient, which rounding leaves (fact 37).
ZERO = 1e-13
CRASHES = {'gen/dec_slim', 'gen/mlp_norm_bn', 'gen/mlp_norm_ln', 'dis/norm_sn', 'dis/wgan_64x40'}
GENERATORS = ('basic', 'dec_series', 'dec_parallel', 'non_local1', 'mlp_norm_in', 'pad_zero', 'tanh_true') + (
  *('activ_relu', 'activ_selu', 'activ_tanh', 'activ_prelu'),
)
DISCRIMINATORS = ('lsgan', 'nsgan', 'non_local1', 'non_local2', 'norm_in', 'norm_bn', 'norm_ln', 'wgan_256x128')
REID = ('AB_stride1_max', 'AB_stride1_avg', 'AB_stride2_max', 'AB_stride2_avg', 'AB_norm_true', 'PCB_dropout0') + (
  *('ft_net_norm0_max', 'ft_net_norm0_avg', 'ft_net_norm1_max', 'ft_net_norm1_avg'),
)
STEPS = ('normal', 'normal_norm_id', 'PCB', 'edge', 'nsgan_parallel_nonlocal', 'series_mlpin_avg_stride2')
NOT_OURS = {'id/ft_net_dense', 'id/ft_net_middle'}  # classifiers without an appearance code: teachers at most


class Variant:
  """One golden with its config."""

  def __init__(self, folder, name):
    self.folder, self.name = folder, name
    self.golden = goldens.load_json(folder, 'variants')[name]
    self.recipe = goldens.load_recipe(folder)
    self.meta = goldens.variant_meta(folder, self.golden)
    self.config = goldens.config_of(self.meta)
    if 'image_shape' in self.golden:
      self.config.data.image_size_hw = tuple(self.golden['image_shape'][2:])
    self.num_identities = self.golden['ID_class']
    self.networks = make_networks(self.config, self.num_identities)
    self.worst = 0.0

  def variables(self, network):
    seed = self.meta['master_seed']
    return goldens.variables_of(self.folder, network, self.config, seed, self.num_identities)

  def image(self, offset, shape=None):
    shape = shape or (self.meta['batch'], 3, self.meta['height'], self.meta['width'])
    return goldens.images(self.recipe, shape, self.meta['master_seed'] + offset)

  def check(self, key, actual, expected):
    """A number, or an array against its fingerprint under the name `key`."""
    if np.ndim(expected):
      self.check_fingerprint(key, actual, expected)
    else:
      self._note(abs(float(actual) - expected) / abs(expected), key)

  def check_fingerprint(self, key, actual, expected, atol=0.0):
    error = np.max(np.abs(np.subtract(self.recipe.fingerprint(key, actual), expected)))
    self._note(max(error - atol, 0) / max(expected[0], 1e-300), key)

  def check_gradients(self, network, tree, expected):
    entries = [e for e in goldens.ENTRIES[network](self.config) if e.path[0] == 'params']
    ours = torch_names.to_torch({'params': jax.device_get(tree)}, entries)
    largest = max(norm for norm, _ in expected.values())
    for name, pair in expected.items():
      self.check_fingerprint(name, ours[name], pair, atol=ZERO * largest)
    return ours

  def _note(self, error, key):
    self.worst = max(self.worst, error)
    assert error < RTOL, (self.name, key, error)


@pytest.fixture
def variant(request, parity_dir, record_property):
  """The golden named by the parameter; the test's report holds the largest relative error."""
  variant = Variant(parity_dir, request.param)
  yield variant
  record_property('largest_relative_error', variant.worst)
  print(f'{variant.name}: largest relative error {variant.worst:.1e}')


def each(kind, names):
  return pytest.mark.parametrize('variant', [f'{kind}/{name}' for name in names], indirect=True, ids=names)


def test_every_variant_is_named(parity_dir):
  tested = {
    f'{kind}/{name}'
    for kind, names in (('gen', GENERATORS), ('dis', DISCRIMINATORS), ('id', REID), ('step', STEPS))
    for name in names
  }
  assert tested | CRASHES | NOT_OURS == goldens.load_json(parity_dir, 'variants').keys()


@pytest.mark.parametrize(
  ('field', 'value'),
  [
    ('decoder.block', 'slim'),
    ('decoder.mlp_norm', 'batch'),
    ('decoder.mlp_norm', 'layer'),
    ('discriminator.norm', 'spectral'),
  ],
)
def test_what_crashes_in_the_release_is_refused(field, value):
  config = goldens.default_config()
  section, leaf = field.split('.')
  config[section][leaf] = value
  with pytest.raises(ConfigError, match=f'{field}.*{value}.*the release crashes on it'):
    validate(config)


@pytest.mark.usefixtures('float64')
class TestGenerator:
  @each('gen', GENERATORS)
  def test_forward_and_gradients(self, variant):
    golden, recipe = variant.golden, variant.recipe
    params = jax.tree.map(jnp.asarray, variant.variables('gen')['params'])
    seed = variant.meta['master_seed']
    code = recipe.make_array('f#probe', (variant.meta['batch'], variant.networks.code_size), seed + 90)
    probe = goldens.nhwc(recipe.make_array('y#probe', variant.image(50).transpose(0, 3, 1, 2).shape, seed + 91))

    def objective(params, image, code, probe):
      structure = variant.networks.encode_structure(params, image)
      made = variant.networks.decode(params, structure, code)
      return (made * probe).sum(), (structure, made)

    step = jax.jit(jax.value_and_grad(objective, has_aux=True))
    (_, (structure, made)), gradients = step(params, variant.image(50), code, probe)
    variant.check('s', goldens.nchw(structure), golden['s'])
    variant.check('y', goldens.nchw(made), golden['y'])
    expected = golden['grad_of_sum_y_times_yprobe']
    assert variant.check_gradients('gen', gradients, expected).keys() == expected.keys()


@pytest.mark.usefixtures('float64')
class TestDiscriminator:
  @each('dis', DISCRIMINATORS)
  def test_losses_and_gradients(self, variant):
    golden, networks = variant.golden, variant.networks
    params = jax.tree.map(jnp.asarray, variant.variables('dis')['params'])
    fake, real = (variant.image(offset, golden['image_shape']) for offset in (70, 71))
    settings = variant.config.discriminator
    losses = adversarial_losses(settings.gan_type, len(real))

    def objective(params, fake, real):
      fake_scores = networks.discriminate(params, fake)
      judged = [scores_and_penalty(score_fn, real, losses.penalized) for score_fn in networks.score_fns(params)]
      penalty = settings.r1_weight * sum(penalty for _, penalty in judged).mean()
      real_scores = [scores for scores, _ in judged]
      return losses.discriminator(real_scores, fake_scores).mean() + penalty, (penalty, real_scores)

    (loss, (penalty, real_scores)), gradients = jax.jit(jax.value_and_grad(objective, has_aux=True))(params, fake, real)
    variant.check('dis_loss', loss, golden['dis_loss'])
    variant.check('reg', penalty, golden['reg'])
    for score, shape in zip(real_scores, golden['out_shapes'], strict=True):
      assert np.size(score) == np.prod(shape)
    expected = golden['dis_loss_grads']
    assert variant.check_gradients('dis', gradients, expected).keys() == expected.keys()

    def generator_objective(fake, params):
      return losses.generator(networks.discriminate(params, fake)).mean()

    loss, gradient = jax.jit(jax.value_and_grad(generator_objective))(jnp.asarray(fake), params)
    variant.check('gen_loss', loss, golden['gen_loss'])
    norm = golden['gen_loss_grad_fake'][0]
    variant.check('norm of the gradient of the picture', np.linalg.norm(gradient), norm)


@pytest.mark.usefixtures('float64')
class TestReid:
  @each('id', REID)
  def test_outputs(self, variant):
    networks = variant.networks
    variables = variant.variables('id')
    image = variant.image(50)
    arguments = variables['params'], variables['batch_stats']
    output = jax.jit(networks.encode_appearance)(*arguments, image)
    self.check(variant, output, variant.golden['eval'])
    enlarged = enlarge(image, networks.reid_scale)[:, None]
    output, _ = jax.jit(networks.encode_appearance_train)(*arguments, enlarged)
    self.check(variant, jax.tree.map(lambda x: x[:, 0], output), variant.golden['train'])

  def check(self, variant, output, expected):
    logits = output.primary_logits
    heads = {'AB': [logits, output.fine_logits], 'normal': [logits], 'PCB': list(jnp.moveaxis(logits, 1, 0))}
    heads = heads[variant.config.reid.style]
    ours = {'f': output.code} | ({'p': logits} if len(heads) == 1 else {f'p_{i}': p for i, p in enumerate(heads)})
    assert ours.keys() == expected.keys()
    for key, value in expected.items():
      assert list(ours[key].shape) == value['shape']
      variant.check_fingerprint(key, ours[key], value['fp'])
      if 'value' in value:
        assert goldens.relative_error(ours[key], value['value']) < RTOL


@pytest.mark.usefixtures('float64')
class TestStep:
  @each('step', STEPS)
  def test_losses_and_gradients(self, variant):
    golden, meta, config = variant.golden, variant.meta, variant.config
    step = meta['iteration0']
    state, teachers = initial_state(variant.folder, config, meta, make_optimizers(config), variant.num_identities)
    batch = goldens.pair_batch(variant.recipe, meta, 0)
    draws = Draws(jnp.asarray(meta['rand'][0] <= config.structure_encoder_update_prob))
    update = compiled_update(config, variant.num_identities)
    _, metrics, gradients = update(state, teachers, batch, draws, active_terms(config, step))
    for name, value in golden_losses(metrics, loss_weights(config, step)).items():
      if golden['losses'][name]:
        variant.check(name, value, golden['losses'][name])
      else:
        assert value == 0, name
    for network, ours in NETWORKS.items():
      every_7th = golden['grads_every_7th'][network]
      named = variant.check_gradients(network, gradients[ours], every_7th)
      norm = np.sqrt(sum(np.sum(x**2) for x in named.values()))
      variant.check(f'gradient norm of {network}', norm, golden['grad_norm'][network])
