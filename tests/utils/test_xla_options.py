"""XLA compiler options: this version of XLA knows them, and the training steps use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training import step, teacher_step
from dgnet_jax.training.optimizers import coupled_muon, make_teacher_optimizer
from dgnet_jax.utils import xla_options
from dgnet_jax.utils.xla_options import CONVOLUTIONS, accepted_options
from tests.tiny_run import frozen, tiny_config


@pytest.fixture(params=['CONVOLUTIONS', 'INITIALIZATION'])
def options(request, monkeypatch):
  monkeypatch.setattr(xla_options, '_accepted', {})
  return getattr(xla_options, request.param)


def test_installed_xla_accepts_the_options(options):
  assert accepted_options(options) == (options if jax.default_backend() == 'cpu' else {})


def test_unknown_options_leave_the_defaults(options):
  assert accepted_options({'xla_cpu_nonesuch': '1'}) == {}
  assert accepted_options(dict.fromkeys(options, 'nonesuch')) == {}


def test_xla_flags_of_the_user_win(options, monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', f'--{next(iter(options))}=')
  assert accepted_options(options) == {}


def test_kernel_gradients_do_not_use_ynnpack():
  if jax.default_backend() != 'cpu':
    pytest.skip('YNNPACK belongs to the CPU backend: JAX_PLATFORMS=cpu')

  def total(kernel):
    dimensions = jax.lax.conv_dimension_numbers(images.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
    return (jax.lax.conv_general_dilated(images, kernel, (1, 1), 'VALID', dimension_numbers=dimensions) ** 2).sum()

  images, kernel = jnp.zeros((8, 34, 18, 16)), jnp.zeros((3, 3, 16, 32))

  def program(options):
    return jax.jit(jax.grad(total), compiler_options=options).lower(kernel).compile().as_text()

  if '__ynn_fusion' not in program({}):
    pytest.skip('this version of jaxlib has no such program for YNNPACK')  # 0.10.0
  assert '__ynn_fusion' not in program(CONVOLUTIONS)


def test_updates_repeat_to_the_bit():
  # Muon's matrix products on several threads of YNNPACK gave 30 different results; a single thread proves nothing.
  optimizer = coupled_muon(lambda step: 1e-3, multiplier=6.0, betas=(0.5, 0.999), weight_decay=0.0)
  kernel = {'kernel': jax.random.normal(jax.random.key(0), (3, 3, 96, 48))}
  update = jax.jit(optimizer.update, compiler_options=accepted_options(CONVOLUTIONS))
  state = optimizer.init(kernel)
  assert len({np.asarray(update(kernel, state, kernel)[0]['kernel']).tobytes() for _ in range(100)}) == 1


def _train_step(config):
  return step.make_train_step(step.make_step_context(config, 4), make_mesh())


def _teacher_step(config):
  network, optimizer = make_teacher_network(config, 4), make_teacher_optimizer(config.teacher, config.optimizer, 1)
  return teacher_step.make_teacher_step(network, optimizer, config, make_mesh())


@pytest.mark.parametrize(('module', 'make'), [(step, _train_step), (teacher_step, _teacher_step)])
def test_training_steps_are_compiled_with_the_options(module, make, monkeypatch):
  jitted = {}
  monkeypatch.setattr(module, 'accepted_options', lambda options: options | {'mine': '1'})
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: jitted.setdefault(function.__name__, settings))
  make(frozen(tiny_config()))
  (settings,) = (settings for name, settings in jitted.items() if name.endswith('_step'))
  assert settings['compiler_options'] == CONVOLUTIONS | {'mine': '1'}


def test_networks_are_compiled_with_the_options_once(monkeypatch):
  compiled = []
  jit = jax.jit
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: compiled.append(settings) or jit(function, **settings))

  @xla_options.jit_network
  def double(x):
    """Doubles."""
    return 2 * x

  assert not compiled and double.__doc__ == 'Doubles.'
  assert double(3) == 6 and double(jnp.ones(2)).shape == (2,)
  (settings,) = (settings for settings in compiled if 'static_argnums' in settings)
  assert settings['compiler_options'] == accepted_options(CONVOLUTIONS)
