"""Figures of a run's embeddings of its test splits: a map, the cameras that fail, scores, and failures."""

from collections.abc import Iterable, Sequence
import csv
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.api import Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.evaluation.camera_pairs import CameraPairs, rank_camera_pairs
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.failures import Failure, describe_failure, first_match_ranks, worst_queries
from dgnet_jax.evaluation.verification import OperatingPoint, count_pairs, operating_points
from dgnet_jax.inference.results import keep_earlier
from dgnet_jax.plots.charts import histogram_chart, matrix_chart
from dgnet_jax.plots.sheets import ranked_sheet
from dgnet_jax.reports.embedding_map import MapOptions, check_map, describe_map, write_map
from dgnet_jax.reports.figures import image_label
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.text import ANY_NAME
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

DESCRIPTION = 'figures.json'
FILES = {name: f'{name}.png' for name in ('embeddings', 'cameras', 'scores', 'failures')}
TABLES = {f'{name}_table': f'{name}.csv' for name in ('cameras', 'scores', 'operating_points', 'failures')}
SUBJECT = ('step', 'data', 'root')  # figures that differ in one of these are of something else
FALSE_POSITIVE_RATES = (1e-2, 1e-3)
HISTOGRAM_BINS = 80
WORST_PAIRS = 3  # pairs of cameras to name


@dataclasses.dataclass(frozen=True)
class FigureOptions:
  """How the figures are drawn.

  Attributes:
    map: what is on the map.
    failures: queries on the sheet of failures, at most; 0 leaves it out.
    wrong: wrong images of each of them, at most.
  """

  map: MapOptions
  failures: int = 12
  wrong: int = 7


def write_embedding_figures(model: Model, index: DatasetIndex, folder: pathlib.Path, options: FigureOptions) -> None:
  """Embeds the test splits once, and writes the figures with the numbers behind them.

  Figures of another step or of other data in the folder are moved to its subfolder `earlier`.

  Args:
    model: embeds.
    index: of a data set with queries and a gallery that has matches for them.
    folder: the folder to write to.
    options: how to draw.

  Raises:
    UserError: the map cannot be drawn with so few images, or an image cannot be read.
  """
  split = _joined(index.query, index.gallery)
  if options.map.images:
    check_map(split, options.map)
  embeddings = Embeddings(model.embed(ImageList(split.paths)), split.identity, split.camera)
  query = embeddings.select(np.arange(len(index.query)))
  gallery = embeddings.select(np.arange(len(index.query), len(split)))
  description: dict[str, Any] = {
    'step': model.step,
    'data': index.name,
    'root': index.root,
    'settings': dataclasses.asdict(options),
    'cameras': _count_cameras(index),
  }
  folder.mkdir(parents=True, exist_ok=True)
  with exclusive(folder / LOCK_FILE, f'the figures in {folder}', wait=True):
    keep_earlier(folder, description, (DESCRIPTION, *FILES.values(), *TABLES.values()), subject=SUBJECT)
    description |= _write_cameras(folder, model, index, query, gallery)
    description |= _write_scores(folder, query, gallery)
    description |= _write_failures(folder, model, index, query, gallery, options)
    if options.map.images:
      path = folder / FILES['embeddings']
      drawn = write_map(path, model, index, split, embeddings, options.map)
      logger.info(f'{path}: {describe_map(drawn)}')
      description['map'] = drawn
    write_json(folder / DESCRIPTION, description)


def _joined(first: Split, second: Split) -> Split:
  return Split(
    (*first.paths, *second.paths),
    np.concatenate([first.identity, second.identity]),
    np.concatenate([first.camera, second.camera]),
  )


def _count_cameras(index: DatasetIndex) -> dict[str, dict[str, int]]:
  """Counts the images of each camera, by its name, in the splits."""
  splits = {name: split for name, split in index.splits.items() if len(split)}
  numbers = np.unique(np.concatenate([split.camera for split in splits.values()])).tolist()
  return {
    _camera(index, number): {name: int((split.camera == number).sum()) for name, split in splits.items()}
    for number in numbers
  }


def _camera(index: DatasetIndex, number: int) -> str:
  return index.camera_names.get(number, str(number))


