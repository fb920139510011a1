"""The embedded default: rendered pedestrians and small networks, for a CPU of two cores.

python -m dgnet_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
"""

from dgnet_jax.config import default_config


def get_config():
  config = default_config()
  config.num_steps = 2_400
  config.data.layout = 'synthetic'
  config.data.loader = 'memory'
  config.data.image_size_hw = (64, 32)
  config.augment.crop_padding = 4

  config.structure_encoder.update(width=8, num_res_blocks=2, dilations=(1, 2, 3))
  config.decoder.update(num_res_blocks=2, mlp_width=128)
  config.discriminator.update(width=16, num_scales=2, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1, 1, 1), width=16, head_width=128, input_scale=1)
  config.teacher.update(stage_sizes=(1, 1, 1, 1), width=16, head_width=128, num_epochs=30, decay_epoch=20)

  config.optimizer.decay_steps = 1_600
  for ramp in config.ramps.values():
    ramp.update(start_step=1_000, per_step=0.005)
  config.log.update(pictures_every_steps=400, checkpoint_every_steps=400)
  return config
