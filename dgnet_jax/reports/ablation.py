"""Is joint training worth it? Runs of the same networks with and without generated images, over several seeds.

A cell is one run: a kind and a seed. `joint` is DG-Net. `real` (joint=False) is the same re-id network with the same
initial weights, steps, batches and augmentation, and both of its heads train on real images only; so the comparison
does not credit joint training with a longer schedule or a second head. `release`, optional, is DG-Net with the
generator of the release's design and its own settings, so that teaching may start at another step than in `real`.
`ground_truth`, an optional upper bound, trains the network of `real` on the rendered ground truth in place of generated
images: what a perfect generator would give.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.defaults import unfrozen
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import validate
from dgnet_jax.data.dataset import RANKED_SPLITS, index_to_rank, open_dataset
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import read_results, split_folder
from dgnet_jax.reports.seed_runs import (
  METRICS,
  check_same_data,
  check_seeds,
  mean_and_deviation,
  percent,
  plot_scores,
  results_with,
  table_lines,
)
from dgnet_jax.training.data_record import describe_training_data
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.extras import require_wandb
from dgnet_jax.utils.locks import LOCK_FILE, exclusive

logger = logging.getLogger(__name__)

IMAGE_KINDS = {
  'cross': 'cross images',
  'structure': 'baseline: the structure image',
  'self': 'self-reconstruction',
  'same_person': 'same-person reconstruction',
}
IMAGE_HEADINGS = {
  'psnr': 'PSNR, dB',
  'ssim': 'SSIM',
  'colour_error': 'colour error, dE',
  'pattern_fidelity': 'pattern fidelity',
}
IMAGE_DIGITS = {'psnr': 2, 'ssim': 3, 'colour_error': 1, 'pattern_fidelity': 3}
EMBEDDINGS = {'primary': 'primary', 'fine_grained': 'fine-grained', 'both': 'both'}
KINDS = {
  'real': 'real images only',
  'joint': 'DG-Net',
  'release': "DG-Net with the release's generator",
  'ground_truth': 'ground-truth images',
}
# Row of the table -> the kind of cell and the embedding that it shows.
ROWS = {'teacher': ('joint', 'teacher')}
ROWS |= {f'{kind}, {label}': (key, name) for key, kind in KINDS.items() for name, label in EMBEDDINGS.items()}
# Row -> the row that it is compared with, seed by seed: the same embedding, trained on real images only.
BASELINES = {
  f'{KINDS[key]}, {label}': f'{KINDS["real"]}, {label}'
  for key in ('joint', 'release', 'ground_truth')
  for label in EMBEDDINGS.values()
}


@dataclasses.dataclass(frozen=True)
class Cell:
  """A run: its kind (one of `KINDS`), its seed and its work folder."""

  kind: str
  seed: int
  workdir: pathlib.Path


def cells(folder: pathlib.Path, seeds: Sequence[int], kinds: Sequence[str] = ('joint', 'real')) -> list[Cell]:
  """Lists the cells in the order in which they run: a seed's joint run, the first, trains the teacher of the others."""
  return [Cell(kind, seed, folder / f'{kind}_{seed}') for seed in seeds for kind in kinds]


def cell_config(base: Config, cell: Cell, folder: pathlib.Path) -> Config:
  """Returns the config of a cell in `folder`.

  Raises:
    UserError: the base config does not allow runs without generated images, or has no ground truth for such a cell.
  """
  config = unfrozen(base)
  config.seed = cell.seed
  config.data.root = config.data.root or str(folder / 'data')  # the same images for all cells
  config.joint = cell.kind in ('joint', 'release')
  if cell.kind != 'joint':
    config.teacher.checkpoint = config.teacher.checkpoint or str(folder / f'joint_{cell.seed}' / 'teacher')
  if cell.kind == 'ground_truth':
    config.teaching.images = 'ground_truth'
  return validate(config)


def run_cell(config: Config, cell: Cell) -> None:
  """Trains and evaluates a cell; resumes an interrupted one."""
  from dgnet_jax.reports.evaluation import evaluate
  from dgnet_jax.reports.validation import make_measure
  from dgnet_jax.training.loop import train
  from dgnet_jax.training.run_record import recorded

  save_config(config, cell.workdir / SAVED_CONFIG)
  # Before training: missing splits, queries without any match, and data that changed since another cell was trained.
  split = config.evaluation.split
  index = index_to_rank(open_dataset(config.data, cell.workdir, needs=('train', *RANKED_SPLITS[split])), split)
  check_same_data(describe_training_data(index, config.data), cell.workdir)
  with recorded(cell.workdir, 'train', config):
    train(config, cell.workdir, make_measure=make_measure)
    evaluate(config, cell.workdir)


