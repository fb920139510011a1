"""A run with tiny networks on the built-in pedestrians, as evaluation and what comes after it find one."""

import numpy as np

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.models.build import make_networks
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.state import create_train_state


def tiny_config():
  config = default_config()
  config.batch_size = 2
  config.data.update(layout='synthetic', loader='memory', image_size_hw=(32, 16))
  config.data.synthetic.update(
    num_train_identities=4, num_test_identities=5, images_per_identity=4, num_distractors=2, num_junk=2
  )
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1, 1, 2))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.discriminator.update(width=2, num_scales=1, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, num_parts=2, input_scale=1)
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, batch_size=8)
  config.teacher.update(num_epochs=1, warmup_epochs=0, decay_epoch=1)
  config.evaluation.update(batch_size=16, num_swaps=3, num_ranked_queries=3, num_ground_truth_pairs=10)
  return config


def correspondence_config():
  """Like `tiny_config`, with the other design of the generator."""
  config = tiny_config()
  config.generator.design = 'correspondence'
  config.correspondence.update(attention_stride=2, shape_width=4, descriptor_size=4)
  config.correspondence.update(refinement_width=6, num_res_blocks=1, style_width=4)
  return config


def frozen(config):
  """A ConfigDict as the code under test takes it."""
  return Config.from_mapping(config)


def save_checkpoint(config, workdir, num_identities, step):
  """A checkpoint of fresh networks, as after `step` iterations; returns their state."""
  networks = make_networks(config, num_identities)
  state = create_train_state(networks, make_optimizers(config), config.seed).replace(step=np.int32(step))
  checkpoints = Checkpoints(workdir / 'checkpoints', 3, config)
  checkpoints.save(step, state, wait=True)
  checkpoints.close()
  return state
