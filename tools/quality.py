"""`python -m tools.quality`: the same as `dgnet quality`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.quality import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.quality')
