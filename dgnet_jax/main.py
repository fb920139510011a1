"""`python -m dgnet_jax.main --config=... --workdir=... --mode=...`: the same as `dgnet train`, `dgnet evaluate`, ..."""

import argparse

from dgnet_jax.cli import train
from dgnet_jax.cli.command import Command, main

EPILOG = """examples:
  python -m dgnet_jax.main --config=configs/synthetic.py --workdir=runs/synthetic
  python -m dgnet_jax.main --config=configs/market.py --workdir=runs/market \\
      --config.data.root=Market-1501-v15.09.15 --config.batch_size=4
  python -m dgnet_jax.main --workdir=runs/market --mode=evaluate

Every config field can be set with --config.FIELD=VALUE. The command `dgnet` does the same and more.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments of the training jobs, and the choice of one."""
  train.add_arguments(parser, train.MODES)
  modes = '; '.join(f'{mode}: {summary}' for mode, summary in train.MODES.items())
  parser.add_argument('--mode', choices=train.MODES, default='train', help=f'{modes} (default: train)')


COMMAND = Command(
  name='main',
  summary='person re-identification and person image generation, trained jointly (DG-Net)',
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=lambda options: train.run(options.mode, options),
  fields='all',
)

if __name__ == '__main__':
  main(COMMAND, 'python -m dgnet_jax.main')
