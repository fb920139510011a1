"""`python -m tools.benchmark`: the same as `dgnet benchmark`."""

from dgnet_jax.cli.benchmark import main

if __name__ == '__main__':
  main()
