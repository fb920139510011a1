"""What `set_up` makes is enough for a training loop of one's own."""

import contextlib

import jax
import numpy as np

from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.training.loop import fresh_state, train, train_batches
from dgnet_jax.training.schedules import active_terms
from dgnet_jax.training.setup import set_up
from dgnet_jax.training.step import make_train_step
from dgnet_jax.training.teacher_loop import train_teacher
from tests.tiny_run import frozen, tiny_config


def test_a_loop_of_ones_own_ends_like_the_packages(tmp_path):
  config = tiny_config()
  config.batch_size, config.num_steps = 8, 2
  config = frozen(config)
  setup = set_up(config, tmp_path / 'own')
  teachers = setup.placement.put(train_teacher(config, setup.index, tmp_path / 'own', source=setup.source))
  state = fresh_state(setup.context, setup.placement)
  take_step = make_train_step(setup.context, setup.mesh)
  with contextlib.closing(
    device_batches(train_batches(config, setup.index, setup.source, start=0), setup.mesh)
  ) as batches:
    for step in range(config.num_steps):
      active = active_terms(config.ramps, step, config.optimizer.generator_steps)
      state, _ = take_step(state, teachers, next(batches), active)
  expected = train(config, tmp_path / 'package')
  jax.tree.map(np.testing.assert_array_equal, state.reid, expected.reid)
  jax.tree.map(np.testing.assert_array_equal, state.generator, expected.generator)
