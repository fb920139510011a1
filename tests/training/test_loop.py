"""The training loop on tiny networks: resume, interruption, losses that are not finite, devices."""

import contextlib
import json
import logging
import os
import re
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training import loop as train_module
from dgnet_jax.training.loop import train
from dgnet_jax.training.objectives import Draws
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.schedules import phase_boundaries
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import make_train_step, update
from dgnet_jax.training.teacher_loop import load_teacher
from dgnet_jax.types import ActiveTerms, PairBatch, PixelBatch, Teacher

EVERYTHING = ActiveTerms(codes=True, cycle=True, teaching=True)


def tiny_config(num_steps=4):
  """Both phases within four steps, on networks that compile in seconds."""
  config = default_config()
  config.batch_size = 8
  config.num_steps = num_steps
  config.data.layout = 'synthetic'
  config.data.loader = 'memory'
  config.data.image_size_hw = (32, 16)
  config.data.synthetic.update(
    num_train_identities=6,
    num_test_identities=2,
    images_per_identity=4,
    num_distractors=1,
    num_junk=1,
    image_size_hw=(32, 16),
  )
  config.augment.crop_padding = 2
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1,))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.discriminator.update(width=4, num_scales=1, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, input_scale=1, num_parts=2, batch_norm_group=4)
  config.teacher.update(
    stage_sizes=(1, 1), width=4, head_width=8, batch_size=8, num_epochs=1, warmup_epochs=0, decay_epoch=1
  )
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=0.5)
  config.log.update(progress_every_steps=1, images_every_steps=100, checkpoint_every_steps=2)
  return config


@contextlib.contextmanager
def _messages(messages):
  """Collects all that JAX logs meanwhile."""
  handler = logging.Handler()
  handler.emit = lambda record: messages.append(record.getMessage())
  logger = logging.getLogger('jax')
  logger.addHandler(handler)
  try:
    yield
  finally:
    logger.removeHandler(handler)


@pytest.fixture(scope='module')
def logged():
  """What JAX logs while `work` trains."""
  return []


@pytest.fixture(scope='module')
def work(tmp_path_factory, logged):
  """A folder with data and a teacher, a run of four steps in it, and its last state."""
  folder = tmp_path_factory.mktemp('train')
  config = tiny_config()
  config.data.root = str(folder / 'data')
  with jax.log_compiles(), _messages(logged):
    state = train(config, folder / 'unbroken')
  config.teacher.checkpoint = str(folder / 'unbroken' / 'teacher')
  return folder, config, state


def assert_same(one, other):
  one, other = (jax.tree.map(lambda x: x, tree.replace(rng=jax.random.key_data(tree.rng))) for tree in (one, other))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_resumed_run_equals_unbroken_one(work, lines):
  folder, config, unbroken = work
  half = config.copy_and_resolve_references()
  half.num_steps = 2
  train(half, folder / 'resumed')
  lines.clear()
  assert_same(train(config, folder / 'resumed'), unbroken)
  assert any('going on from step 2' in line for line in lines)
  steps = [json.loads(line)['step'] for line in (folder / 'resumed' / 'metrics.jsonl').read_text().splitlines()]
  assert steps == [1, 2, 3, 4]


def test_signal_saves_and_the_same_command_goes_on(work):
  folder, config, unbroken = work

  def interrupt(line):
    if line.startswith('3/4'):
      os.kill(os.getpid(), signal.SIGTERM)

  with pytest.raises(Interrupted, match='stopped at step 3'):
    train(config, folder / 'stopped')
  assert_same(train(config, folder / 'stopped'), unbroken)


def test_loss_that_is_not_finite_names_step_term_and_checkpoint(work, monkeypatch):
  folder, config, _ = work
  make = train_module.make_train_step

  def broken(*args):
    step_fn = make(*args)

    def step(state, *rest):
      done = int(state.step)
      state, metrics = step_fn(state, *rest)
      return state, metrics | ({'adversarial': metrics['adversarial'] * np.nan} if done == 2 else {})

    return step

  monkeypatch.setattr(train_module, 'make_train_step', broken)
  with pytest.raises(UserError, match='step 2: adversarial not finite; the last good checkpoint is step 2'):
    train(config, folder / 'broken')


