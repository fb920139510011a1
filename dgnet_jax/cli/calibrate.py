"""`dgnet calibrate`: from which score on two images show the same person."""

import argparse

from dgnet_jax.cli.arguments import add_batch_size, add_step, local
from dgnet_jax.cli.command import Command, check_no_problems
from dgnet_jax.cli.run_arguments import add_alpha, check_run, load_model, rate
from dgnet_jax.config.loading import apply_overrides
from dgnet_jax.errors import UserError

DETAILS = """RUN is the work folder of a run, or one of its checkpoints, RUN/checkpoints/STEP, on this machine.
The pairs are those of a query and a gallery image of the run's data set, of its held-out identities if it
has some (data.val_identities), or of the data set that --config.data.root names: best, people who are
neither trained nor tested on.
"""
EPILOG = """examples:
  dgnet calibrate runs/market --fpr=1e-3
  dgnet calibrate runs/market --fpr 1e-3 1e-4 --config.data.root=photos_of_staff --config.data.layout=folders

Writes calibration.json to the work folder. `dgnet rank`, the page and `Model.rank` then say which matches show the same
person, with the first rate, as long as checkpoint and alpha are the same.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('run', type=local, metavar='RUN', help='work folder or checkpoint')
  add_step(parser)
  add_batch_size(parser, 8)
  add_alpha(parser)
  parser.add_argument(
    '--fpr',
    type=rate,
    nargs='+',
    default=[1e-3],
    help='fraction of the pairs of two people that may be taken for one person (default: 0.001)',
  )


def run(options: argparse.Namespace) -> None:
  check_no_problems(options)
  check_run(options)
  if not options.run.is_dir():
    raise UserError(f'{options.run}: a calibration is kept in the work folder of a run; name one (RUN)')
  from dgnet_jax.config.defaults import unfrozen
  from dgnet_jax.config.validation import validate
  from dgnet_jax.data.registry import detect_layout
  from dgnet_jax.reports.calibration import calibrate_run, calibration_table
  from dgnet_jax.utils.paths import check_writable

  overrides = dict(options.overrides)
  if 'data.val_identities' in overrides:
    raise UserError(
      '--config.data.val_identities: whom a run held out was decided when it was trained; name other people by '
      '--config.data.root'
    )
  if 'data.root' in overrides and 'data.layout' not in overrides:
    layout = detect_layout(overrides['data.root'])
    if layout is None:
      raise UserError(f'--config.data.root={overrides["data.root"]}: no known layout; name it by --config.data.layout')
    overrides['data.layout'] = layout.name
  model = load_model(options)
  check_writable(model.workdir)
  fields = unfrozen(model.config.to_dict())
  config = validate(fields, apply_overrides(fields, overrides))
  values = calibrate_run(model, config, false_positive_rates=options.fpr, alpha=options.alpha)
  print(calibration_table(values))


COMMAND = Command(
  name='calibrate',
  summary='find the score from which on two images show one person',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='data',
)
