"""`python -m tools.prepare`: the same as `dgnet prepare`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.prepare import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.prepare')
