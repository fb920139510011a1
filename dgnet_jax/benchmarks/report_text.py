"""The report on an accelerator as Markdown."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

from dgnet_jax.benchmarks.report_cases import Case

HEADINGS = ('case', 'step', 'images/s', 'TFLOP', 'of peak', 'memory', 'compile', 'speed, plain = 1')
STAGES = ('start', 'data', 'teacher', 'training', 'images', 'evaluation')
NETWORKS = {'teacher': 'teacher', 'training': 'DG-Net'}  # the stages that train, and what
SCORES = {
  'chance': 'chance',
  'teacher': 'teacher',
  'primary': 'primary',
  'fine_grained': 'fine-grained',
  'both': 'both',
}
IMAGES = {
  'cross': 'cross images',
  'several': 'the same, from several images of the donor',
  'structure': 'baseline: the structure image',
  'self': 'self-reconstruction',
  'same_person': 'same-person reconstruction',
}
QUALITY = {
  'psnr': ('PSNR, dB', 2),
  'ssim': ('SSIM', 3),
  'colour_error': ('colour error, dE', 1),
  'pattern_fidelity': ('pattern fidelity', 3),
}


def report_text(cases: Sequence[Case], results: Mapping[str, Any], tests: Sequence[str]) -> str:
  """Formats results as Markdown: a table of the cases, one of the longest operations, and the run.

  Args:
    cases: in the order of the table.
    results: what report.json holds; cases without an entry have not been measured yet.
    tests: paths of the tests whose result is under `tests`.
  """
  measured = {case.name: results[case.name] for case in cases if 'seconds' in results.get(case.name, ())}
  lines = ['# Training steps on one device', '']
  if measured:
    first = next(iter(measured.values()))
    peaks = {case.precision: measured[case.name]['peak_flops'] for case in cases if case.name in measured}
    rates = ', '.join(f'{precision} {peak / 1e12:.3g}' for precision, peak in peaks.items())
    lines += [f'{first["device"]}, jax {first["jax"]}. TFLOP/s of a large matrix product: {rates}.', '']
  if 'tests' in results:
    lines += [f'Tests on it ({", ".join(tests)}): {results["tests"]}', '']
  lines += _case_lines(cases, results, measured)
  if 'run' in results:
    lines += run_lines(results['run'])
  return '\n'.join(lines).rstrip() + '\n'


def _case_lines(
  cases: Sequence[Case], results: Mapping[str, Any], measured: Mapping[str, Mapping[str, Any]]
) -> list[str]:
  rows = []
  for case in cases:
    result = results.get(case.name, {'left_out': 'not measured'})
    if 'left_out' in result:
      rows.append([case.name, result['left_out'], *([''] * (len(HEADINGS) - 2))])
      continue
    plain = measured.get(dataclasses.replace(case, plain=True).name)
    rows.append(
      [
        case.name,
        f'{result["seconds"]:.3f} s',
        f'{result["images_per_second"]:.0f}',
        f'{result["product_flops"] / 1e12:.3g}',
        f'{result["share_of_peak"]:.1%}',
        f'{result["xla_peak_bytes"] / 1e9:.1f} GB',
        f'{result["compile_seconds"]:.0f} s',
        f'{plain["seconds"] / result["seconds"]:.2f}' if plain else '',
      ]
    )
  lines = _table(HEADINGS, rows)
  for name, result in measured.items():
    if result['operations']:
      lines += [f'Longest operations: {name}', '']
      operations = [[f'{share:.1%}', operation, source] for share, operation, source in result['operations']]
      lines += _table(('share of time', 'operation', 'from'), operations)
  return lines


def run_lines(run: Mapping[str, Any]) -> list[str]:
  """Formats what report.json holds under `run`, as far as it is known, as lines of Markdown."""
  height, width = run['image_size_hw']
  lines = [f'## A run at {height}x{width}', '']
  device = f'{run["device"]}, jax {run["jax"]}. ' if 'device' in run else ''
  lines += [
    f'{device}Built-in pedestrians, {run["precision"]}, batch {run["batch_size"]}, {run["train_seconds"]} s to train: '
    'the setting `large` of configs/ablation.py, as benchmarks/report_run.py shortens it.',
    '',
  ]
  for problem in run['problems']:
    lines += [problem, '']
  lines += _table(
    ('stage', 'time'), [[stage, _number(run['seconds'][stage], 1, ' s')] for stage in STAGES if stage in run['seconds']]
  )
  trained = {label: run[stage] for stage, label in NETWORKS.items() if stage in run}
  rows = [
    [
      label,
      f'{job["steps"]} of {job["num_steps"] or "?"}',
      _number(job['step_seconds'], 4, ' s'),
      _number(job['images_per_second'], 0),
      _number(job['first_step_seconds'], 1, ' s'),
    ]
    for label, job in trained.items()
  ]
  lines += _table(('network', 'steps', 'step', 'images/s', 'first step, with compilation'), rows)
  if 'scores' in run:
    lines += [f'Step {run["step"]}, evaluated on other people:', '']
    scores = run['scores']
    rows = [
      [label, *(f'{scores[name][measure]:.1%}' for measure in ('rank_1', 'mAP'))]
      for name, label in SCORES.items()
      if name in scores
    ]
    lines += _table(('embedding', 'rank-1', 'mAP'), rows)
  quality = run.get('image_quality', {})
  rows = [
    [label, *(_number(quality[kind].get(name), digits) for name, (_, digits) in QUALITY.items())]
    for kind, label in IMAGES.items()
    if kind in quality
  ]
  lines += _table(('compared with the ground truth', *(heading for heading, _ in QUALITY.values())), rows)
  for path in [*run.get('sheets', ())[:1], *filter(None, [run.get('ground_truth_sheet')])]:
    lines += [f'![{path}]({path})', '']
  return lines


def _number(value: float | None, digits: int, unit: str = '') -> str:
  return '' if value is None else f'{value:.{digits}f}{unit}'


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
  """Returns the lines of a table and an empty one; none for a table without rows."""
  if not rows:
    return []
  lines = ['| ' + ' | '.join(headings) + ' |', '| --- ' * len(headings) + '|']
  return [*lines, *('| ' + ' | '.join(row) + ' |' for row in rows), '']
