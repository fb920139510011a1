"""Is joint learning worth it? Runs of the same networks with and without generated pictures, over seeds.

A cell is a run of one kind with one seed. `joint` is DG-Net. `real` is the same re-id network with the same start,
steps, batches and erasing, taught by real pictures alone, so that longer training is not taken for joint learning. Its
generator is trained beside it and reaches nothing: the teaching weight is 0 and the code a constant.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config import UserError, validate
from dgnet_jax.files import whole_file

Log = Callable[[str], None]
Scores = dict[str, float]

METRICS = {'rank_1': 'rank-1', 'mAP': 'mAP'}
# Rows of the table: which kind of cell they come from, and which embedding of it.
ROWS = {
  'teacher': ('joint', 'teacher'),
  'real pictures only': ('real', 'primary'),
  'DG-Net, primary': ('joint', 'primary'),
  'DG-Net, fine-grained': ('joint', 'fine_grained'),
  'DG-Net, both': ('joint', 'both'),
}
BASELINE = 'real pictures only'


@dataclasses.dataclass(frozen=True)
class Cell:
  """A run: joint or real, with its seed and folder."""

  kind: str
  seed: int
  workdir: pathlib.Path


def cells(folder: pathlib.Path, seeds: Sequence[int]) -> list[Cell]:
  """Every cell in the order in which they are run: a seed's joint run trains the teacher of both."""
  return [Cell(kind, seed, folder / f'{kind}_{seed}') for seed in seeds for kind in ('joint', 'real')]


def cell_config(base: Any, cell: Cell, folder: pathlib.Path) -> Any:
  """The config of a cell.

  Raises:
    UserError: the base does not let real and generated pictures be told apart.
  """
  if base.reid.style != 'AB' or not base.reid.detach_code:
    raise UserError('reid.style, reid.detach_code: the comparison needs style AB with the code detached')
  config = base.copy_and_resolve_references()
  config.seed = cell.seed
  config.data.root = config.data.root or str(folder / 'data')  # all cells see the same people
  if cell.kind == 'real':
    config.teacher.checkpoint = str(folder / f'joint_{cell.seed}' / 'teacher')
    config.ramps.teaching.update(initial=0.0, maximum=0.0)
  validate(config)
  return config


def _results_path(cell: Cell) -> pathlib.Path:
  return cell.workdir / 'evaluation' / 'results.json'


def run_cell(config: Any, cell: Cell, log: Log) -> None:
  """Trains and evaluates; goes on where an interrupted one stopped."""
  from dgnet_jax.config_file import save_config
  from dgnet_jax.evaluate import evaluate
  from dgnet_jax.train import train

  save_config(config, cell.workdir / 'config.json')
  train(config, cell.workdir, log=log)
  evaluate(config, cell.workdir, log=log)


def run_all(
  base: Any,
  folder: pathlib.Path,
  seeds: Sequence[int],
  *,
  run: Callable[[Any, Cell, Log], None] = run_cell,
  log: Log = print,
) -> dict[str, Any]:
  """Runs what is not done yet, and writes ablation.json, ablation.md and ablation.png.

  Args:
    base: config of the joint runs.
    folder: of all.
    seeds: different ones.
    run: does one cell.
    log: takes lines for a person.

  Returns:
    What ablation.json holds.

  Raises:
    UserError: seeds repeat, or the base does not fit.
  """
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(f'seeds {" ".join(map(str, seeds))}: name at least one, each once')
  everything = cells(folder, seeds)
  configs = [cell_config(base, cell, folder) for cell in everything]
  for number, (cell, config) in enumerate(zip(everything, configs, strict=True), 1):
    name = f'cell {number}/{len(everything)}: {cell.kind}, seed {cell.seed}'
    if _results_path(cell).exists():
      log(f'{name}: done, in {cell.workdir}')
    else:
      log(f'{name}: in {cell.workdir}')
      run(config, cell, log)
  summary = summarize(folder, seeds)
  with whole_file(folder / 'ablation.json') as aside:
    aside.write_text(json.dumps(summary, indent=2) + '\n')
  text = markdown(summary)
  with whole_file(folder / 'ablation.md') as aside:
    aside.write_text(text + '\n')
  plot(summary, folder / 'ablation.png')
  log(f'{text}\n{folder}/ablation.json, ablation.md, ablation.png')
  return summary


def summarize(folder: pathlib.Path, seeds: Sequence[int]) -> dict[str, Any]:
  """Scores by row, metric and seed from the cells' results, shares of 1; and what each has over the baseline."""
  found = {
    (cell.kind, cell.seed): json.loads(_results_path(cell).read_text())['single_query'] for cell in cells(folder, seeds)
  }
  scores = {
    row: {metric: [found[kind, seed][embedding][metric] for seed in seeds] for metric in METRICS}
    for row, (kind, embedding) in ROWS.items()
  }
  gains = {
    row: {metric: np.subtract(values[metric], scores[BASELINE][metric]).tolist() for metric in METRICS}
    for row, values in scores.items()
    if row != BASELINE
  }
  return {'seeds': list(seeds), 'scores': scores, 'gains': gains}


def _spread(values: Sequence[float], sign: str = '') -> str:
  """Mean and standard deviation over seeds (of a sample), in percent."""
  percent = 100 * np.asarray(values)
  spread = f' ± {percent.std(ddof=1):.1f}' if len(percent) > 1 else ''
  return f'{percent.mean():{sign}.1f}{spread}'


def markdown(summary: Mapping[str, Any]) -> str:
  """The table: each row's mean ± standard deviation over seeds, and its paired difference from the baseline."""
  heads = [*METRICS.values(), *(f'{label} over {BASELINE}' for label in METRICS.values())]
  lines = [f'| {len(summary["seeds"])} seeds | {" | ".join(heads)} |', '| --- ' * (len(heads) + 1) + '|']
  for row, values in summary['scores'].items():
    gains = summary['gains'].get(row)
    cells_ = [_spread(values[metric]) for metric in METRICS]
    cells_ += [_spread(gains[metric], '+') if gains else '' for metric in METRICS]
    lines.append(f'| {row} | {" | ".join(cells_)} |')
  return '\n'.join(lines)


def plot(summary: Mapping[str, Any], path: pathlib.Path) -> None:
  """A dot for each seed and a line at the mean, rank-1 beside mAP."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 3.5), layout='constrained')
  FigureCanvasAgg(figure)
  panels = figure.subplots(1, len(METRICS), sharey=True)
  for axes, (metric, label) in zip(panels, METRICS.items(), strict=True):
    for place, values in enumerate(summary['scores'].values()):
      percent = 100 * np.asarray(values[metric])
      axes.plot(percent, np.full(len(percent), place), 'o', alpha=0.6)
      axes.plot([percent.mean()] * 2, [place - 0.3, place + 0.3], color='black')
    axes.set(xlabel=f'{label}, %', yticks=range(len(summary['scores'])), yticklabels=list(summary['scores']))
    axes.grid(axis='x', alpha=0.3)
  panels[0].invert_yaxis()
  with whole_file(path) as aside:
    figure.savefig(aside, format='png', dpi=150)
