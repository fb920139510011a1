"""`dgnet export`: a trained run as one file, or as programs and weights that need neither this package nor Flax."""

import argparse

from dgnet_jax.cli.arguments import add_step, run_folder, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.config.loading import SAVED_CONFIG, load_config

DETAILS = """Writes one file that every command with RUN takes, or a folder with StableHLO programs for any batch
size, weights as safetensors, and an example that loads them.
"""
EPILOG = """examples:
  dgnet export runs/market --out=market.safetensors --step=best
  dgnet rank market.safetensors query.jpg --gallery images/
  dgnet export runs/market --out=exported
  python exported/load.py query.jpg gallery.jpg    # needs jax, flatbuffers and Pillow
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('workdir', type=run_folder, metavar='RUN', help='work folder of a run')
  parser.add_argument(
    '--out', required=True, type=writable, metavar='PATH', help='a .safetensors file, or a folder to create'
  )
  parser.add_argument(
    '--platforms',
    default='cpu,cuda,tpu',
    help='of a folder: platforms to compile for, of cpu, cuda, rocm and tpu (default: %(default)s)',
  )
  add_step(parser)


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.storage.local_copies import fetched
  from dgnet_jax.storage.run_files import all_checkpoints

  workdir = fetched(options.workdir, all_checkpoints)
  if options.out.suffix == '.safetensors':
    from dgnet_jax.reports.sharing import export_file

    export_file(workdir, options.out, step=options.step)
    return
  config = load_config(workdir / SAVED_CONFIG, {})
  from dgnet_jax.inference.export import export_model

  export_model(config, workdir, options.out, platforms=options.platforms.split(','), step=options.step)


COMMAND = Command(
  name='export',
  summary='export a trained run as one file, or as StableHLO programs',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
