"""Built-in pedestrians, which are rendered on first use, and small networks: for two CPU cores.

dgnet train --config=synthetic --workdir=runs/synthetic

The generator fetches the donor's pixels; configs/synthetic_release.py has the release's generator on the same data.
"""

from dgnet_jax.config.loading import read_config_file


def get_config():
  config = read_config_file('synthetic_release')
  config.generator.design = 'correspondence'
  # Zero padding is faster on CPU than reflection.
  config.generator.padding = 'zero'
  config.correspondence.update(attention_stride=2, shape_width=24, refinement_width=32, num_res_blocks=2)
  config.optimizer.update(generator_learning_rate=2e-3, adam_betas=(0.5, 0.999))
  # The way back trains the generator from the start.
  config.ramps.cycle.update(initial=5.0, maximum=5.0)
  config.weights.update(erasure=0.2, mask_area=0.4)
  return config