def test_the_step_is_compiled_once_for_each_phase(work, logged):
  _, config, _ = work
  phases = len(phase_boundaries(config.ramps, config.num_steps)) + 1
  assert sum('Compiling jit(train_step)' in line for line in logged) == phases == 2


def test_the_re_id_network_can_start_from_the_teacher(work, lines):
  folder, config, _ = work
  config = config.copy_and_resolve_references()
  config.num_steps = 0
  config.reid.pretrained = 'teacher'
  lines.clear()
  state = train(config, folder / 'from_teacher')
  teacher = load_teacher(config, open_dataset(config.data, folder), config.teacher.checkpoint)
  for part in ('params', 'batch_stats'):
    jax.tree.map(
      np.testing.assert_array_equal, getattr(state.reid, part)['backbone'], getattr(teacher, part)['backbone']
    )
  assert "reid: backbone from the teacher's" in lines


def test_images_and_settings_are_written(work):
  folder, _, _ = work
  assert list((folder / 'unbroken' / 'images').glob('*.png'))
  assert (folder / 'unbroken' / 'metrics.jsonl').read_text().count('loss/cycle') == 2


def test_devices_exchange_sums_and_never_images(work):
  _, config, state = work
  if jax.device_count() < 2:
    pytest.skip('needs virtual devices: XLA_FLAGS=--xla_force_host_platform_device_count=8')
  networks, teacher_network = make_networks(config, 6), make_teacher_network(config, 6)
  mesh = make_mesh()
  step_fn = make_train_step(networks, teacher_network, make_optimizers(config.optimizer), config, mesh)
  teachers = jax.device_put((Teacher(*teacher_network.init(jax.random.key(1))),), replicated(mesh))
  image = jax.ShapeDtypeStruct((8, 2, *config.data.image_size_hw, 3), np.uint8, sharding=batch_sharding(mesh))
  pixels = PixelBatch(image, image, jax.ShapeDtypeStruct((8, 2), np.int32, sharding=batch_sharding(mesh)))
  program = step_fn.lower(state, teachers, pixels, EVERYTHING).compile().as_text()
  exchanges = set(re.findall(r'all-(?:reduce|gather|to-all)|collective-permute|reduce-scatter', program))
  assert exchanges == {'all-reduce'}


def random_batch(config):
  key = jax.random.key(3)
  shape = (config.batch_size, 2, *config.data.image_size_hw, 3)
  keys = jax.random.split(key, 5)
  images = [jax.random.normal(k, shape, jnp.float64) for k in keys[:4]]
  return PairBatch(*images, identity=jax.random.randint(keys[4], shape[:2], 0, 6))


def test_one_and_eight_devices_agree():
  """Same step, float64."""
  if jax.device_count() < 2:
    pytest.skip('needs virtual devices: XLA_FLAGS=--xla_force_host_platform_device_count=8')
  with jax.enable_x64(True):
    config = tiny_config()
    config.batch_size = 8
    config.reid.batch_norm_group = 1
    networks, teacher_network = make_networks(config, 6), make_teacher_network(config, 6)
    optimizers = make_optimizers(config.optimizer)
    state = create_train_state(networks, optimizers, 0)
    state = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, state)
    teachers = (Teacher(*teacher_network.init(jax.random.key(1))),)
    draws = Draws(jnp.asarray(True))

    def step(state, batch):
      after, metrics, _ = update(
        networks, teacher_network, optimizers, config, state, teachers, batch, draws, EVERYTHING
      )
      return after.replace(rng=jax.random.key_data(after.rng)), metrics

    results = []
    for devices in (jax.devices()[:1], jax.devices()):
      mesh = make_mesh(devices)
      batch = jax.device_put(random_batch(config), batch_sharding(mesh))
      jitted = jax.jit(step, out_shardings=replicated(mesh))
      results.append(jax.device_get(jitted(jax.device_put(state, replicated(mesh)), batch)))

    def close(one, many):
      np.testing.assert_allclose(many, one, rtol=1e-7, atol=1e-9)

    metrics_one, metrics_many = results[0][1], results[1][1]
    jax.tree.map(close, metrics_one, metrics_many)
    jax.tree.map(close, results[0][0].discriminator.params, results[1][0].discriminator.params)
    jax.tree.map(close, results[0][0].reid, results[1][0].reid)
