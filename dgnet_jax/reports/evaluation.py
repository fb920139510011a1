"""The report on a trained run: rankings next to chance, images next to trivial answers, and sheets to look at."""

from collections.abc import Callable
import functools
import json
import logging
import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import TEST, open_dataset
from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex
from dgnet_jax.data.lazy_images import ImageFiles, Pixels
from dgnet_jax.evaluation import ranking
from dgnet_jax.generation.swap_sheet import write_swap_sheet
from dgnet_jax.inference.functions import embed_teacher
from dgnet_jax.inference.trained import Trained, load_trained, one_image_each, results_folder
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.plots import sheets
from dgnet_jax.reports.ground_truth import image_table, measure_against_truth
from dgnet_jax.reports.ranking import (
  TITLES,
  Embeddings,
  alpha_of,
  plot_alphas,
  plot_roc,
  ranking_table,
  ranking_tables,
  write_csv,
)
from dgnet_jax.sharding import replicated
from dgnet_jax.training.teacher_loop import load_teachers
from dgnet_jax.utils.atomic_files import whole_file

logger = logging.getLogger(__name__)


SHOWN_MATCHES = 10  # gallery images per query on the ranked sheet


def _embed_splits(
  index: DatasetIndex, image_size_hw: tuple[int, int], who: str, embed: Callable[..., np.ndarray]
) -> Embeddings:
  """Applies `embed(files, what=...)` to the test splits."""
  made: dict[str, np.ndarray | None] = {}
  for name in ('query', 'gallery', 'multi_query'):
    paths = index.splits[name].paths
    made[name] = embed(ImageFiles(paths, image_size_hw), what=f'{who}: embedding {name}') if paths else None
  return Embeddings(**made)  # type: ignore[arg-type]  # only multi_query may be empty


def _write_ranked_sheet(config: Config, index: DatasetIndex, dgnet: Embeddings, path: pathlib.Path) -> pathlib.Path:
  """Queries of different people with their best gallery images by the whole embedding."""
  query, gallery, size = index.query, index.gallery, config.data.image_size_hw
  chosen = one_image_each(query, config.evaluation.num_ranked_queries)
  best = ranking.best_matches(
    dgnet.query[chosen],
    query.identity[chosen],
    query.camera[chosen],
    dgnet.gallery,
    gallery.identity,
    gallery.camera,
    alpha=alpha_of(config),
    count=SHOWN_MATCHES,
  )

  def label(identity: int, camera: int) -> list[str]:
    return ['distractor' if identity == DISTRACTOR else f'id {identity:04d}', f'camera {camera}']

  sheet = sheets.ranked_sheet(
    ImageFiles([query.paths[i] for i in chosen], size)[:],
    [label(query.identity[i], query.camera[i]) for i in chosen],
    [ImageFiles([gallery.paths[j] for j in row], size)[:] for row in best],
    [[label(gallery.identity[j], gallery.camera[j]) for j in row] for row in best],
    [(gallery.identity[row] == query.identity[i]).tolist() for i, row in zip(chosen, best, strict=True)],
  )
  return sheets.save_png(path, sheet)


def _describe(config: Config, index: DatasetIndex, trained: Trained) -> dict[str, Any]:
  gallery = index.gallery.identity
  return {
    'step': trained.step,
    'data': index.name,
    'root': index.root,
    'protocol': config.evaluation.protocol,
    'num_queries': len(index.query),
    'num_gallery': len(index.gallery),
    'num_distractors': int((gallery == DISTRACTOR).sum()),
    'num_junk': int((gallery == JUNK).sum()),
    'num_multi_query': len(index.multi_query),
  }


def evaluate(config: Config, workdir: str | pathlib.Path) -> dict[str, Any]:
  """Evaluates the newest checkpoint of a run: logs the tables, writes results and sheets to `<workdir>/evaluation`.

  The config may name other data than the run was trained on (direct transfer): then they are in a folder of their own,
  `<workdir>/evaluation/on_<layout>_<root>`, and the teacher is judged on the same data.


  Args:
    config: of the run, validated.
    workdir: of the run.

  Returns:
    What results.json holds: what was evaluated, the tables of `ranking_report.ranking_tables` (also in rankings.csv),
    on the built-in pedestrians `images` (`truth_report.measure_against_truth`), and `files`.

  Raises:
    UserError: data set, checkpoint or teacher are missing, damaged or do not fit; says which.
  """
  workdir = pathlib.Path(workdir)
  index = open_dataset(config, workdir, needs=TEST)
  trained = load_trained(config, workdir)
  results = _describe(config, index, trained)
  counts = f'{results["num_queries"]} queries, {results["num_gallery"]} gallery images'
  logger.info(f'evaluating step {trained.step} on {index.name}: {counts}')
  size = config.data.image_size_hw
  dgnet = _embed_splits(index, size, 'DG-Net', functools.partial(trained.embed))
  embed_by_teacher = _teacher_embedder(config, trained, workdir)
  teacher = _embed_splits(index, size, 'teacher', embed_by_teacher)
  tables = ranking_tables(config, index, dgnet, teacher)
  for name, table in tables.items():
    logger.info(ranking_table(TITLES[name], table, config.evaluation.alpha))
  results |= tables

  folder = results_folder(config, index, workdir, 'evaluation')
  files = {'rankings': folder / 'rankings.csv', 'ranked': folder / 'ranked.png'}
  write_csv(folder / 'rankings.csv', tables)
  if 'alphas' in tables:
    files['alphas'] = folder / 'alphas.png'
    plot_alphas(files['alphas'], tables['alphas'], config.evaluation.alpha)
  if config.evaluation.verification:
    files['roc'] = folder / 'roc.png'
    plot_roc(files['roc'], config, index, dgnet, teacher)
  _write_ranked_sheet(config, index, dgnet, files['ranked'])
  if trained.trained_generator is not None:
    files['swaps'] = folder / 'swaps.png'
    write_swap_sheet(config, index, trained, files['swaps'])
  if trained.trained_generator is not None and config.data.layout == 'synthetic':
    files['truth'] = folder / 'truth.png'
    real = np.concatenate([teacher.query, teacher.gallery])
    results['images'] = measure_against_truth(config, index, trained, embed_by_teacher, real, files['truth'])
    logger.info(image_table(results['images']))
  results['files'] = {name: path.name for name, path in files.items()}
  with whole_file(folder / 'results.json') as aside:
    aside.write_text(json.dumps(results, indent=2) + '\n')
  logger.info(f'results and images: {", ".join(str(path) for path in (folder / "results.json", *files.values()))}')
  return results


def _teacher_embedder(config: Config, trained: Trained, workdir: pathlib.Path) -> Callable[..., np.ndarray]:
  """`inference.embed_teacher` with the run's teacher, the first of several."""
  teacher = load_teachers(config, trained.num_identities, workdir)[0]
  teacher = jax.device_put(jax.device_get(teacher), replicated(trained.mesh))  # from all processes' devices to ours
  network = make_teacher_network(config, trained.num_identities)

  def embed(files: Pixels, *, what: str) -> np.ndarray:
    return embed_teacher(
      network, teacher.params, teacher.batch_stats, files, config.evaluation.batch_size, mesh=trained.mesh, what=what
    )

  return embed
