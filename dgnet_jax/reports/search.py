"""Results of searching a gallery, as text, CSV, JSON and Parquet."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
import os
import pathlib
from typing import Any, NamedTuple

import numpy as np

from dgnet_jax.gallery.gallery import Match
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.text import ANY_NAME, printable
from dgnet_jax.utils.writers import check_output, save_table, text_column

CSV_COLUMNS = (
  *('query', 'rank', 'score', 'path', 'same_person', 'identity', 'camera', 'num_images'),
  'query_num_images',
)
FILES = ('.csv', '.json', '.parquet')


class SearchResults(NamedTuple):
  """What was found.

  Attributes:
    about: what searched, and how, by name: entries of the JSON object.
    queries: path of each query, of a track that of its first image.
    query_images: number of its images; more than 1 in tracks.
    rankings: its matches, the best first.
  """

  about: Mapping[str, Any]
  queries: Sequence[str]
  query_images: Sequence[int]
  rankings: Sequence[Sequence[Match]]


def results_text(results: SearchResults, kind: str) -> str:
  """Returns the results as a 'table' for people, as 'csv' or as 'json', without the last line break."""
  text = {'table': _table, 'csv': _csv, 'json': _json}[kind](results)
  return text.rstrip('\n').encode(errors='backslashreplace').decode()


def save_results(path: str | os.PathLike[str], results: SearchResults) -> pathlib.Path:
  """Writes the results, and returns the path.

  Args:
    path: .csv or .json, as `results_text`; or .parquet, with the columns query_path, query_num_images, rank,
      gallery_path, gallery_identity, gallery_camera, gallery_num_images, similarity (the score) and same_person.
    results: what was found.
  """
  path = check_output(path, FILES)
  suffix = path.suffix.lower()
  if suffix == '.parquet':
    return save_table(path, _columns(results))
  text = _csv(results) if suffix == '.csv' else _json(results) + '\n'
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', errors=ANY_NAME, newline='') as file:
    file.write(text)
  return path


def _table(results: SearchResults) -> str:
  """Returns a line for each query and for each match; what is not known of any match is left out."""
  lines = []
  for query, num_images, matches in zip(results.queries, results.query_images, results.rankings, strict=True):
    lines.append(printable(query) + (f'  ({num_images} images)' if num_images > 1 else ''))
    for rank, match in enumerate(matches, 1):
      same = '' if match.same_person is None else f'{"same person" if match.same_person else "":<11}  '
      notes = [f'identity {match.identity}'] if match.identity else []
      notes += [f'camera {match.camera}'] if match.camera else []
      notes += [f'{match.num_images} images'] if match.num_images > 1 else []
      note = f'  ({", ".join(notes)})' if notes else ''
      lines.append(printable(f'{rank:>6}  {match.score:7.4f}  {same}{match.path}{note}'))
  return '\n'.join(lines)


def _rows(results: SearchResults) -> list[tuple[str, int, int, Match]]:
  """Returns path and number of images of the query, the rank and the match, for every match."""
  queries = zip(results.queries, results.query_images, results.rankings, strict=True)
  return [(name, size, rank, match) for name, size, matches in queries for rank, match in enumerate(matches, 1)]


def _csv(results: SearchResults) -> str:
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(CSV_COLUMNS)
  for query, num_images, rank, match in _rows(results):
    same = '' if match.same_person is None else str(match.same_person).lower()
    labels = match.identity, match.camera, match.num_images
    writer.writerow((query, rank, f'{match.score:.6f}', match.path, same, *labels, num_images))
  return file.getvalue()


def _json(results: SearchResults) -> str:
  def described(rank: int, match: Match) -> dict[str, Any]:
    labels = {'identity': match.identity or None, 'camera': match.camera or None, 'num_images': match.num_images}
    return {'rank': rank, 'score': match.score, 'path': match.path, 'same_person': match.same_person} | labels

  queries = [
    {
      'path': query,
      'num_images': num_images,
      'matches': [described(rank, match) for rank, match in enumerate(matches, 1)],
    }
    for query, num_images, matches in zip(results.queries, results.query_images, results.rankings, strict=True)
  ]
  return json.dumps({**results.about, 'queries': queries}, indent=2)


def _columns(results: SearchResults) -> dict[str, Any]:
  """Returns the columns of a Parquet file, with the names of `evaluation.ranked_table`; null is what is not known."""
  import pyarrow

  rows = _rows(results)
  matches = [match for *_, match in rows]
  return {
    'query_path': text_column([query for query, *_ in rows]),
    'query_num_images': np.array([num_images for _, num_images, *_ in rows], np.int32),
    'rank': np.array([rank for *_, rank, _ in rows], np.int32),
    'gallery_path': text_column([match.path for match in matches]),
    'gallery_identity': pyarrow.array([match.identity or None for match in matches], 'string'),
    'gallery_camera': pyarrow.array([match.camera or None for match in matches], 'string'),
    'gallery_num_images': np.array([match.num_images for match in matches], np.int32),
    'similarity': np.array([match.score for match in matches], np.float32),
    'same_person': pyarrow.array([match.same_person for match in matches], 'bool'),
  }
