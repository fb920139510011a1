"""configs/market.py with the generator that fetches the donor's pixels, in place of the release's.

dgnet train --config=market_correspondence --workdir=runs/market_correspondence --config.data.root=FOLDER
"""

from dgnet_jax.config.loading import read_config_file


def get_config():
  config = read_config_file('market')
  config.generator.design = 'correspondence'
  config.ramps.cycle.update(initial=5.0, maximum=5.0)  # from the first step: it trains the mask
  return config
