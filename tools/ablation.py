"""`python -m tools.ablation`: the same as `dgnet ablation`."""

from dgnet_jax.cli.ablation import main

if __name__ == '__main__':
  main()
