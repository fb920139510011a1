"""Exports a trained run: StableHLO programs for any batch size, safetensors, and an example that loads them."""

import argparse
from collections.abc import Sequence
import pathlib

from dgnet_jax.config import loading
from dgnet_jax.utils.console import exit_on_user_error

EXAMPLE = """
example:
  python -m tools.export runs/market --out=exported
  python exported/load.py query.jpg gallery.jpg    # needs jax, flatbuffers and Pillow
"""


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's."""
  parser = argparse.ArgumentParser(
    prog='python -m tools.export',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('workdir', type=pathlib.Path, help='of a run')
  parser.add_argument('--out', required=True, type=pathlib.Path, metavar='FOLDER', help='to make')
  parser.add_argument(
    '--platforms', default='cpu,cuda,tpu', help='that it shall run on, of cpu, cuda, rocm, tpu (default: %(default)s)'
  )
  options = parser.parse_args(arguments)
  with exit_on_user_error():
    config = loading.load_config(options.workdir / 'config.json', {})
    from dgnet_jax.inference.export import export_model  # late: help needs no JAX

    export_model(config, options.workdir, options.out, platforms=options.platforms.split(','))


if __name__ == '__main__':
  main()
