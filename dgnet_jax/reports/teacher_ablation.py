"""Which options make a better teacher? The teacher alone, trained once per variant and seed, on the built-in data.

All runs of a seed have the same data and the same number of steps; initial weights are the same where the networks are.
"""

from collections.abc import Callable, Mapping, Sequence
import csv
import dataclasses
import logging
import pathlib
import re
from typing import Any

import numpy as np

from dgnet_jax.config.defaults import unfrozen
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import validate, with_fields
from dgnet_jax.data.dataset import RANKED_SPLITS, index_to_rank, open_dataset
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import read_results, settings_of
from dgnet_jax.reports.seed_runs import (
  METRICS,
  check_same_data,
  check_seeds,
  percent,
  plot_scores,
  results_with,
  table_lines,
)
from dgnet_jax.reports.teacher_variants import BASELINE, VARIANTS, Fields
from dgnet_jax.training.data_record import describe_training_data
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.extras import require_wandb
from dgnet_jax.utils.locks import LOCK_FILE, exclusive

logger = logging.getLogger(__name__)

RESULTS = 'teacher_results.json'


@dataclasses.dataclass(frozen=True)
class TeacherRun:
  """A teacher to train.

  Attributes:
    title: of its variant.
    seed: its seed.
    workdir: its work folder.
    config: of the run.
  """

  title: str
  seed: int
  workdir: pathlib.Path
  config: Config


def teacher_runs(base: Config, folder: pathlib.Path, seeds: Sequence[int]) -> list[TeacherRun]:
  """Lists the runs of all variants, seed by seed.

  Raises:
    UserError: the base config does not allow a variant.
  """
  return [_teacher_run(base, folder, title, fields, seed) for seed in seeds for title, fields in VARIANTS]


def _teacher_run(base: Config, folder: pathlib.Path, title: str, fields: Fields, seed: int) -> TeacherRun:
  root = base.data.root or str(folder / 'data')  # the same images for all runs
  # The re-id network, which is not trained here, may start from a teacher, but not from one with another backbone.
  config = with_fields(base, {**fields, 'seed': seed, 'data.root': root, 'reid.pretrained': ''})
  name = re.sub(r'\W+', '_', title).strip('_')
  return TeacherRun(title, seed, folder / f'teacher_{name}_{seed}', validate(unfrozen(config)))


def train_and_evaluate(run: TeacherRun) -> None:
  """Trains a teacher and measures it on the split to evaluate; resumes an interrupted run."""
  from dgnet_jax.interop.pretrained import check_pretrained
  from dgnet_jax.reports.validation import make_measure
  from dgnet_jax.training.run_record import recorded
  from dgnet_jax.training.teacher_loop import train_teacher
  from dgnet_jax.training.training_data import open_training_data

  config, workdir = run.config, run.workdir
  check_pretrained(config, workdir)
  save_config(config, workdir / SAVED_CONFIG)
  # Before training: missing splits, queries without any match, and data that changed since another teacher was trained.
  split = config.evaluation.split
  index = index_to_rank(open_dataset(config.data, workdir, needs=('train', *RANKED_SPLITS[split])), split)
  check_same_data(describe_training_data(index, config.data), workdir)
  with recorded(workdir, 'teacher', config):
    train_teacher(config, open_training_data(config, workdir, teacher_only=True), workdir, make_measure=make_measure)
    write_json(workdir / RESULTS, _evaluated(run, index))


def _evaluated(run: TeacherRun, index: DatasetIndex) -> dict[str, Any]:
  """Returns the ranking tables of a trained teacher, and the settings of the evaluation."""
  from dgnet_jax.inference.loading import load_teacher_predictor
  from dgnet_jax.reports.embedding import embed_splits
  from dgnet_jax.reports.ranking import TableRow, ranking_tables

  config = run.config
  predictor = load_teacher_predictor(config, run.workdir, index.num_identities)
  embeddings = embed_splits(index, config.data.image_size_hw, predictor, run.title)
  tables = ranking_tables(config.evaluation, {'teacher': TableRow(embeddings, None)})
  return {'settings': settings_of(config.evaluation), **tables}


