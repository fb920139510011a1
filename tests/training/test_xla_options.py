"""XLA compiler options: this version of XLA knows them, and the training steps use them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training import step, teacher_step, xla_options
from dgnet_jax.training.optimizers import coupled_muon, make_teacher_optimizer
from tests.tiny_run import frozen, tiny_config


@pytest.fixture(autouse=True)
def _forget_probe():
  xla_options.compiler_options.cache_clear()
  yield
  xla_options.compiler_options.cache_clear()


def test_installed_xla_accepts_the_options():
  assert xla_options.compiler_options() == (xla_options.CPU_OPTIONS if jax.default_backend() == 'cpu' else {})


@pytest.mark.parametrize('options', [{'xla_cpu_nonesuch': '1'}, dict.fromkeys(xla_options.CPU_OPTIONS, 'nonesuch')])
def test_unknown_options_leave_the_defaults(options, monkeypatch):
  monkeypatch.setattr(xla_options, 'CPU_OPTIONS', options)
  assert xla_options.compiler_options() == {}


def test_xla_flags_of_the_user_win(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_experimental_ynn_fusion_type=')
  assert xla_options.compiler_options() == {}


def test_kernel_gradients_do_not_use_ynnpack():
  if jax.default_backend() != 'cpu':
    pytest.skip('YNNPACK belongs to the CPU backend: JAX_PLATFORMS=cpu')

  def total(kernel):
    dimensions = jax.lax.conv_dimension_numbers(images.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
    return (jax.lax.conv_general_dilated(images, kernel, (1, 1), 'VALID', dimension_numbers=dimensions) ** 2).sum()

  images, kernel = jnp.zeros((8, 34, 18, 16)), jnp.zeros((3, 3, 16, 32))

  def program(options):
    return jax.jit(jax.grad(total), compiler_options=options).lower(kernel).compile().as_text()

  assert '__ynn_fusion' in program({}) and '__ynn_fusion' not in program(xla_options.CPU_OPTIONS)


def test_updates_repeat_to_the_bit():
  # Muon's matrix products on several threads of YNNPACK gave 30 different results; a single thread proves nothing.
  optimizer = coupled_muon(lambda step: 1e-3, multiplier=6.0, betas=(0.5, 0.999), weight_decay=0.0)
  kernel = {'kernel': jax.random.normal(jax.random.key(0), (3, 3, 96, 48))}
  update = jax.jit(optimizer.update, compiler_options=xla_options.compiler_options())
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
  monkeypatch.setattr(module, 'compiler_options', lambda: {'mine': '1'})
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: jitted.setdefault(function.__name__, settings))
  make(frozen(tiny_config()))
  (settings,) = (settings for name, settings in jitted.items() if name.endswith('_step'))
  assert settings['compiler_options'] == {'mine': '1'}
