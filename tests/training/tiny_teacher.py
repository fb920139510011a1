"""A teacher that trains in seconds, on eight identities."""

import dataclasses

import jax
import numpy as np

from dgnet_jax.config.defaults import default_config
from tests.tiny_run import frozen

IMAGES = tuple(f'{person:04}_c{camera}s1_000{camera}51_00.jpg' for person in range(1, 9) for camera in (1, 2))
NUM_STEPS = 6  # 3 epochs of 2 steps


def teacher_config():
  config = default_config()
  config.data.update(loader='memory', image_size_hw=(16, 8))
  config.reid.input_scale = 1
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, batch_size=8)
  config.teacher.update(num_epochs=3, warmup_epochs=1, decay_epoch=2)
  config.log.update(progress_every_steps=2, checkpoint_every_steps=2)
  return frozen(config)


def with_teacher(config, **fields):
  """Returns a copy of a config with other fields of `teacher`."""
  return dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, **fields))


def assert_equal(one, other):
  assert jax.tree.structure(one) == jax.tree.structure(other)
  jax.tree.map(np.testing.assert_array_equal, one, other)
