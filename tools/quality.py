"""`python -m tools.quality`: the same as `dgnet quality`."""

from dgnet_jax.cli.quality import main

if __name__ == '__main__':
  main()
