"""`dgnet ablation`: is joint training worth it? And with --teacher: which options make a better teacher?"""

import argparse
from collections.abc import Collection

from dgnet_jax.cli.arguments import at_least, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.config.loading import apply_overrides, find_config_file, run_config_file
from dgnet_jax.config.validation import validate
from dgnet_jax.reports.teacher_variants import varied_fields

PER_CELL = ('seed', 'joint', 'teaching.images', 'generator.design')  # fields in which the cells differ
DETAILS = """Trains and evaluates DG-Net, and the same re-id network on real images only, with every seed, and
compares them with each other and with the teacher. Runs only the cells that are missing.

With --teacher, compares teachers instead: the release's settings, each option of the strong baseline, and all of them.
"""
EPILOG = """examples:
  dgnet ablation --out=runs/ablation
  dgnet ablation --out=runs/ablation --seeds 0 1 2 3 4      # two more seeds
  dgnet ablation --out=runs/ablation --bound                # also what perfect images would give
  dgnet ablation --out=runs/ablation --release              # also the generator of the release
  dgnet ablation --out=runs/more --setting=more_cameras     # four to six cameras per person, not three
  dgnet ablation --out=runs/large --setting=large           # for a GPU
  dgnet ablation --out=runs/teachers --teacher              # the options of the teacher

Every config field can be set for all cells with --config.FIELD=VALUE, except
{}; with --teacher, except seed and the fields of
dgnet_jax/reports/teacher_variants.py.
""".format(', '.join(PER_CELL))


def add_arguments(parser: argparse.ArgumentParser) -> None:
  settings = run_config_file(find_config_file('ablation')).SETTINGS
  parser.add_argument('--out', required=True, type=writable, metavar='FOLDER', help='gets a work folder per cell')
  parser.add_argument('--seeds', type=at_least(0), nargs='+', default=[0, 1, 2], help='default: 0 1 2')
  parser.add_argument('--setting', choices=settings, default='small', help='of configs/ablation.py (default: small)')
  parser.add_argument(
    '--release', action='store_true', help="also train DG-Net with the generator of the release's design and settings"
  )
  parser.add_argument(
    '--bound', action='store_true', help='also train on the rendered ground truth in place of generated images'
  )
  parser.add_argument(
    '--teacher', action='store_true', help='compare options of the teacher instead, trained and evaluated alone'
  )


def run(options: argparse.Namespace) -> None:
  if options.teacher:
    _run_teachers(options)
  else:
    _run_cells(options)


def _problems(options: argparse.Namespace, fixed: Collection[str]) -> list[str]:
  """Returns what is wrong with the command line, also that it sets one of the fields in which the cells differ."""
  return [
    *options.problems,
    *(f'{name}: the cells differ in it, so it cannot be set' for name in fixed if name in options.overrides),
  ]


def _run_teachers(options: argparse.Namespace) -> None:
  config = run_config_file(find_config_file('ablation')).get_config(options.setting)
  problems = _problems(options, ('seed', *varied_fields()))
  problems += [f'--{name}: not with --teacher' for name in ('release', 'bound') if getattr(options, name)]
  if 'teacher.checkpoint' in options.overrides:
    problems.append('teacher.checkpoint: the teachers are trained here, so it cannot be set')
  problems += apply_overrides(config, options.overrides)
  base = validate(config, problems)
  from dgnet_jax.reports.teacher_ablation import run_all

  run_all(base, options.out, options.seeds)


def _run_cells(options: argparse.Namespace) -> None:
  settings = run_config_file(find_config_file('ablation'))
  config, release = settings.get_config(options.setting), settings.get_config(options.setting, release=True)
  problems = _problems(options, PER_CELL)
  problems += apply_overrides(config, options.overrides)
  base = validate(config, problems)
  apply_overrides(release, options.overrides)  # it has the same fields, and so the same problems
  from dgnet_jax.reports.ablation import run_all

  run_all(
    base,
    options.out,
    options.seeds,
    release=validate(release) if options.release else None,
    with_ground_truth=options.bound,
  )


COMMAND = Command(
  name='ablation',
  summary='measure over several seeds whether joint training, or an option of the teacher, is worth it',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='all',
)
