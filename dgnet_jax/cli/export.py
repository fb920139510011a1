"""`dgnet export`: a trained run as one file, or as files that need neither this package nor Flax."""

import argparse

from dgnet_jax.cli.arguments import add_step, run_folder, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.config.loading import SAVED_CONFIG, load_config
from dgnet_jax.errors import UserError

PLATFORMS = 'cpu,cuda,tpu'
DETAILS = """--out=FILE.safetensors writes one file that every command with RUN takes. A folder gets, by --format:

stablehlo  programs for any batch size, weights as safetensors, and an example that loads them.
onnx       embed.onnx and swap.onnx, for any batch size; they need neither JAX nor the weights.
tflite     embed.tflite and swap.tflite, for one image; not the swap of design correspondence.

ONNX and TFLite files are compared with the networks, on random images and on drawn pedestrians. If one
differs, nothing is written.
"""
EPILOG = """examples:
  dgnet export runs/market --out=market.safetensors --step=best
  dgnet rank market.safetensors query.jpg --gallery images/
  dgnet export runs/market --out=exported
  python exported/load.py query.jpg gallery.jpg    # needs jax, flatbuffers and Pillow
  dgnet export runs/market --out=onnx --format=onnx
  dgnet export runs/market --out=tflite --format=tflite --only=embed
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('workdir', type=run_folder, metavar='RUN', help='work folder of a run')
  parser.add_argument(
    '--out', required=True, type=writable, metavar='PATH', help='a .safetensors file, or a folder to create'
  )
  parser.add_argument(
    '--format', choices=('stablehlo', 'onnx', 'tflite'), default='stablehlo', help='(default: %(default)s)'
  )
  parser.add_argument('--only', choices=('embed', 'swap'), help='of onnx and tflite: one of the two files')
  parser.add_argument(
    '--platforms',
    help=f'of stablehlo: platforms to compile for, of cpu, cuda, rocm and tpu (default: {PLATFORMS})',
  )
  add_step(parser)


def run(options: argparse.Namespace) -> None:
  is_stablehlo = options.format == 'stablehlo'
  for name, is_allowed in (('platforms', is_stablehlo), ('only', not is_stablehlo)):
    if getattr(options, name) and not is_allowed:
      raise UserError(f'--{name} is not for --format={options.format}')
  from dgnet_jax.storage.local_copies import fetched
  from dgnet_jax.storage.run_files import all_checkpoints

  workdir = fetched(options.workdir, all_checkpoints)
  if options.out.suffix == '.safetensors' and is_stablehlo:
    from dgnet_jax.reports.sharing import export_file

    export_file(workdir, options.out, step=options.step)
    return
  config = load_config(workdir / SAVED_CONFIG, {})
  if not is_stablehlo:
    from dgnet_jax.inference.export_files import export_files

    export_files(config, workdir, options.out, options.format, only=options.only or '', step=options.step)
    return
  from dgnet_jax.inference.export import export_model

  export_model(config, workdir, options.out, platforms=(options.platforms or PLATFORMS).split(','), step=options.step)


COMMAND = Command(
  name='export',
  summary='export a trained run as one file, or as StableHLO, ONNX or TFLite',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
