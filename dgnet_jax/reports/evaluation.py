"""Evaluates a trained run: rankings compared with chance, images with trivial baselines, and sheets to look at."""

from collections.abc import Mapping
import contextlib
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.evaluation.ranking import best_matches
from dgnet_jax.evaluation.verification import accepted_rates
from dgnet_jax.generation.sheets import write_swap_sheet
from dgnet_jax.inference.calibration import threshold_of
from dgnet_jax.inference.loading import Step, load_predictor, load_teacher_predictor
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.inference.results import evaluation_folder, keep_earlier
from dgnet_jax.inference.scoring import piece_shares, scored
from dgnet_jax.plots.sheets import ranked_sheet
from dgnet_jax.reports.embedding import embed_splits
from dgnet_jax.reports.evaluated_data import (
  describe_evaluation,
  find_overlaps,
  open_evaluated_data,
  warn_about_invalid_queries,
)
from dgnet_jax.reports.figures import image_label
from dgnet_jax.reports.ground_truth import TeacherJudge, image_table, measure_against_ground_truth
from dgnet_jax.reports.ranked_table import write_ranked_table
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
from dgnet_jax.reports.tracklets import tracklet_embeddings
from dgnet_jax.training.agreement import from_first_process, in_all_processes
from dgnet_jax.training.data_record import saved_steps
from dgnet_jax.training.teacher_store import read_description, teacher_folders, without_teacher
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.paths import local_path
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

RESULTS = 'results.json'
FILES = {name: f'{name}.png' for name in ('ranked', 'alphas', 'roc', 'swaps', 'ground_truth')}
FILES |= {'rankings': 'rankings.csv', 'ranked_table': 'ranked_table'}
SUBJECT = ('step', 'data', 'root', 'settings')  # results that differ in one of these are of something else
MATCHES_PER_QUERY = 10  # gallery images per query on the ranked sheet


@dataclasses.dataclass(frozen=True)
class _Embedded:
  """The networks of a run and their embeddings of the test splits; None for a teacher that is missing."""

  predictor: Predictor
  embeddings: SplitEmbeddings
  teacher: TeacherPredictor | None
  teacher_embeddings: SplitEmbeddings | None


def evaluate(config: Config, workdir: str | pathlib.Path, *, step: Step = None) -> dict[str, Any]:
  """Evaluates a checkpoint of a run: logs the tables, writes results and sheets to `<workdir>/evaluation`.

  The config may name other data than the run was trained on (direct transfer). The results are then written to a
  subfolder, `<workdir>/evaluation/on_<layout>_<root>_<hash>`, and the teacher is evaluated on the same data. Earlier
  results of another step or with other settings are moved to the subfolder `earlier`. Without the teacher, everything
  that does not need it is evaluated. Of a run without a checkpoint of DG-Net the teacher is evaluated alone, with
  results in the subfolder `teacher`. Several processes share the embedding and the ranked table; the first does the
  rest.

  Args:
    config: the run's validated config.
    workdir: the run's work folder.
    step: which checkpoint. The results of another one than the newest have their own subfolder, `step_NUMBER`.

  Returns:
    The contents of results.json: what was evaluated, `overlaps` (problems that make its scores wrong), the tables of
    `reports.ranking.ranking_tables` (also in rankings.csv), for the built-in pedestrians `images`
    (`reports.ground_truth.measure_against_ground_truth`), and `files`, the names of the other files.

  Raises:
    UserError: the data set or the checkpoint is missing, one of them or the teacher is damaged, or they do not fit each
      other.
    NoMatches: no query has a match.
  """
  workdir = local_path(workdir)
  index = in_all_processes(lambda: open_evaluated_data(config, workdir))
  if step is None and from_first_process(lambda: _has_only_teacher(config, workdir)):
    return _evaluate_teacher(config, workdir, index)
  predictor = load_predictor(config, workdir, step=step)
  is_newest = from_first_process(lambda: predictor.step == max(saved_steps(workdir / 'checkpoints')))
  folder = evaluation_folder(config, index, workdir, None if step is None or is_newest else predictor.step)
  results = _announced(config, index, 'step', predictor.step)
  teacher, size_hw = _load_teacher(config, workdir, predictor.num_identities), config.data.image_size_hw
  embedded = _Embedded(
    predictor=predictor,
    embeddings=embed_splits(index, size_hw, predictor, 'DG-Net'),
    teacher=teacher,
    teacher_embeddings=embed_splits(index, size_hw, teacher, 'teacher') if teacher else None,
  )
  with contextlib.ExitStack() as locked:
    results = from_first_process(lambda: _write_results(config, workdir, folder, index, embedded, results, locked))
    if config.evaluation.ranked_table:
      query, gallery = embedded.embeddings.query, embedded.embeddings.gallery
      write_ranked_table(folder / FILES['ranked_table'], config, index, query, gallery)
  return results