def _write_rows(path: pathlib.Path, heading: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    csv.writer(file).writerows([heading, *rows])


def _write_cameras(
  folder: pathlib.Path, model: Model, index: DatasetIndex, query: Embeddings, gallery: Embeddings
) -> dict[str, Any]:
  """Writes which pairs of cameras fail, and returns the worst."""
  pairs = rank_camera_pairs(query, gallery, protocol=model.config.evaluation.protocol)
  rows = [_camera(index, number) for number in pairs.query_cameras.tolist()]
  columns = [_camera(index, number) for number in pairs.gallery_cameras.tolist()]
  matrix_chart(
    folder / FILES['cameras'],
    {'rank-1, %': 100 * pairs.rank_1, 'mAP, %': 100 * pairs.mean_average_precision},
    rows=rows,
    columns=columns,
    row_label='camera of the query',
    column_label='camera of the gallery images',
  )
  ranked = _ranked_pairs(pairs, rows, columns)
  heading = ('query_camera', 'gallery_camera', 'num_queries', 'rank_1', 'mAP')
  _write_rows(folder / TABLES['cameras_table'], heading, sorted(ranked))
  worst = [dict(zip(heading, row, strict=True)) for row in ranked[:WORST_PAIRS]]
  texts = [f'{row[0]} -> {row[1]} ({100 * row[4]:.1f} mAP of {row[2]} queries)' for row in ranked[:WORST_PAIRS]]
  logger.info(f'{folder / FILES["cameras"]}: the worst pairs of cameras are {", ".join(texts)}')
  return {'worst_camera_pairs': worst}


def _ranked_pairs(
  pairs: CameraPairs, rows: Sequence[str], columns: Sequence[str]
) -> list[tuple[str, str, int, float, float]]:
  """Returns the rows of the table of camera pairs, those with the lowest mAP first."""
  table = [
    (rows[i], columns[j], int(pairs.num_queries[i, j]), float(pairs.rank_1[i, j]), float(precision))
    for (i, j), precision in np.ndenumerate(pairs.mean_average_precision)
    if pairs.num_queries[i, j]
  ]
  return sorted(table, key=lambda row: row[4])


def _write_scores(folder: pathlib.Path, query: Embeddings, gallery: Embeddings) -> dict[str, Any]:
  """Writes the scores of pairs of the same and of other people, and returns their operating points."""
  scores = count_pairs(query, gallery)
  points = operating_points(scores, false_positive_rates=FALSE_POSITIVE_RATES)
  few = scores.histogram(HISTOGRAM_BINS)
  counts = {
    f'same person, {few.positive.sum():,} pairs': few.positive,
    f'other people, {few.negative.sum():,} pairs': few.negative,
  }
  markers = [(point.threshold, describe_point(point)) for point in points if np.isfinite(point.threshold)]
  histogram_chart(folder / FILES['scores'], few.edges, counts, markers, x_label='score of a query and a gallery image')
  bins = zip(few.edges, few.edges[1:], few.positive, few.negative, strict=False)
  _write_rows(folder / TABLES['scores_table'], ('from', 'to', 'same_person', 'other_people'), bins)
  _write_rows(folder / TABLES['operating_points_table'], OperatingPoint._fields, points)
  logger.info(f'{folder / FILES["scores"]}: {"; ".join(label for _, label in markers)}')
  return {'operating_points': [point._asdict() for point in points if np.isfinite(point.threshold)]}


def describe_point(point: OperatingPoint) -> str:
  """Says what a threshold accepts."""
  rates = f'{100 * point.false_positive_rate:g}% of other people, {100 * point.true_positive_rate:.1f}% of the same'
  return f'score {point.threshold:.3f} accepts {rates}'


def _write_failures(
  folder: pathlib.Path,
  model: Model,
  index: DatasetIndex,
  query: Embeddings,
  gallery: Embeddings,
  options: FigureOptions,
) -> dict[str, Any]:
  """Writes the queries that fail, the worst first, and returns how many there are."""
  ranks = first_match_ranks(query, gallery)
  worst = worst_queries(ranks)
  rows = [
    (
      index.query.paths[i],
      index.identity_names.get(int(index.query.identity[i]), ''),
      _camera(index, int(index.query.camera[i])),
      int(ranks[i]),
    )
    for i in worst.tolist()
  ]
  _write_rows(folder / TABLES['failures_table'], ('path', 'identity', 'camera', 'rank_of_first_match'), rows)
  shown = worst[: options.failures].tolist()
  sheet = folder / FILES['failures']
  if shown:
    failures = [describe_failure(query, gallery, i, num_wrong=options.wrong) for i in shown]
    save_image(sheet, _failure_sheet(model, index, failures))
  num_valid = int((ranks > 0).sum())
  logger.info(f'{sheet if shown else folder}: {len(worst)} of {num_valid} queries do not find a match first')
  return {'num_valid_queries': num_valid, 'num_failing_queries': len(worst), 'num_failures_shown': len(shown)}


def _failure_sheet(model: Model, index: DatasetIndex, failures: Sequence[Failure]) -> np.ndarray:
  """Draws failures: the query, the wrong images that score highest, and the first match."""
  query, gallery = index.query, index.gallery
  images, labels, is_match = [], [], []
  for failure in failures:
    found = [*failure.wrong.tolist(), failure.match]
    scores = [*failure.wrong_scores.tolist(), failure.match_score]
    words = ['wrong'] * len(failure.wrong) + ['match']
    images.append(model.pixels(ImageList([gallery.paths[j] for j in found])))
    labels.append(
      [[*image_label(gallery, j), f'{word} {score:.3f}'] for j, word, score in zip(found, words, scores, strict=True)]
    )
    is_match.append([word == 'match' for word in words])
  most = max(map(len, images))
  return ranked_sheet(
    model.pixels(ImageList([query.paths[failure.query] for failure in failures])),
    [[*image_label(query, failure.query), f'match at {failure.rank}'] for failure in failures],
    images,
    labels,
    is_match,
    headings=[*map(str, range(1, most)), 'first match'],
  )
