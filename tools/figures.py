"""`python -m tools.figures`: the same as `dgnet figures`."""

from dgnet_jax.cli.figures import main

if __name__ == '__main__':
  main()
