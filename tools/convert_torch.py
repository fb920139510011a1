"""`python -m tools.convert_torch`: the same as `dgnet convert`."""

from dgnet_jax.cli.command import main
from dgnet_jax.cli.convert import COMMAND

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.convert_torch')
