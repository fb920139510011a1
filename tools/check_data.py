"""`python -m tools.check_data`: the same as `dgnet check-data`."""

from dgnet_jax.cli.check_data import COMMAND
from dgnet_jax.cli.command import main

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.check_data')
