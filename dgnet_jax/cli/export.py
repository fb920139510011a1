"""`dgnet export`: a trained run as programs and weights that need neither this package nor Flax."""

import argparse

from dgnet_jax.cli.arguments import run_folder, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.config.loading import SAVED_CONFIG, load_config

DETAILS = 'Writes StableHLO programs for any batch size, weights as safetensors, and an example that loads them.'
EPILOG = """examples:
  dgnet export runs/market --out=exported
  python exported/load.py query.jpg gallery.jpg    # needs jax, flatbuffers and Pillow
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('workdir', type=run_folder, metavar='RUN', help='work folder of a run')
  parser.add_argument('--out', required=True, type=writable, metavar='FOLDER', help='folder to create')
  parser.add_argument(
    '--platforms',
    default='cpu,cuda,tpu',
    help='platforms to compile for, of cpu, cuda, rocm and tpu (default: %(default)s)',
  )


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.storage.local_copies import fetched

  workdir = fetched(options.workdir)
  config = load_config(workdir / SAVED_CONFIG, {})
  from dgnet_jax.inference.export import export_model

  export_model(config, workdir, options.out, platforms=options.platforms.split(','))


COMMAND = Command(
  name='export',
  summary='export a trained run as StableHLO programs and safetensors',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