def _write_results(
  config: Config,
  workdir: pathlib.Path,
  folder: pathlib.Path,
  index: DatasetIndex,
  embedded: _Embedded,
  results: dict[str, Any],
  locked: contextlib.ExitStack,
) -> dict[str, Any]:
  """Compares the embeddings and generates images, writes all to `folder`, and returns `results` with the measurements.

  `locked` keeps the lock of the results until it is closed.
  """
  ranked, of_teacher = embedded.embeddings, embedded.teacher_embeddings
  if config.evaluation.tracklets:
    ranked = tracklet_embeddings(ranked, index, len(piece_shares(config)))
    of_teacher = of_teacher and tracklet_embeddings(of_teacher, index, 1)
  rows = table_rows(config.reid, config.evaluation, ranked, of_teacher)
  tables = _add_tables(config, index, rows, results)

  same_person = _same_person(config, workdir, embedded)
  if same_person is not None:
    results['same_person'] = same_person
  predictor = embedded.predictor
  folder.mkdir(parents=True, exist_ok=True)
  locked.enter_context(exclusive(folder / LOCK_FILE, f'the results in {folder}', wait=True))
  keep_earlier(folder, results, (RESULTS, *FILES.values()), subject=SUBJECT)
  files = _write_tables(config, folder, tables, rows)
  alpha = alpha_of(config.reid, config.evaluation)
  _write_ranked_sheet(folder / files['ranked'], config, index, TableRow(embedded.embeddings, alpha))
  if predictor.generator is not None:
    files['swaps'] = FILES['swaps']
    write_swap_sheet(folder / files['swaps'], index.query, predictor, config.evaluation.num_swaps)
    if config.data.layout == 'synthetic':
      files['ground_truth'] = FILES['ground_truth']
      judge = _judge(embedded.teacher, embedded.teacher_embeddings)
      results['images'] = measure_against_ground_truth(config, index, predictor, judge, folder / files['ground_truth'])
      logger.info(image_table(results['images']))
  results['files'] = files
  write_json(folder / RESULTS, results)
  logger.info(f'results and images: {", ".join(str(folder / name) for name in (RESULTS, *files.values()))}')
  return results


def _add_tables(
  config: Config, index: DatasetIndex, rows: Mapping[str, TableRow], results: dict[str, Any]
) -> dict[str, Table]:
  """Compares the splits, ranks, logs the tables and adds all to `results`; returns the tables."""
  results['overlaps'] = find_overlaps(index, config.data.decode_threads)
  if config.evaluation.tracklets:
    ranked = next(iter(rows.values())).embeddings
    results |= {'num_query_tracks': len(ranked.query), 'num_gallery_tracks': len(ranked.gallery)}
  tables = ranking_tables(config.evaluation, rows)
  for name, table in tables.items():
    logger.info(ranking_table(TITLES[name], table, config.evaluation.alpha))
  results |= tables
  return tables


def _same_person(config: Config, workdir: pathlib.Path, embedded: _Embedded) -> dict[str, float] | None:
  """Measures the threshold of `dgnet calibrate` on these images; None without a threshold of this checkpoint."""
  score = threshold_of(workdir, config, embedded.predictor.embedder_digest)
  if score is None:
    return None
  shares = piece_shares(config)
  query, gallery = (
    images.with_features(scored(images.features, shares))
    for images in (embedded.embeddings.query, embedded.embeddings.gallery)
  )
  true_rate, false_rate = accepted_rates(query, gallery, score=score)
  logger.info(
    f'same person from a score of {score:.4f}: true for {100 * true_rate:.2f}% of the pairs of one person, and for '
    f'{100 * false_rate:.4g}% of those of two people'
  )
  return {'score': score, 'true_positive_rate': true_rate, 'false_positive_rate': false_rate}


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


