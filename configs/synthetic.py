"""Built-in pedestrians, which are rendered on first use, and small networks: for two CPU cores.

dgnet train --config=synthetic --workdir=runs/synthetic

The generator fetches the donor's pixels; configs/synthetic_release.py has the release's generator on the same data.
"""

from dgnet_jax.config.loading import read_config_file


def get_config():
  config = read_config_file('synthetic_release')
  config.generator.design = 'correspondence'
  config.generator.padding = 'zero'
  config.correspondence.update(attention_stride=4, shape_width=24, refinement_width=32, num_res_blocks=2)
  # The generator learns first and fast; then the re-id network learns from its images, which no longer change.
  config.optimizer.update(generator_learning_rate=2e-3, adam_betas=(0.5, 0.999), muon_multiplier=6.0)
  config.optimizer.update(generator_steps=550, gan_schedule='cosine')
  for ramp in (config.ramps.structure_code, config.ramps.appearance_code):
    ramp.maximum = 0.0
  config.ramps.cycle.update(initial=5.0, maximum=5.0)  # from the first step: it trains the mask
  config.ramps.teaching.start_step = 548
  config.weights.update(erasure=0.3, mask_area=0.5)
  return config
