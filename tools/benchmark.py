"""`python -m tools.benchmark`: the same as `dgnet benchmark`."""

from dgnet_jax.cli.benchmark import COMMAND
from dgnet_jax.cli.command import main

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.benchmark')
