"""`dgnet figures embeddings`: several figures from one embedding of the test splits."""

import argparse
import logging
import pathlib
from typing import TYPE_CHECKING

from dgnet_jax.cli.arguments import add_batch_size, add_step, at_least, positive, writable
from dgnet_jax.config.loading import apply_overrides
from dgnet_jax.errors import UserError

if TYPE_CHECKING:
  from dgnet_jax.api import Model
  from dgnet_jax.reports.embedding_figures import FigureOptions

logger = logging.getLogger(__name__)

FOLDER = 'figures'  # in a work folder
EPILOG = """Writes PNG files, and the numbers behind them as CSV:
  embeddings   a map (t-SNE) in which images that the run finds similar lie close together; needs scikit-learn
  cameras      rank-1 and mAP of queries of each camera among the gallery images of each other camera
  scores       how the scores of the same and of other people lie, with thresholds at two false positive rates
  failures     the queries whose first match ranks lowest, with the wrong images before it
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.epilog, parser.formatter_class = EPILOG, argparse.RawDescriptionHelpFormatter
  parser.add_argument('--out', type=writable, metavar='FOLDER', help=f'folder to write (default: RUN/{FOLDER})')
  add = parser.add_argument
  add('--images', type=at_least(0), default=2000, help='on the map, at most; 0 draws none (default: %(default)s)')
  add('--identities', type=positive, default=12, help='coloured on the map (default: %(default)s)')
  add('--perplexity', type=at_least(2), metavar='N', help='neighbours that the map keeps (default: 30, or fewer)')
  add('--thumbnails', type=at_least(0), default=0, help='images to show on the map, at most (default: %(default)s)')
  add('--seed', type=at_least(0), default=0, help='of the map (default: %(default)s)')
  add('--failures', type=at_least(0), default=12, help='queries on the sheet of failures (default: %(default)s)')
  add('--wrong', type=positive, default=7, help='wrong images of each of them, at most (default: %(default)s)')
  add_batch_size(parser, 64)
  add_step(parser)


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.reports.embedding_figures import FigureOptions
  from dgnet_jax.reports.embedding_map import MapOptions

  if options.out is None and not isinstance(options.workdir, pathlib.Path):
    raise UserError(f'{options.workdir}: is on object storage; name a folder of this machine, --out=FOLDER')
  if options.out is not None and options.out.exists() and not options.out.is_dir():
    raise UserError(f'{options.out}: is a file; the figures need a folder')
  figures = FigureOptions(
    map=MapOptions(options.images, options.identities, options.perplexity, options.thumbnails, options.seed),
    failures=options.failures,
    wrong=options.wrong,
  )

  from dgnet_jax.api import load

  _draw(load(options.workdir, batch_size=options.batch_size, step=options.step), options, figures)


def _draw(model: 'Model', options: argparse.Namespace, figures: 'FigureOptions') -> None:
  from dgnet_jax.config.defaults import unfrozen
  from dgnet_jax.config.validation import validate
  from dgnet_jax.data.dataset import TEST_SPLITS, open_dataset
  from dgnet_jax.data.matches import require_matches
  from dgnet_jax.inference.results import results_folder
  from dgnet_jax.reports.embedding_figures import write_embedding_figures
  from dgnet_jax.utils.paths import check_writable

  config = unfrozen(model.config)
  config = validate(config, apply_overrides(config, options.overrides))
  index = open_dataset(config.data, model.workdir, needs=TEST_SPLITS)
  require_matches(index)
  folder = options.out or check_writable(results_folder(config, index, model.workdir, FOLDER))
  logger.info(str(model))
  write_embedding_figures(model, index, folder, figures)
