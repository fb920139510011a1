"""`dgnet rank`: searches images for people."""

import argparse
import logging

from dgnet_jax.cli.arguments import positive, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import DETAILS, add_alpha, add_run, check_run, load_model, opened_gallery, rate
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)

EPILOG = """examples:
  dgnet rank runs/market anna.jpg --gallery images/
  dgnet rank runs/market anna.jpg --gallery gallery/ --format=json        # made by `dgnet index build`
  dgnet rank runs/market anna.jpg --gallery gallery/ --search=faiss --rerank
  dgnet rank runs/market anna.jpg ben.jpg --gallery images/ --count=100 --out=ranking.csv
  dgnet rank runs/market queries/ --gallery images/ --out=ranking.parquet

A score of 1 is the same image. Without --out, rank, score and path are printed, and `same person` where the score
reaches the threshold of `dgnet calibrate`. The suffix of --out selects the format: .csv and .json are what --format
prints, a .parquet has the same columns, named as in the table that evaluation.ranked_table makes.
docs/your_own_images.md describes them.
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
  parser.add_argument('--format', choices=FORMATS, help=f'what to print, without --out (default: {FORMATS[0]})')
  parser.add_argument('--out', type=writable, metavar='FILE', help='write a .csv, .json or .parquet, and print nothing')


def run(options: argparse.Namespace) -> None:
  check_run(options)
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.gallery.gallery import Gallery
  from dgnet_jax.gallery.ranking import check_search
  from dgnet_jax.inference.calibration import alpha_in_use
  from dgnet_jax.reports.search import FILES, SearchResults, results_text, save_results
  from dgnet_jax.utils.writers import check_output

  if options.out and options.format:
    raise UserError(f'--format={options.format}: is of what is printed; the suffix of --out selects its format')
  if options.out:
    check_output(options.out, FILES)
  queries = as_image_list(options.queries, 'queries')
  searched = opened_gallery(options.gallery) or as_image_list(options.gallery, 'gallery')
  check_search(options.search, options.count, searched if isinstance(searched, Gallery) else None)
  model = load_model(options)
  threshold = model.threshold(options.alpha, options.fpr)
  asked = model.gallery(queries, tracks=True) if options.tracks else queries
  rankings = model.rank(
    asked,
    searched,
    alpha=options.alpha,
    count=options.count,
    search=options.search,
    rerank=options.rerank,
    false_positive_rate=options.fpr,
  )
  about = {
    'run': str(model.workdir),
    'step': model.step,
    'alpha': alpha_in_use(model.config, options.alpha),
    'search': options.search,
    'reranked': options.rerank,
    'threshold': threshold,
    'gallery': [str(path) for path in options.gallery],
    'num_entries': len(searched),
  }
  num_images = asked.num_images if isinstance(asked, Gallery) else (1,) * len(asked)
  results = SearchResults(about, asked.paths, num_images, rankings)
  if options.out:
    logger.info(f'rankings: {save_results(options.out, results)}')
  else:
    print(results_text(results, options.format or FORMATS[0]))


COMMAND = Command(
  name='rank',
  summary='search images for a person',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
