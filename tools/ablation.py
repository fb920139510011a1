"""`python -m tools.ablation`: the same as `dgnet ablation`."""

from dgnet_jax.cli.ablation import COMMAND
from dgnet_jax.cli.command import main

if __name__ == '__main__':
  main(COMMAND, 'python -m tools.ablation')
