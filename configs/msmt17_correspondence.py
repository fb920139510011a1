"""configs/msmt17.py with the generator that fetches the donor's pixels, in place of the release's.

dgnet train --config=msmt17_correspondence --workdir=runs/msmt17_correspondence --config.data.root=FOLDER
"""

from dgnet_jax.config.loading import read_config_file


def get_config():
  config = read_config_file('msmt17')
  config.generator.design = 'correspondence'
  config.ramps.cycle.update(initial=5.0, maximum=5.0)  # from the first step: it trains the mask
  return config
