"""`python -m tools.export`: the same as `dgnet export`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.export import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.export')
