"""`dgnet rank`: searches images for people."""

import argparse
import logging
from typing import TYPE_CHECKING

from dgnet_jax.cli.arguments import positive, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import DETAILS, add_alpha, add_run, check_run, load_model, opened_gallery, rate

if TYPE_CHECKING:
  from dgnet_jax.api import Gallery, Model
  from dgnet_jax.data.image_lists import ImageList

logger = logging.getLogger(__name__)

EPILOG = """examples:
  dgnet rank runs/market anna.jpg --gallery images/
  dgnet rank runs/market anna.jpg --gallery gallery/ --format=json        # made by `dgnet index build`
  dgnet rank runs/market anna.jpg --gallery gallery/ --search=faiss --rerank
  dgnet rank runs/market anna.jpg ben.jpg --gallery images/ --count=100 --out=ranking.csv
  dgnet rank runs/market queries/ --gallery images/ --out=ranking.parquet

A score of 1 is the same image. Without --out, rank, score and path are printed, and `same person` where the score
reaches the threshold of `dgnet calibrate`. A .parquet has the columns query_path, rank, gallery_path and similarity
(the score) of the table that evaluation.ranked_table makes. docs/your_own_images.md describes the JSON.
"""
FORMATS = ('table', 'csv', 'json')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  add_run(parser)
  parser.add_argument('queries', metavar='IMAGE', nargs='+', help='people to find')
  parser.add_argument(
    '--gallery', required=True, metavar='IMAGE', nargs='+', help='images to search, or a gallery of `dgnet index`'
  )
  add_alpha(parser)
  parser.add_argument('--count', type=positive, default=10, help='images per query (default: %(default)s)')
  parser.add_argument(
    '--search',
    choices=('exact', 'faiss'),
    default='exact',
    help='faiss: approximate, with an index beside the gallery; needs faiss (default: %(default)s)',
  )
  parser.add_argument('--rerank', action='store_true', help='re-rank the best 200 by their k-reciprocal neighbours')
  parser.add_argument('--tracks', action='store_true', help='the queries of one folder are a track, one query')
  parser.add_argument('--fpr', type=rate, help='the calibrated false-positive rate to use (default: the first)')
  parser.add_argument('--format', choices=FORMATS, default='table', help='what to print (default: %(default)s)')
  parser.add_argument('--out', type=writable, metavar='FILE', help='write a .csv or .parquet instead of printing')


def run(options: argparse.Namespace) -> None:
  check_run(options)
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.inference.calibration import alpha_in_use
  from dgnet_jax.reports.search import SearchResults, results_text
  from dgnet_jax.utils.writers import RANKINGS, check_output, save_rankings

  if options.out:
    check_output(options.out, RANKINGS)
  queries = as_image_list(options.queries, 'queries')
  searched = opened_gallery(options.gallery) or as_image_list(options.gallery, 'gallery')
  model = load_model(options)
  asked, names = _queries(model, queries, by_track=options.tracks)
  rankings = model.rank(
    asked,
    searched,
    alpha=options.alpha,
    count=options.count,
    search=options.search,
    rerank=options.rerank,
    false_positive_rate=options.fpr,
  )
  if options.out:
    ranked = zip(names, rankings, strict=True)
    rows = [(name, rank, match.score, match.path) for name, matches in ranked for rank, match in enumerate(matches, 1)]
    save_rankings(options.out, rows)
    logger.info(f'rankings: {options.out}')
    return
  about = {
    'run': str(model.workdir),
    'step': model.step,
    'alpha': alpha_in_use(model.config, options.alpha),
    'search': options.search,
    'reranked': options.rerank,
    'threshold': model.threshold(options.alpha, options.fpr),
    'gallery': [str(path) for path in options.gallery],
    'num_entries': len(searched),
  }
  print(results_text(SearchResults(about, names, rankings), options.format))


def _queries(model: 'Model', images: 'ImageList', *, by_track: bool) -> tuple['ImageList | Gallery', tuple[str, ...]]:
  """Returns the queries, and their names."""
  if not by_track:
    return images, images.names
  tracks = model.gallery(images, tracks=True)
  return tracks, tracks.paths


COMMAND = Command(
  name='rank',
  summary='search images for a person',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
