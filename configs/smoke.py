"""A rehearsal on any data set: tiny networks and few steps go through the stages of a long run, on a CPU.

dgnet train --config=smoke --workdir=runs/smoke --config.data.root=Market-1501-v15.09.15

Its results mean nothing, and it says nothing about memory, speed and compilation of the full networks. For another data
set set data.layout, as for the run that is to follow.
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.num_steps = 120
  config.data.loader = 'threads'
  config.data.image_size_hw = (64, 32)
  config.augment.crop_padding = 4

  config.structure_encoder.update(width=4, num_res_blocks=1, dilations=(1, 2, 3))
  config.decoder.update(num_res_blocks=1, mlp_width=32)
  config.discriminator.update(width=4, num_scales=1, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=8, head_width=32, input_scale=1)
  config.teacher.update(stage_sizes=(1, 1), width=8, head_width=32, num_epochs=1, warmup_epochs=0, decay_epoch=1)

  # Both phases: without the ramped terms, and with them.
  config.optimizer.decay_steps = 80
  for ramp in config.ramps.values():
    ramp.update(start_step=60, per_step=0.05)
  config.log.update(images_every_steps=config.num_steps, checkpoint_every_steps=60)
  config.evaluation.update(num_swaps=4, num_ranked_queries=4)
  return config
