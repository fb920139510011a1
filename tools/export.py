"""`python -m tools.export`: the same as `dgnet export`."""

from dgnet_jax.cli.export import main

if __name__ == '__main__':
  main()
