"""Evaluates a trained run: rankings compared with chance, images with trivial baselines, and sheets to look at."""

from collections.abc import Mapping
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import TEST_SPLITS, open_dataset
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex, Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.ranking import best_matches
from dgnet_jax.generation.sheets import write_swap_sheet
from dgnet_jax.inference.loading import load_predictor, load_teacher_predictor
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.inference.results import keep_earlier, results_folder, settings_of
from dgnet_jax.plots.sheets import ranked_sheet
from dgnet_jax.reports.figures import image_label
from dgnet_jax.reports.ground_truth import image_table, measure_against_ground_truth
from dgnet_jax.reports.ranking import (
  TITLES,
  SplitEmbeddings,
  Table,
  TableRow,
  alpha_of,
  plot_alphas,
  plot_roc,
  ranking_table,
  ranking_tables,
  table_rows,
  write_csv,
)
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.paths import local_path
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

RESULTS = 'results.json'
FILES = {name: f'{name}.png' for name in ('ranked', 'alphas', 'roc', 'swaps', 'ground_truth')}
FILES['rankings'] = 'rankings.csv'
SUBJECT = ('step', 'data', 'root', 'settings')  # results that differ in one of these are of something else
MATCHES_PER_QUERY = 10  # gallery images per query on the ranked sheet


def evaluate(config: Config, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Evaluates the newest checkpoint of a run: logs the tables, writes results and sheets to `<workdir>/evaluation`.

  The config may name other data than the run was trained on (direct transfer). The results are then written to a
  subfolder, `<workdir>/evaluation/on_<layout>_<root>_<hash>`, and the teacher is evaluated on the same data. Earlier
  results of another step or with other settings are moved to the subfolder `earlier`.

  Args:
    config: the run's validated config.
    workdir: the run's work folder.

  Returns:
    The contents of results.json: what was evaluated, the tables of `reports.ranking.ranking_tables` (also in
    rankings.csv), for the built-in pedestrians `images` (`reports.ground_truth.measure_against_ground_truth`), and
    `files`, the names of the other files.

  Raises:
    UserError: the data set, the checkpoint or the teacher is missing or damaged, or they do not fit each other.
  """
  workdir = local_path(workdir)
  index = open_dataset(config.data, workdir, needs=TEST_SPLITS)
  predictor = load_predictor(config, workdir)
  results = _describe(config, index, predictor)
  counts = f'{results["num_queries"]} queries, {results["num_gallery"]} gallery images'
  logger.info(f'evaluating step {predictor.step} on {index.name}: {counts}')
  teacher = load_teacher_predictor(config, workdir, predictor.num_identities)
  size_hw = config.data.image_size_hw
  dgnet_embeddings = _embed_splits(index, size_hw, predictor, 'DG-Net')
  teacher_embeddings = _embed_splits(index, size_hw, teacher, 'teacher')
  rows = table_rows(config.reid, config.evaluation, dgnet_embeddings, teacher_embeddings)
  tables = ranking_tables(config.evaluation, rows)
  for name, table in tables.items():
    logger.info(ranking_table(TITLES[name], table, config.evaluation.alpha))
  results |= tables

  folder = results_folder(config, index, workdir, 'evaluation')
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the results in {folder}', wait=True):
    keep_earlier(folder, results, (RESULTS, *FILES.values()), subject=SUBJECT)
    files = _write_tables(config, folder, tables, rows)
    _write_ranked_sheet(folder / files['ranked'], config, index, dgnet_embeddings)
    if predictor.generator is not None:
      files['swaps'] = FILES['swaps']
      write_swap_sheet(folder / files['swaps'], index.query, predictor, config.evaluation.num_swaps)
      if config.data.layout == 'synthetic':
        files['ground_truth'] = FILES['ground_truth']
        real_features = np.concatenate([teacher_embeddings.query.features, teacher_embeddings.gallery.features])
        results['images'] = measure_against_ground_truth(
          config, index, predictor, teacher, real_features, folder / files['ground_truth']
        )
        logger.info(image_table(results['images']))
    results['files'] = files
    write_json(folder / RESULTS, results)
  logger.info(f'results and images: {", ".join(str(folder / name) for name in (RESULTS, *files.values()))}')
  return results


def _write_tables(
  config: Config, folder: pathlib.Path, tables: Mapping[str, Table], rows: Mapping[str, TableRow]
) -> dict[str, str]:
  """Writes the tables and their charts, and returns the names of all files that every evaluation has."""
  files = {name: FILES[name] for name in ('rankings', 'ranked')}
  write_csv(folder / files['rankings'], tables)
  if 'alphas' in tables:
    files['alphas'] = FILES['alphas']
    plot_alphas(folder / files['alphas'], tables['alphas'], config.evaluation.alpha)
  if config.evaluation.verification:
    files['roc'] = FILES['roc']
    plot_roc(folder / files['roc'], rows)
  return files


def _describe(config: Config, index: DatasetIndex, predictor: Predictor) -> dict[str, Any]:
  gallery = index.gallery.identity
  return {
    'step': predictor.step,
    'data': index.name,
    'root': index.root,
    'protocol': config.evaluation.protocol,
    'settings': settings_of(config.evaluation),
    'num_queries': len(index.query),
    'num_gallery': len(index.gallery),
    'num_distractors': int((gallery == DISTRACTOR).sum()),
    'num_junk': int((gallery == JUNK).sum()),
    'num_multi_query': len(index.multi_query),
  }


def _embed_splits(
  index: DatasetIndex, size_hw: tuple[int, int], predictor: Predictor | TeacherPredictor, title: str
) -> SplitEmbeddings:
  """Embeds the test splits; `title` names the network in progress lines."""

  def embed(name: str, split: Split) -> Embeddings:
    features = predictor.embed(ImageFiles(split.paths, size_hw), label=f'{title}: embedding {name}')
    return Embeddings(features, split.identity, split.camera)

  return SplitEmbeddings(
    query=embed('query', index.query),
    gallery=embed('gallery', index.gallery),
    multi_query=embed('multi_query', index.multi_query) if len(index.multi_query) else None,
  )


def _write_ranked_sheet(path: pathlib.Path, config: Config, index: DatasetIndex, embeddings: SplitEmbeddings) -> None:
  """Draws queries of different identities with their most similar gallery images."""
  query, gallery, size_hw = index.query, index.gallery, config.data.image_size_hw
  chosen = query.one_per_identity(config.evaluation.num_ranked_queries)
  alpha = alpha_of(config.reid, config.evaluation)
  best = best_matches(embeddings.query.select(chosen), embeddings.gallery, alpha=alpha, count=MATCHES_PER_QUERY)
  sheet = ranked_sheet(
    ImageFiles([query.paths[i] for i in chosen], size_hw)[:],
    [image_label(query, i) for i in chosen],
    [ImageFiles([gallery.paths[j] for j in row], size_hw)[:] for row in best],
    [[image_label(gallery, j) for j in row] for row in best],
    [(gallery.identity[row] == query.identity[i]).tolist() for i, row in zip(chosen, best, strict=True)],
  )
  save_image(path, sheet)
