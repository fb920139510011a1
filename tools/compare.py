"""`python -m tools.compare`: the same as `dgnet compare`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.compare import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.compare')
