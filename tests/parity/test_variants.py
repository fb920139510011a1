"""Architectures and losses other than the released configuration's, against the release, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.validation import validate
from dgnet_jax.errors import ConfigError
from dgnet_jax.losses.adversarial import adversarial_losses, scores_and_penalty
from dgnet_jax.pixels import enlarge
from tests.parity import goldens
from tests.parity.test_step_variants import STEPS
from tests.parity.variants import each

CRASHES = {'gen/dec_slim', 'gen/mlp_norm_bn', 'gen/mlp_norm_ln', 'dis/norm_sn', 'dis/wgan_64x40'}
GENERATORS = ('basic', 'dec_series', 'dec_parallel', 'non_local1', 'mlp_norm_in', 'pad_zero', 'tanh_true') + (
  *('activ_relu', 'activ_selu', 'activ_tanh', 'activ_prelu'),
)
GENERATORS_WITH_GRADIENTS = ('dec_series', 'dec_parallel', 'non_local1', 'mlp_norm_in', 'activ_prelu')
DISCRIMINATORS = ('lsgan', 'nsgan', 'non_local1', 'non_local2', 'norm_in', 'norm_bn', 'norm_ln', 'wgan_256x128')
REID = ('AB_stride1_max', 'AB_stride1_avg', 'AB_stride2_max', 'AB_stride2_avg', 'AB_norm_true', 'PCB_dropout0') + (
  *('ft_net_norm0_max', 'ft_net_norm0_avg', 'ft_net_norm1_max', 'ft_net_norm1_avg'),
)
NOT_OURS = {'id/ft_net_dense', 'id/ft_net_middle'}  # classifiers without an appearance code


def test_every_variant_is_covered(parity_dir):
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
def test_options_that_crash_the_release_are_rejected(field, value):
  config = goldens.default_config()
  section, leaf = field.split('.')
  config[section][leaf] = value
  with pytest.raises(ConfigError, match=f'{field}.*{value}.*the release crashes on it'):
    validate(config)


@pytest.mark.long
@pytest.mark.usefixtures('x64')
class TestGenerator:
  @each('gen', GENERATORS)
  def test_forward_and_gradients(self, variant):
    """Compares gradients unless only a pointwise function differs: compiling them takes most of the time."""
    golden, recipe = variant.golden, variant.recipe
    params = jax.tree.map(jnp.asarray, variant.variables('gen')['params'])
    seed = variant.meta['master_seed']
    code = recipe.make_array('f#probe', (variant.meta['batch'], variant.networks.code_size), seed + 90)
    probe = goldens.nhwc(recipe.make_array('y#probe', goldens.nchw(variant.image(50)).shape, seed + 91))

    def objective(params, image, code, probe):
      structure = variant.networks.encode_structure(params, image)
      image = variant.networks.decode(params, structure, code)
      return (image * probe).sum(), (structure, image)

    with_gradients = variant.name.removeprefix('gen/') in GENERATORS_WITH_GRADIENTS
    function = jax.value_and_grad(objective, has_aux=True) if with_gradients else lambda *x: (objective(*x), None)
    (_, (structure, image)), gradients = jax.jit(function)(params, variant.image(50), code, probe)
    variant.check('s', goldens.nchw(structure), golden['s'])
    variant.check('y', goldens.nchw(image), golden['y'])
    if with_gradients:
      expected = golden['grad_of_sum_y_times_yprobe']
      assert variant.check_gradients('gen', gradients, expected).keys() == expected.keys()


@pytest.mark.long
@pytest.mark.usefixtures('x64')
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
      by_scale = [scores_and_penalty(score_fn, real, losses.score_transform) for score_fn in networks.score_fns(params)]
      penalty = settings.r1_weight * sum(penalty for _, penalty in by_scale).mean()
      real_scores = [scores for scores, _ in by_scale]
      return losses.discriminator(real_scores, fake_scores).mean() + penalty, (penalty, real_scores)

    def generator_objective(fake, params):
      return losses.generator(networks.discriminate(params, fake)).mean()

    def both_objectives(params, fake, real):
      discriminator = jax.value_and_grad(objective, has_aux=True)(params, fake, real)
      return discriminator, jax.value_and_grad(generator_objective)(fake, params)

    ((loss, (penalty, scores)), gradients), (generator_loss, to_fake) = jax.jit(both_objectives)(params, fake, real)
    variant.check('dis_loss', loss, golden['dis_loss'])
    variant.check('reg', penalty, golden['reg'])
    assert [np.size(score) for score in scores] == [np.prod(shape) for shape in golden['out_shapes']]
    expected = golden['dis_loss_grads']
    assert variant.check_gradients('dis', gradients, expected).keys() == expected.keys()
    variant.check('gen_loss', generator_loss, golden['gen_loss'])
    variant.check('gradient of the image', np.linalg.norm(to_fake), golden['gen_loss_grad_fake'][0])


@pytest.mark.long
@pytest.mark.usefixtures('x64')
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
        variant.check_error(goldens.relative_error(ours[key], value['value']), key)
