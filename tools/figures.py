"""`python -m tools.figures`: the same as `dgnet figures`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.figures import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.figures')
