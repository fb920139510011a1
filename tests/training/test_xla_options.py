"""What XLA is asked for beyond its defaults: that it knows the words, and that the training steps say them."""

import jax
import jax.numpy as jnp
import pytest

from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training import step, teacher_step, xla_options
from dgnet_jax.training.optimizers import make_optimizers, make_teacher_optimizer
from tests.tiny_run import tiny_config


@pytest.fixture(autouse=True)
def _probe_anew():
  xla_options.compiler_options.cache_clear()
  yield
  xla_options.compiler_options.cache_clear()


def test_this_version_knows_the_options():
  assert xla_options.compiler_options() == (xla_options.CPU_OPTIONS if jax.default_backend() == 'cpu' else {})


@pytest.mark.parametrize('options', [{'xla_cpu_nonesuch': '1'}, dict.fromkeys(xla_options.CPU_OPTIONS, 'nonesuch')])
def test_one_that_does_not_is_left_at_its_defaults(options, monkeypatch):
  monkeypatch.setattr(xla_options, 'CPU_OPTIONS', options)
  assert xla_options.compiler_options() == {}


def test_what_the_user_says_in_the_environment_counts(monkeypatch):
  monkeypatch.setenv('XLA_FLAGS', '--xla_cpu_experimental_ynn_fusion_type=')
  assert xla_options.compiler_options() == {}


def test_a_kernel_gradient_is_no_longer_ynnpacks():
  if jax.default_backend() != 'cpu':
    pytest.skip('YNNPACK belongs to the CPU backend: JAX_PLATFORMS=cpu')

  def total(kernel):
    dimensions = jax.lax.conv_dimension_numbers(images.shape, kernel.shape, ('NHWC', 'HWIO', 'NHWC'))
    return (jax.lax.conv_general_dilated(images, kernel, (1, 1), 'VALID', dimension_numbers=dimensions) ** 2).sum()

  images, kernel = jnp.zeros((8, 34, 18, 16)), jnp.zeros((3, 3, 16, 32))

  def program(options):
    return jax.jit(jax.grad(total), compiler_options=options).lower(kernel).compile().as_text()

  assert '__ynn_fusion' in program({}) and '__ynn_fusion' not in program(xla_options.CPU_OPTIONS)


def _joint_step(config):
  networks, teacher = make_networks(config, 4), make_teacher_network(config, 4)
  return step.make_train_step(networks, teacher, make_optimizers(config.optimizer), config, make_mesh())


def _teacher_step(config):
  network = make_teacher_network(config, 4)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=1)
  return teacher_step.make_teacher_step(network, optimizer, config, make_mesh())


@pytest.mark.parametrize(('module', 'make'), [(step, _joint_step), (teacher_step, _teacher_step)])
def test_the_steps_are_compiled_with_them(module, make, monkeypatch):
  jitted = {}
  monkeypatch.setattr(module, 'compiler_options', lambda: {'mine': '1'})
  monkeypatch.setattr(jax, 'jit', lambda function, **settings: jitted.setdefault(function.__name__, settings))
  make(tiny_config())
  (settings,) = (settings for name, settings in jitted.items() if name.endswith('_step'))
  assert settings['compiler_options'] == {'mine': '1'}
