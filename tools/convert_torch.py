"""`python -m tools.convert_torch`: the same as `dgnet convert`."""

from dgnet_jax.cli.convert import main

if __name__ == '__main__':
  main()
