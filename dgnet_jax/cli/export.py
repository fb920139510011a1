"""`dgnet export`: a trained run as one file, or as files that need neither this package nor Flax."""

import argparse

from dgnet_jax.cli.arguments import add_step, run_folder, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import RUN_HELP, check_run
from dgnet_jax.errors import UserError

SUFFIX = '.safetensors'
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
  parser.add_argument('run', type=run_folder, metavar='RUN', help=RUN_HELP)
  parser.add_argument(
    '--out', required=True, type=writable, metavar='PATH', help='a .safetensors file, or a folder to create'
  )
  parser.add_argument('--format', choices=('stablehlo', 'onnx', 'tflite'), help='of a folder (default: stablehlo)')
  parser.add_argument('--only', choices=('embed', 'swap'), help='of onnx and tflite: one of the two files')
  parser.add_argument(
    '--platforms',
    help=f'of stablehlo: platforms to compile for, of cpu, cuda, rocm and tpu (default: {PLATFORMS})',
  )
  add_step(parser)


def run(options: argparse.Namespace) -> None:
  _check(options)
  check_run(options)
  if options.out.suffix == SUFFIX:
    from dgnet_jax.reports.sharing import export_file

    export_file(options.run, options.out, step=options.step)
  elif options.format in ('onnx', 'tflite'):
    from dgnet_jax.inference.export_files import export_files

    export_files(options.run, options.out, options.format, only=options.only or '', step=options.step)
  else:
    from dgnet_jax.inference.export import export_model

    platforms = [name.strip() for name in (options.platforms or PLATFORMS).split(',')]
    export_model(options.run, options.out, platforms=platforms, step=options.step)


def _check(options: argparse.Namespace) -> None:
  """Raises UserError for an option that has no effect on what is written."""
  kind = options.format or 'stablehlo'
  is_file = options.out.suffix == SUFFIX
  wrong = ['platforms'] if is_file or kind != 'stablehlo' else []
  wrong += ['only'] if is_file or kind == 'stablehlo' else []
  wrong += ['format'] if is_file else []
  for name in wrong:
    if getattr(options, name):
      raise UserError(f'--{name} is not for {f"a {SUFFIX} file" if is_file else f"--format={kind}"}')


COMMAND = Command(
  name='export',
  summary='export a trained run as one file, or as StableHLO, ONNX or TFLite',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