def run_all(
  base: Config,
  folder: pathlib.Path,
  seeds: Sequence[int],
  *,
  release: Config | None = None,
  with_ground_truth: bool = False,
  run: Callable[[Config, Cell], None] = run_cell,
) -> dict[str, Any]:
  """Runs the cells that are not done yet, and writes ablation.json, ablation.md and ablation.png.

  Args:
    base: config of the joint runs.
    folder: folder for the results and the cells' work folders.
    seeds: distinct seeds.
    release: config of the release cells; None runs none.
    with_ground_truth: also run the ground_truth cells; needs the built-in pedestrians.
    run: runs one cell.

  Returns:
    The contents of ablation.json, as from `summarize`.

  Raises:
    UserError: seeds repeat, the base config is unsuitable, the folder holds cells with other settings, or another
      ablation runs in it.
  """
  check_seeds(seeds)
  require_wandb(base.log.wandb_project)
  folder = folder.resolve()  # the cells' configs refer to the data and the teacher in it
  bases = {'joint': base, 'release': release, 'real': base, 'ground_truth': base if with_ground_truth else None}
  kinds = [kind for kind, of_kind in bases.items() if of_kind]
  all_cells = cells(folder, seeds, kinds)
  configs = [cell_config(bases[cell.kind] or base, cell, folder) for cell in all_cells]
  done = [_is_done(config, cell) for config, cell in zip(configs, all_cells, strict=True)]
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the ablation in {folder}'):
    for number, (config, cell, is_done) in enumerate(zip(configs, all_cells, done, strict=True), 1):
      title = f'cell {number}/{len(all_cells)}: {cell.kind}, seed {cell.seed}'
      logger.info(f'{title}: {"done, " if is_done else ""}in {cell.workdir}')
      if not is_done:
        run(config, cell)
  summary = summarize(folder, seeds, kinds, split=base.evaluation.split)
  write_json(folder / 'ablation.json', summary)
  text = markdown(summary)
  with atomic_file(folder / 'ablation.md') as temporary:
    temporary.write_text(text + '\n', encoding='utf-8')
  plot(summary, folder / 'ablation.png')
  logger.info(f'{text}\n{folder}/ablation.json, ablation.md, ablation.png')
  return summary


def _results_path(cell: Cell, split: str) -> pathlib.Path:
  return split_folder(cell.workdir / 'evaluation', split) / 'results.json'


def _is_done(config: Config, cell: Cell) -> bool:
  """Returns True if a cell has the results of its last step.

  Raises:
    UserError: the cell was run with other settings, so that a table would mix two experiments, or its results are
      damaged.
  """
  results = results_with(config, cell.workdir, _results_path(cell, config.evaluation.split))
  # Another evaluation of the cell may have replaced these results.
  return results is not None and results.get('step') == config.num_steps


def summarize(
  folder: pathlib.Path, seeds: Sequence[int], kinds: Sequence[str] = ('joint', 'real'), *, split: str = 'test'
) -> dict[str, Any]:
  """Collects the results of all cells.

  Args:
    folder: folder of the cells, all of which are done.
    seeds: seeds of the cells.
    kinds: of the cells.
    split: that was evaluated, test or validation.

  Returns:
    seeds. split. scores: row -> metric -> a fraction for each seed. gains: the same, minus the scores of the row's
    baseline (`BASELINES`). images: kind of cell that generates -> kind of image -> group -> measure -> a number for
    each seed, from the `images` of `reports.evaluation.evaluate`; without the values that a seed lacks, and empty on
    other data than the built-in pedestrians.
  """
  all_cells = cells(folder, seeds, kinds)
  results = {(cell.kind, cell.seed): read_results(_results_path(cell, split)) for cell in all_cells}
  try:
    scores = {
      row: {metric: [results[kind, seed]['single_query'][embedding][metric] for seed in seeds] for metric in METRICS}
      for row, (kind, embedding) in ROWS.items()
      if (kind, seeds[0]) in results
    }
  except (KeyError, TypeError) as error:
    raise UserError(f'{folder}: a cell has a damaged results.json ({error}); move it away') from error
  gains = {
    row: {metric: np.subtract(scores[row][metric], scores[baseline][metric]).tolist() for metric in METRICS}
    for row, baseline in BASELINES.items()
    if row in scores
  }
  images = {
    kind: _merge_leaves([results[kind, seed].get('images', {}) for seed in seeds])
    for kind in kinds
    if kind in ('joint', 'release')
  }
  return {'seeds': list(seeds), 'split': split, 'scores': scores, 'gains': gains, 'images': images}


def _merge_leaves(trees: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Returns one tree whose leaves are lists of the trees' leaves, with the names that all trees have."""
  names = [name for name in trees[0] if all(tree.get(name) is not None for tree in trees)]
  return {
    name: _merge_leaves([tree[name] for tree in trees])
    if isinstance(trees[0][name], Mapping)
    else [tree[name] for tree in trees]
    for name in names
  }


def markdown(summary: Mapping[str, Any]) -> str:
  """Formats a summary as two tables of means ± standard deviations over seeds.

  The first table has the rankings with paired differences, the second the images.
  """
  title = f'{summary["split"]} images, {len(summary["seeds"])} seed{"s" if len(summary["seeds"]) > 1 else ""}'
  rankings = {}
  for row, values in summary['scores'].items():
    gains = summary['gains'].get(row)
    rankings[row] = [percent(values[metric]) for metric in METRICS]
    rankings[row] += [percent(gains[metric], '+') if gains else '' for metric in METRICS]
  headings = [*METRICS.values(), *(f'{label}, gain over {KINDS["real"]}' for label in METRICS.values())]
  lines = table_lines(title, headings, rankings)
  images = {
    f'{KINDS[cell_kind]}, {label}, {group}': [
      mean_and_deviation(values[group][name], digits) if name in values[group] else ''
      for name, digits in IMAGE_DIGITS.items()
    ]
    for cell_kind, by_kind in summary['images'].items()
    for kind, label in IMAGE_KINDS.items()
    if (values := by_kind.get(kind))
    for group in ('plain', 'patterned')
    if group in values
  }
  if images:
    lines += ['', *table_lines(title, [*IMAGE_HEADINGS.values()], images)]
  return '\n'.join(lines)


def plot(summary: Mapping[str, Any], path: pathlib.Path) -> None:
  """Draws every seed's scores and their means as a PNG."""
  plot_scores(summary['scores'], path)
