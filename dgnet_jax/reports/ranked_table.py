"""The ranked gallery of every query as a table in a folder of Parquet files, one row for each gallery image.

Several processes write different files, and a job that was stopped goes on with the files that are missing.
"""

import hashlib
import logging
import pathlib
import shutil
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex, Split
from dgnet_jax.evaluation.embeddings import Embeddings
from dgnet_jax.evaluation.top_ranks import top_ranks
from dgnet_jax.inference.scoring import piece_shares
from dgnet_jax.reports.ranking import alpha_of
from dgnet_jax.training.agreement import from_first_process, in_all_processes, turns_of
from dgnet_jax.utils.atomic_files import remove_leftovers, write_json
from dgnet_jax.utils.parquet_parts import PLAN_FILE, changes_of_plan, part_files
from dgnet_jax.utils.progress import ProgressLog
from dgnet_jax.utils.writers import save_table, text_column

logger = logging.getLogger(__name__)

ROWS = 500_000  # at most, in a file


def write_ranked_table(
  folder: pathlib.Path, config: Config, index: DatasetIndex, query: Embeddings, gallery: Embeddings
) -> None:
  """Writes the `config.evaluation.ranked_table` best gallery images of every query, but for files that exist.

  The columns are query_path, query_identity, query_camera, rank (from 1), gallery_path, gallery_identity,
  gallery_camera, similarity (in [-1, 1], the dot product of embeddings as `dgnet embed` writes them) and is_match.
  Identities and cameras are named as in the files. Rows are sorted by query and rank; junk has none.

  Args:
    folder: a table of other embeddings or of another length there is replaced.
    config: the run's config.
    index: index of the data set.
    query: embeddings of its queries, the same in all processes.
    gallery: embeddings of its gallery, likewise.
  """
  count = min(config.evaluation.ranked_table, len(gallery))
  num_queries = ROWS // count  # in a file
  files = part_files(folder, len(query), num_queries)
  from_first_process(lambda: _start(folder, _plan(config, index, query, gallery)))

  def write() -> None:
    texts = _texts(index, 'query', index.query), _texts(index, 'gallery', index.gallery)
    own = turns_of(len(files))
    progress = ProgressLog(logger, 'ranked table', len(own), 'files')
    for number, i in enumerate(own, 1):
      if not files[i].exists():
        chosen = np.arange(i * num_queries, min((i + 1) * num_queries, len(query)))
        save_table(files[i], _columns(config, query, gallery, chosen, *texts))
      progress.update(number)

  in_all_processes(write)
  from_first_process(lambda: remove_leftovers(folder))
  logger.info(f'ranked table, {count} images for each of {len(query)} queries: {folder}')


def _start(folder: pathlib.Path, plan: dict[str, Any]) -> None:
  """Makes an empty folder with a plan, unless there is one with this plan."""
  if changes_of_plan(folder, plan) == []:
    return
  if folder.exists():
    shutil.rmtree(folder)
  write_json(folder / PLAN_FILE, plan)


def _plan(config: Config, index: DatasetIndex, query: Embeddings, gallery: Embeddings) -> dict[str, Any]:
  """Describes what the table is made from, as JSON."""
  digest = hashlib.sha256()
  for split, embeddings in ((index.query, query), (index.gallery, gallery)):
    digest.update('\n'.join(split.paths).encode(errors='surrogateescape'))
    for array in (embeddings.features, embeddings.identity, embeddings.camera):
      digest.update(np.ascontiguousarray(array).data)
  return {
    'embeddings': digest.hexdigest(),
    'num_queries': len(query),
    'num_gallery': len(gallery),
    'images_per_query': config.evaluation.ranked_table,
    'alpha': alpha_of(config.reid, config.evaluation),
    'rows': ROWS,
  }


def _texts(index: DatasetIndex, name: str, split: Split) -> dict[str, Any]:
  """Returns columns with the path, the identity and the camera of every image of a split, as pyarrow arrays."""
  texts = {
    'path': split.paths,
    'identity': [index.identity_names.get(number, str(number)) for number in split.identity.tolist()],
    'camera': [index.camera_names.get(number, str(number)) for number in split.camera.tolist()],
  }
  return {f'{name}_{column}': text_column(values) for column, values in texts.items()}


def _columns(
  config: Config,
  query: Embeddings,
  gallery: Embeddings,
  chosen: np.ndarray,
  query_texts: dict[str, Any],
  gallery_texts: dict[str, Any],
) -> dict[str, Any]:
  """Ranks the gallery for the queries i64[n] at `chosen`, and returns the rows of the table."""
  queries, count = query.select(chosen), config.evaluation.ranked_table
  found, scores = top_ranks(queries, gallery, alpha=alpha_of(config.reid, config.evaluation), count=count)
  row, column = np.nonzero(found >= 0)
  images = found[row, column]
  # The weighted sum of cosines becomes their weighted mean.
  similarity = scores[row, column] * piece_shares(config)[0]
  return {
    **{name: texts.take(chosen[row]) for name, texts in query_texts.items()},
    'rank': (column + 1).astype(np.int32),
    **{name: texts.take(images) for name, texts in gallery_texts.items()},
    'similarity': similarity,
    'is_match': gallery.identity[images] == queries.identity[row],
  }
