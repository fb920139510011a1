"""Shows what joint learning is worth: the teacher, the same network on real images only, and DG-Net, over seeds."""

import argparse
from collections.abc import Sequence
import importlib.util
import pathlib
import sys
from typing import Any

from dgnet_jax.config import loading
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.utils.console import exit_on_user_error

EXAMPLE = """
examples:
  python -m tools.ablation --out=runs/ablation
  python -m tools.ablation --out=runs/ablation --seeds 0 1 2 3 4      # only what is missing is run
  python -m tools.ablation --out=runs/ablation --bound                # what perfect images would give, too
  python -m tools.ablation --out=runs/more --setting=more_cameras     # four to six cameras a person, not three
  python -m tools.ablation --out=runs/large --setting=large           # for a GPU

Any field can be set for all cells: --config.FIELD=VALUE.
"""
CONFIG = pathlib.Path(__file__).resolve().parents[2] / 'configs' / 'ablation.py'


def _settings() -> dict[str, Any]:
  """The configs of configs/ablation.py by name."""
  spec = importlib.util.spec_from_file_location('dgnet_jax_ablation_config', CONFIG)
  if spec is None or spec.loader is None:
    raise UserError(f'{CONFIG}: not there')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  settings: dict[str, Any] = module.SETTINGS
  return settings


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's, 130 after an interruption."""
  settings = _settings()
  parser = argparse.ArgumentParser(
    prog='python -m tools.ablation',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--out', required=True, type=pathlib.Path, metavar='FOLDER', help='gets a work folder per cell')
  parser.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2], help='default: 0 1 2')
  parser.add_argument('--setting', choices=settings, default='small', help='of configs/ablation.py (default: small)')
  parser.add_argument(
    '--bound', action='store_true', help='also runs the network on rendered truth in place of generated images'
  )
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = parser.parse_args(others)
  with exit_on_user_error():
    config = settings[options.setting]()
    problems += [
      f'{name}: the cells differ in it, do not set it'
      for name in ('seed', 'joint', 'teaching.images')
      if name in overrides
    ]
    problems += loading.apply_overrides(config, overrides)
    if problems:
      raise ConfigError(problems)
    from dgnet_jax.reports.ablation import run_all  # late: help needs no numpy

    run_all(config, options.out, options.seeds, bound=options.bound)


if __name__ == '__main__':
  main()