def run_all(
  base: Config,
  folder: pathlib.Path,
  seeds: Sequence[int],
  *,
  run_one: Callable[[TeacherRun], None] = train_and_evaluate,
) -> dict[str, Any]:
  """Runs what is missing, and writes teacher_ablation.json, .md, .csv and .png.

  Args:
    base: config of all runs, apart from what the variants set.
    folder: folder for the results and the work folders.
    seeds: distinct seeds.
    run_one: trains and evaluates one teacher.

  Returns:
    The contents of teacher_ablation.json, as from `summarize`.

  Raises:
    UserError: seeds repeat, the base config is unsuitable, the folder holds runs with other settings, or another
      ablation runs in it.
  """
  check_seeds(seeds)
  require_wandb(base.log.wandb_project)
  folder = folder.resolve()  # the configs refer to the data in it
  runs = teacher_runs(base, folder, seeds)
  done = [results_with(run.config, run.workdir, run.workdir / RESULTS) is not None for run in runs]
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the ablation in {folder}'):
    for number, (run, is_done) in enumerate(zip(runs, done, strict=True), 1):
      title = f'teacher {number}/{len(runs)}: {run.title}, seed {run.seed}'
      logger.info(f'{title}: {"done, " if is_done else ""}in {run.workdir}')
      if not is_done:
        run_one(run)
  summary = summarize(runs, seeds)
  text = markdown(summary)
  write_json(folder / 'teacher_ablation.json', summary)
  with atomic_file(folder / 'teacher_ablation.md') as temporary:
    temporary.write_text(text + '\n', encoding='utf-8')
  _write_csv(folder / 'teacher_ablation.csv', summary)
  plot_scores(summary['scores'], folder / 'teacher_ablation.png')
  logger.info(f'{text}\n{folder}/teacher_ablation.json, .md, .csv, .png')
  return summary


def summarize(runs: Sequence[TeacherRun], seeds: Sequence[int]) -> dict[str, Any]:
  """Collects the results of all runs.

  Returns:
    seeds. split: that was ranked. scores: variant -> metric -> a fraction for each seed. gains: the same, minus the
    scores of the release's settings.

  Raises:
    UserError: a file of results is damaged.
  """
  scores: dict[str, dict[str, list[float]]] = {}
  for run in runs:
    path = run.workdir / RESULTS
    try:
      row = read_results(path)['single_query']['teacher']
      for metric in METRICS:
        scores.setdefault(run.title, {}).setdefault(metric, []).append(float(row[metric]))
    except (KeyError, TypeError, ValueError) as error:
      raise UserError(f'{path} is damaged ({error!r}); move it away, and run the ablation again') from error
  gains = {
    title: {metric: np.subtract(values[metric], scores[BASELINE][metric]).tolist() for metric in METRICS}
    for title, values in scores.items()
    if title != BASELINE
  }
  return {'seeds': list(seeds), 'split': runs[0].config.evaluation.split, 'scores': scores, 'gains': gains}


def markdown(summary: Mapping[str, Any]) -> str:
  """Formats a summary as a table of means ± standard deviations over seeds, with differences paired by seed."""
  rows = {}
  for title, values in summary['scores'].items():
    gains = summary['gains'].get(title)
    rows[title] = [percent(values[metric]) for metric in METRICS]
    rows[title] += [percent(gains[metric], '+') if gains else '' for metric in METRICS]
  headings = [*METRICS.values(), *(f'{label}, gain over the {BASELINE}' for label in METRICS.values())]
  count = len(summary['seeds'])
  return '\n'.join(
    table_lines(f'teacher, {summary["split"]} images, {count} seed{"s" if count > 1 else ""}', headings, rows)
  )


def _write_csv(path: pathlib.Path, summary: Mapping[str, Any]) -> None:
  """Writes a line for each run: variant, seed, and its scores as fractions."""
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', newline='') as file:
    writer = csv.writer(file)
    writer.writerow(['variant', 'seed', *METRICS])
    for title, values in summary['scores'].items():
      for number, seed in enumerate(summary['seeds']):
        writer.writerow([title, seed, *(repr(values[metric][number]) for metric in METRICS)])
