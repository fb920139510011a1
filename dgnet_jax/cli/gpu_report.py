"""`dgnet gpu-report`: training steps on one accelerator, without TensorFlow, ml_collections or data."""

import argparse
import json
import sys

from dgnet_jax.benchmarks.report_cases import CASES, PRECISIONS, Case
from dgnet_jax.benchmarks.report_run import JOBS, TimedRun
from dgnet_jax.cli.arguments import at_least, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.errors import UserError
from dgnet_jax.utils.compilation_cache import disable_compilation_cache

DETAILS = """Every case is a process of its own. All of them compile at the same time, which takes most of
the time, and then take turns on the device. Writes report.md and report.json: time, images per
second (four for an example), operations and their rate as a share of that of a large matrix
product, memory, and the longest operations of the first case. With a checkout it also runs some
tests on the device. Needs neither TensorFlow, ml_collections nor data.

With --train-seconds it then trains on built-in pedestrians of 256x128 in FOLDER/run: the setting
`large` of `dgnet ablation` with fewer images and a shorter schedule. When time is up, the state is
saved, and image sheets are generated and the run is evaluated. Called again, it goes on from there.
"""
EPILOG = """examples:
  dgnet gpu-report --out=runs/gpu_report
  dgnet gpu-report --out=runs/gpu_report --cases 0 2 --no-tests --compile-seconds=600
  dgnet gpu-report --out=runs/gpu_run --no-cases --no-tests --train-seconds=400   # only a run
  JAX_PLATFORMS=cpu dgnet gpu-report --out=runs/gpu_report --tiny   # tries it without an accelerator

cases:
""" + '\n'.join(f'  {number:>2}  {case.name}' for number, case in enumerate(CASES))


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--out', type=writable, required=True, metavar='FOLDER', help='folder of the report')
  which = parser.add_mutually_exclusive_group()
  which.add_argument('--cases', type=int, nargs='+', choices=range(len(CASES)), metavar='N', help='only these cases')
  which.add_argument('--no-cases', action='store_true', help='measure no cases')
  parser.add_argument('--tiny', action='store_true', help='tiny networks')
  parser.add_argument('--no-tests', action='store_true', help='do not run tests on the device')
  seconds = at_least(0)
  parser.add_argument('--compile-seconds', type=seconds, default=300, help='time to compile (default: %(default)s)')
  parser.add_argument('--measure-seconds', type=seconds, default=120, help='time to measure (default: %(default)s)')
  parser.add_argument('--train-seconds', type=seconds, default=0, help='time to train a run (default: 0, no run)')
  parser.add_argument(
    '--train-precision', choices=PRECISIONS, default='bfloat16', help='of the run (default: %(default)s)'
  )
  parser.add_argument(
    '--evaluate-seconds', type=seconds, default=300, help='time to evaluate the run (default: %(default)s)'
  )
  parser.add_argument('--case', help=argparse.SUPPRESS)  # the process of one case
  parser.add_argument('--run', help=argparse.SUPPRESS)  # a process of the run
  parser.add_argument('--profile', action='store_true', help=argparse.SUPPRESS)


def run(options: argparse.Namespace) -> None:
  if options.no_cases and options.no_tests and not options.train_seconds:
    raise UserError('--no-cases --no-tests: there is nothing to measure; add --train-seconds=N to train a run')
  disable_compilation_cache()  # before JAX is imported: the time to compile is one of the results
  options.out.mkdir(parents=True, exist_ok=True)
  if options.case:
    from dgnet_jax.benchmarks.report_cases import measure_case

    case = Case(**json.loads(options.case))
    profile = options.out / 'trace' if options.profile else None
    print(json.dumps(measure_case(case, tiny=options.tiny, profile=profile, commands=sys.stdin)), flush=True)
    return
  if options.run:
    job = json.loads(options.run)
    JOBS[job.pop('job')](TimedRun(**job), options.out, tiny=options.tiny)
    return
  from dgnet_jax.benchmarks.gpu_report import run_report

  run_report(
    options.out,
    [] if options.no_cases else [CASES[number] for number in options.cases or range(len(CASES))],
    TimedRun(options.train_seconds, options.train_precision, options.evaluate_seconds)
    if options.train_seconds
    else None,
    tiny=options.tiny,
    with_tests=not options.no_tests,
    compile_seconds=options.compile_seconds,
    measure_seconds=options.measure_seconds,
  )
  print(f'report in {options.out / "report.md"}')


COMMAND = Command(
  name='gpu-report',
  summary='measure training steps on an accelerator',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