def _announced(config: Config, index: DatasetIndex, networks: str, step: int) -> dict[str, Any]:
  """Logs what is evaluated, and returns it."""
  results = describe_evaluation(config, index, step)
  counts = (
    f'{results["num_queries"]} queries, {results["num_valid_queries"]} of them with a match, '
    f'{results["num_gallery"]} gallery images'
  )
  logger.info(f'evaluating {networks} {step} on {index.name}: {counts}')
  warn_about_invalid_queries(index, config.evaluation.protocol)
  return results


def _has_only_teacher(config: Config, workdir: pathlib.Path) -> bool:
  return not saved_steps(workdir / 'checkpoints') and not without_teacher(config.teacher, workdir)


def _evaluate_teacher(config: Config, workdir: pathlib.Path, index: DatasetIndex) -> dict[str, Any]:
  """Evaluates the teacher of a run without a checkpoint of DG-Net; results in the subfolder `teacher`."""
  logger.warning(
    f'{workdir}: no checkpoint of DG-Net, so the teacher is evaluated alone, without swaps and evaluation.ranked_table'
  )
  about = from_first_process(lambda: read_description(teacher_folders(config.teacher, workdir)[0])) or {}
  teacher = load_teacher_predictor(config, workdir, int(about['num_identities']))
  results = {'networks': 'teacher', **_announced(config, index, 'the teacher, step', about['num_steps'])}
  embeddings = embed_splits(index, config.data.image_size_hw, teacher, 'teacher')
  folder = evaluation_folder(config, index, workdir, None) / 'teacher'

  def write() -> dict[str, Any]:
    ranked = tracklet_embeddings(embeddings, index, 1) if config.evaluation.tracklets else embeddings
    rows = {'teacher': TableRow(ranked, None)}
    tables = _add_tables(config, index, rows, results)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / LOCK_FILE, f'the results in {folder}', wait=True):
      keep_earlier(folder, results, (RESULTS, *FILES.values()), subject=SUBJECT)
      results['files'] = files = _write_tables(config, folder, tables, rows)
      _write_ranked_sheet(folder / files['ranked'], config, index, TableRow(embeddings, None))
      write_json(folder / RESULTS, results)
    logger.info(f'results and images: {", ".join(str(folder / name) for name in (RESULTS, *files.values()))}')
    return results

  return from_first_process(write)


def _load_teacher(config: Config, workdir: pathlib.Path, num_identities: int) -> TeacherPredictor | None:
  """Reads the run's teacher; None, with a warning of what is left out, if it was not copied with the run."""
  missing = from_first_process(lambda: without_teacher(config.teacher, workdir))
  if not missing:
    return load_teacher_predictor(config, workdir, num_identities)
  logger.warning(
    f'{missing}: its row of the tables and distances in its embedding are left out; copy it there for them'
  )
  return None


def _judge(teacher: TeacherPredictor | None, embeddings: SplitEmbeddings | None) -> TeacherJudge | None:
  if teacher is None or embeddings is None:
    return None
  return TeacherJudge(teacher, np.concatenate([embeddings.query.features, embeddings.gallery.features]))


def _write_ranked_sheet(path: pathlib.Path, config: Config, index: DatasetIndex, row: TableRow) -> None:
  """Draws queries of different identities with their most similar gallery images."""
  query, gallery, size_hw = index.query, index.gallery, config.data.image_size_hw
  chosen = query.one_per_identity(config.evaluation.num_ranked_queries)
  embeddings = row.embeddings
  best = best_matches(embeddings.query.select(chosen), embeddings.gallery, alpha=row.alpha, count=MATCHES_PER_QUERY)
  sheet = ranked_sheet(
    ImageFiles([query.paths[i] for i in chosen], size_hw)[:],
    [image_label(query, i) for i in chosen],
    [ImageFiles([gallery.paths[j] for j in row], size_hw)[:] for row in best],
    [[image_label(gallery, j) for j in row] for row in best],
    [(gallery.identity[row] == query.identity[i]).tolist() for i, row in zip(chosen, best, strict=True)],
  )
  save_image(path, sheet)
