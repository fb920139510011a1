"""Is joint learning worth it? Runs of the same networks with and without generated images, over seeds.

A cell is a run of one kind with one seed. `joint` is DG-Net. `real` (joint=False) is the same re-id network with the
same start, steps, batches and erasing, both of its heads taught by real images alone, so that longer training or a
second head are not taken for joint learning. `truth`, on request, is that network taught by the rendered truth in place
of generated images: what a perfect generator would give.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.defaults import unfrozen, validate
from dgnet_jax.config.loading import changed_fields, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import TEST, open_dataset
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file

logger = logging.getLogger(__name__)


METRICS = {'rank_1': 'rank-1', 'mAP': 'mAP'}
IMAGE_KINDS = {
  'cross': 'cross images',
  'structure': 'the structure image instead',
  'self': 'self-reconstruction',
  'same_person': 'same-person reconstruction',
}
IMAGE_DIGITS = {'psnr': 2, 'ssim': 3, 'colour_error': 1, 'pattern_fidelity': 3}
EMBEDDINGS = {'primary': 'primary', 'fine_grained': 'fine-grained', 'both': 'both'}
KINDS = {'real': 'real images only', 'joint': 'DG-Net', 'truth': 'perfect images'}
# Rows of the table: which kind of cell they come from, and which embedding of it.
ROWS = {'teacher': ('joint', 'teacher')}
ROWS |= {f'{kind}, {label}': (key, name) for key, kind in KINDS.items() for name, label in EMBEDDINGS.items()}
# What each of the other rows is compared with, seed by seed: the same embedding.
BASELINES = {
  f'{KINDS[key]}, {label}': f'{KINDS["real"]}, {label}' for key in ('joint', 'truth') for label in EMBEDDINGS.values()
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A run: its kind (one of `KINDS`), seed and folder."""

  kind: str
  seed: int
  workdir: pathlib.Path


def cells(folder: pathlib.Path, seeds: Sequence[int], *, bound: bool = False) -> list[Cell]:
  """Every cell in the order in which they are run: a seed's joint run trains the teacher of all; `bound` adds truth."""
  kinds = ('joint', 'real', 'truth') if bound else ('joint', 'real')
  return [Cell(kind, seed, folder / f'{kind}_{seed}') for seed in seeds for kind in kinds]


def cell_config(base: Config, cell: Cell, folder: pathlib.Path) -> Config:
  """The config of a cell.

  Raises:
    UserError: the base does not allow runs without generated images, or has no truth that a cell needs.
  """
  config = unfrozen(base)
  config.seed = cell.seed
  config.data.root = config.data.root or str(folder / 'data')  # all cells see the same people
  config.joint = cell.kind == 'joint'
  if not config.joint:
    config.teacher.checkpoint = config.teacher.checkpoint or str(folder / f'joint_{cell.seed}' / 'teacher')
  if cell.kind == 'truth':
    config.teaching.images = 'ground_truth'
  return validate(config)


def _results_path(cell: Cell) -> pathlib.Path:
  return cell.workdir / 'evaluation' / 'results.json'


def _is_done(config: Config, cell: Cell) -> bool:
  """Whether a cell has the results of its last step.

  Raises:
    UserError: the cell was made with other settings, so that a table would mix two experiments.
  """
  changed = [line for line in changed_fields(cell.workdir / 'config.json', config) if not line.startswith('log.')]
  if changed:
    raise UserError(f'{cell.workdir} was made with other settings ({"; ".join(changed)}); name another folder, --out')
  path = _results_path(cell)
  return path.exists() and json.loads(path.read_text())['step'] == config.num_steps


def run_cell(config: Config, cell: Cell) -> None:
  """Trains and evaluates; goes on where an interrupted one stopped."""
  from dgnet_jax.reports.evaluation import evaluate
  from dgnet_jax.training.loop import train

  save_config(config, cell.workdir / 'config.json')
  open_dataset(config, cell.workdir, needs=('train', *TEST))  # what is missing is told before training
  train(config, cell.workdir)
  evaluate(config, cell.workdir)


