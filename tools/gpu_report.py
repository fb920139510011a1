"""Measures training steps on an accelerator, without TensorFlow, ml_collections or data: for one call of a few minutes.

python -m tools.gpu_report --out=runs/gpu_report
python -m tools.gpu_report --out=runs/gpu_report --cases 0 2 --no-tests     # two of the cases
JAX_PLATFORMS=cpu python -m tools.gpu_report --out=runs/gpu_report --tiny   # tries it without an accelerator
"""

import argparse
import json
import pathlib
import sys

from dgnet_jax.benchmarks.gpu_report import run_report
from dgnet_jax.benchmarks.report_cases import CASES, Case, measure_case


def main() -> None:
  """Runs the report, or one of its cases in a process of its own."""
  parser = argparse.ArgumentParser(prog='python -m tools.gpu_report', description=__doc__.split('\n')[0])
  parser.add_argument('--out', type=pathlib.Path, required=True, help='folder of the report')
  listed = ', '.join(f'{number} {case.name}' for number, case in enumerate(CASES))
  parser.add_argument('--cases', type=int, nargs='+', choices=range(len(CASES)), help=f'only these: {listed}')
  parser.add_argument('--tiny', action='store_true', help='tiny networks')
  parser.add_argument('--no-tests', action='store_true', help='do not run tests on the device')
  parser.add_argument('--compile-seconds', type=float, default=300, help='time to compile (default: %(default)s)')
  parser.add_argument('--measure-seconds', type=float, default=120, help='time to measure (default: %(default)s)')
  parser.add_argument('--case', help=argparse.SUPPRESS)  # a process of one case
  parser.add_argument('--profile', action='store_true', help=argparse.SUPPRESS)
  options = parser.parse_args()
  options.out.mkdir(parents=True, exist_ok=True)
  if options.case:
    case = Case(**json.loads(options.case))
    profile = options.out / 'trace' if options.profile else None
    print(json.dumps(measure_case(case, tiny=options.tiny, profile=profile, commands=sys.stdin)), flush=True)
    return
  run_report(
    options.out,
    [CASES[number] for number in options.cases or range(len(CASES))],
    tiny=options.tiny,
    with_tests=not options.no_tests,
    compile_seconds=options.compile_seconds,
    measure_seconds=options.measure_seconds,
  )
  print(f'report in {options.out / "report.md"}')


if __name__ == '__main__':
  main()
