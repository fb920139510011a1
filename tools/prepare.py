"""`python -m tools.prepare`: the same as `dgnet prepare`."""

from dgnet_jax.cli.prepare import main

if __name__ == '__main__':
  main()