def run_all(
  base: Any,
  folder: pathlib.Path,
  seeds: Sequence[int],
  *,
  bound: bool = False,
  run: Callable[[Config, Cell], None] = run_cell,
) -> dict[str, Any]:
  """Runs what is not done yet, and writes ablation.json, ablation.md and ablation.png.

  Args:
    base: config of the joint runs.
    folder: of all.
    seeds: different ones.
    bound: runs the truth cells too; the base's data are the built-in pedestrians.
    run: does one cell.

  Returns:
    What ablation.json holds.

  Raises:
    UserError: seeds repeat, the base does not fit, or the folder holds cells of other settings.
  """
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(f'seeds {" ".join(map(str, seeds))}: name at least one, each once')
  folder = folder.resolve()  # cells remember where data and teacher are
  everything = cells(folder, seeds, bound=bound)
  configs = [cell_config(base, cell, folder) for cell in everything]
  done = [_is_done(config, cell) for cell, config in zip(everything, configs, strict=True)]
  for number, (cell, config) in enumerate(zip(everything, configs, strict=True), 1):
    name = f'cell {number}/{len(everything)}: {cell.kind}, seed {cell.seed}'
    if done[number - 1]:
      logger.info(f'{name}: done, in {cell.workdir}')
    else:
      logger.info(f'{name}: in {cell.workdir}')
      run(config, cell)
  summary = summarize(folder, seeds, bound=bound)
  with whole_file(folder / 'ablation.json') as aside:
    aside.write_text(json.dumps(summary, indent=2) + '\n')
  text = markdown(summary)
  with whole_file(folder / 'ablation.md') as aside:
    aside.write_text(text + '\n')
  plot(summary, folder / 'ablation.png')
  logger.info(f'{text}\n{folder}/ablation.json, ablation.md, ablation.png')
  return summary


def summarize(folder: pathlib.Path, seeds: Sequence[int], *, bound: bool = False) -> dict[str, Any]:
  """The cells' results side by side.

  Args:
    folder: of all cells, which are done.
    seeds: of the cells.
    bound: the truth cells are among them.

  Returns:
    seeds; scores, by row and metric a share of 1 for each seed; gains, the same of rows less their `BASELINES`;
    images, by kind, group and measure of `truth_report.measure_against_truth` a number for each seed (no entry where
    a seed has none; empty on other data than the built-in pedestrians).
  """
  everything = cells(folder, seeds, bound=bound)
  found = {(cell.kind, cell.seed): json.loads(_results_path(cell).read_text()) for cell in everything}
  scores = {
    row: {metric: [found[kind, seed]['single_query'][embedding][metric] for seed in seeds] for metric in METRICS}
    for row, (kind, embedding) in ROWS.items()
    if (kind, seeds[0]) in found
  }
  gains = {
    row: {metric: np.subtract(scores[row][metric], scores[baseline][metric]).tolist() for metric in METRICS}
    for row, baseline in BASELINES.items()
    if row in scores
  }
  made = [found['joint', seed].get('images', {}) for seed in seeds]
  return {'seeds': list(seeds), 'scores': scores, 'gains': gains, 'images': _side_by_side(made)}


def _side_by_side(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """One tree whose leaves are lists of those of all trees, of the names that all have."""
  names = [name for name in trees[0] if all(tree.get(name) is not None for tree in trees)]
  return {
    name: _side_by_side([tree[name] for tree in trees])
    if isinstance(trees[0][name], Mapping)
    else [tree[name] for tree in trees]
    for name in names
  }


def _spread(values: Sequence[float], digits: int = 1, sign: str = '') -> str:
  """Mean ± standard deviation over seeds (of a sample)."""
  spread = f' ± {np.std(values, ddof=1):.{digits}f}' if len(values) > 1 else ''
  return f'{np.mean(values):{sign}.{digits}f}{spread}'


def _percent(values: Sequence[float], sign: str = '') -> str:
  return _spread([100 * value for value in values], sign=sign)


def _table(title: str, heads: Sequence[str], rows: Mapping[str, Sequence[str]]) -> list[str]:
  lines = [f'| {title} | {" | ".join(heads)} |', '| --- ' * (len(heads) + 1) + '|']
  return lines + [f'| {name} | {" | ".join(cells_)} |' for name, cells_ in rows.items()]


def markdown(summary: Mapping[str, Any]) -> str:
  """Two tables of means ± standard deviations over seeds: recognition, with paired differences, and the images."""
  title = f'{len(summary["seeds"])} seed{"s" if len(summary["seeds"]) > 1 else ""}'
  recognition = {}
  for row, values in summary['scores'].items():
    gains = summary['gains'].get(row)
    recognition[row] = [_percent(values[metric]) for metric in METRICS]
    recognition[row] += [_percent(gains[metric], '+') if gains else '' for metric in METRICS]
  heads = [*METRICS.values(), *(f'{label}, over real images only' for label in METRICS.values())]
  lines = _table(title, heads, recognition)
  images = {
    f'{label}, {group}': [
      _spread(values[group][name], IMAGE_DIGITS[name]) if name in values[group] else '' for name in IMAGE_DIGITS
    ]
    for kind, label in IMAGE_KINDS.items()
    if (values := summary['images'].get(kind))
    for group in ('plain', 'patterned')
    if group in values
  }
  if images:
    lines += ['', *_table(title, ['PSNR, dB', 'SSIM', 'colour error, dE', 'pattern fidelity'], images)]
  return '\n'.join(lines)


def plot(summary: Mapping[str, Any], path: pathlib.Path) -> None:
  """A dot for each seed and a line at the mean, rank-1 beside mAP."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second
  from matplotlib.figure import Figure

  figure = Figure(figsize=(9, 1 + 0.36 * len(summary['scores'])), layout='constrained')
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
