"""Results of searching a gallery, as text, CSV and JSON."""

from collections.abc import Mapping, Sequence
import csv
import io
import json
from typing import Any, NamedTuple

from dgnet_jax.gallery.gallery import Match
from dgnet_jax.utils.text import printable

CSV_COLUMNS = ('query', 'rank', 'score', 'path', 'same_person', 'identity', 'camera', 'num_images')


class SearchResults(NamedTuple):
  """What was found.

  Attributes:
    about: what searched, and how, by name: entries of the JSON object.
    queries: path of each query.
    rankings: its matches, the best first.
  """

  about: Mapping[str, Any]
  queries: Sequence[str]
  rankings: Sequence[Sequence[Match]]


def results_text(results: SearchResults, kind: str) -> str:
  """Returns the results as a 'table' for people, as 'csv' or as 'json', without the last line break."""
  return {'table': _table, 'csv': _csv, 'json': _json}[kind](results)


def _table(results: SearchResults) -> str:
  """Returns a line for each query and for each match; what is not known of any match is left out."""
  lines = []
  for query, matches in zip(results.queries, results.rankings, strict=True):
    lines.append(printable(query))
    for rank, match in enumerate(matches, 1):
      same = '' if match.same_person is None else f'{"same person" if match.same_person else "":<11}  '
      notes = [f'identity {match.identity}'] if match.identity else []
      notes += [f'camera {match.camera}'] if match.camera else []
      notes += [f'{match.num_images} images'] if match.num_images > 1 else []
      note = f'  ({", ".join(notes)})' if notes else ''
      lines.append(printable(f'{rank:>6}  {match.score:7.4f}  {same}{match.path}{note}'))
  return '\n'.join(lines)


def _csv(results: SearchResults) -> str:
  file = io.StringIO()
  writer = csv.writer(file, lineterminator='\n')
  writer.writerow(CSV_COLUMNS)
  for query, matches in zip(results.queries, results.rankings, strict=True):
    for rank, match in enumerate(matches, 1):
      same = '' if match.same_person is None else str(match.same_person).lower()
      labels = match.identity, match.camera, match.num_images
      writer.writerow((query, rank, f'{match.score:.6f}', match.path, same, *labels))
  return file.getvalue().rstrip('\n').encode(errors='backslashreplace').decode()


def _json(results: SearchResults) -> str:
  def described(rank: int, match: Match) -> dict[str, Any]:
    labels = {'identity': match.identity or None, 'camera': match.camera or None, 'num_images': match.num_images}
    return {'rank': rank, 'score': match.score, 'path': match.path, 'same_person': match.same_person} | labels

  queries = [
    {'path': query, 'matches': [described(rank, match) for rank, match in enumerate(matches, 1)]}
    for query, matches in zip(results.queries, results.rankings, strict=True)
  ]
  return json.dumps({**results.about, 'queries': queries}, indent=2)
