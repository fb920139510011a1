"""`dgnet figures`: draws the figures of the paper from a run."""

import argparse
from collections.abc import Mapping
import dataclasses
import logging
import pathlib
from typing import TYPE_CHECKING

from dgnet_jax.cli import embedding_figures
from dgnet_jax.cli.arguments import add_batch_size, add_step, at_least, positive, run_folder, writable
from dgnet_jax.cli.command import Command, check_no_problems
from dgnet_jax.config.loading import apply_overrides
from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.errors import UserError

if TYPE_CHECKING:
  from dgnet_jax.api import Model
  from dgnet_jax.config.schema import Config
  from dgnet_jax.data.image_lists import ImageList
  from dgnet_jax.data.index import DatasetIndex
  from dgnet_jax.plots.canvas import Pixels

logger = logging.getLogger(__name__)

DETAILS = """By default the images are people of the run's own data, evenly spread over a split. Images can also
be named: files, or folders, which stand for the images in them.
"""
EPILOG = """examples:
  dgnet figures swap --workdir=runs/market --out=swap.png
  dgnet figures swap --workdir=runs/market --out=ours.png --structures a.jpg b.jpg --appearances clothes/
  dgnet figures pairs --workdir=runs/market --out=pairs.png
  dgnet figures interpolate --workdir=runs/market --out=interpolation.png            # and interpolation.gif
  dgnet figures appearances --workdir=runs/market --out=appearances.png --count=24
  dgnet figures fetched --workdir=runs/synthetic --out=fetched.png
  dgnet figures ranked --workdir=runs/market --out=ranked.png
  dgnet figures attention --workdir=runs/market --out=attention.png
  dgnet figures curves --workdir=runs/market --out=curves.pdf
  dgnet figures embeddings --workdir=runs/market                # into runs/market/figures

RUN may also be one of the run's checkpoints, except for curves. To take the images from other data, set
--config.data.layout=... --config.data.root=...
"""


@dataclasses.dataclass(frozen=True)
class Figure:
  """A figure: its description, the arguments that name its images, and the number (and unit) taken from the data."""

  summary: str
  sources: tuple[str, ...] = ()
  count: int = 0
  unit: str = 'people'


SWAPPED = ('structures', 'appearances')
FIGURES = {
  'swap': Figure('every appearance on every structure, with the donors at the edges', SWAPPED, 8),
  'pairs': Figure('pairs of people, each also in the clothes of the other', SWAPPED, 8, 'pairs'),
  'interpolate': Figure('from one appearance or structure to another', SWAPPED, 2, 'rows of each kind'),
  'appearances': Figure('one structure with many appearances', SWAPPED, 16),
  'fetched': Figure('where each pixel came from (design correspondence)', SWAPPED, 8, 'pairs'),
  'ranked': Figure('queries with their most similar images, matches framed green', ('queries', 'gallery'), 8),
  'attention': Figure('where the re-id network responds', ('images',), 8),
  'curves': Figure('losses, their weights and learning rates during training'),
  'embeddings': Figure('a map of the test images, cameras and queries that fail, and scores, in one go'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  figures = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')
  for name, figure in FIGURES.items():
    description = f'{figure.summary[0].upper()}{figure.summary[1:]}.'
    added = figures.add_parser(name, help=figure.summary, description=description, allow_abbrev=False)
    added.add_argument(
      '--workdir', required=True, type=run_folder, metavar='RUN', help='work folder of a run, or one of its checkpoints'
    )
    if name == 'embeddings':
      embedding_figures.add_arguments(added)
      continue
    formats = '.png or .jpg' if figure.sources else '.png, .svg or .pdf'
    added.add_argument('--out', required=True, metavar='FILE', type=writable, help=f'file to write, {formats}')
    for source in figure.sources:
      added.add_argument(f'--{source}', nargs='+', metavar='IMAGE', help='instead of images from the data')
    if figure.sources:
      added.add_argument(
        '--count', type=positive, default=figure.count, help=f'{figure.unit} from the data (default: %(default)s)'
      )
      add_batch_size(added, 8)
      add_step(added)
    if figure.sources and name != 'ranked':
      added.add_argument('--split', choices=SPLITS, default='query', help='split of the data (default: %(default)s)')
    if name == 'interpolate':
      added.add_argument('--steps', type=at_least(2), default=8, help='images in a row (default: %(default)s)')
    if name == 'ranked':
      added.add_argument('--matches', type=positive, default=10, help='images per query (default: %(default)s)')


class RunImages:
  """The images of the run's data, which is opened when first needed."""

  def __init__(self, config: 'Config', workdir: pathlib.Path, options: argparse.Namespace) -> None:
    self._config, self._workdir, self._options = config, workdir, options

  def index(self, *needs: str) -> 'DatasetIndex':
    from dgnet_jax.data.dataset import open_dataset
    from dgnet_jax.inference.results import data_to_open

    return open_dataset(data_to_open(self._config, self._workdir), self._workdir, needs=needs)

  def people(self, groups: int) -> list['ImageList']:
    """`groups` lists of `--count` images, all of different people as long as there are enough of them."""
    from dgnet_jax.data.image_lists import ImageList

    split = self.index(self._options.split).splits[self._options.split]
    paths = [split.paths[i] for i in split.one_per_identity(groups * self._options.count)]
    size = max(1, min(self._options.count, len(paths) // groups))
    return [ImageList([paths[(group * size + i) % len(paths)] for i in range(size)]) for group in range(groups)]


Named = Mapping[str, 'ImageList | None']


def _draw_interpolation(model: 'Model', data: RunImages, named: Named, options: argparse.Namespace) -> 'Pixels':
  """Returns the sheet, and writes the animation."""
  from dgnet_jax.data.image_lists import ImageList
  from dgnet_jax.reports.figures import InterpolationRow, interpolation
  from dgnet_jax.utils.writers import save_animation

  structures, appearances = named['structures'], named['appearances']
  if structures is None and appearances is None:
    fixed, starts, ends = (images.items for images in data.people(3))
    rows = [
      InterpolationRow(kind, ImageList([image]), ImageList([start, end]))
      for kind in ('clothes', 'pose')
      for image, start, end in zip(fixed, starts, ends, strict=True)
    ]
  elif structures is not None and appearances is not None and {len(structures), len(appearances)} == {1, 2}:
    kind, fixed_image, both_ends = (
      ('clothes', structures, appearances) if len(appearances) == 2 else ('pose', appearances, structures)
    )
    rows = [InterpolationRow(kind, fixed_image, both_ends)]
  else:
    raise UserError('interpolate takes one --structures and two --appearances, two and one, or neither')
  sheet, frames = interpolation(model, rows, options.steps)
  logger.info(str(save_animation(options.out.with_suffix('.gif'), frames)))
  return sheet


def _draw_ranked(model: 'Model', data: RunImages, named: Named, options: argparse.Namespace) -> 'Pixels':
  from dgnet_jax.reports.figures import ranked, ranked_splits

  queries, gallery = named['queries'], named['gallery']
  if queries is not None and gallery is not None:
    return ranked(model, queries, gallery, count=options.matches)
  if queries is not None or gallery is not None:
    raise UserError('ranked takes both --queries and --gallery, or neither')
  index = data.index('query', 'gallery')
  chosen = index.query.one_per_identity(options.count).tolist()
  return ranked_splits(model, index.query, chosen, index.gallery, count=options.matches)


def _draw_sheet(model: 'Model', data: RunImages, named: Named, options: argparse.Namespace) -> 'Pixels':
  """Draws one of the figures swap, pairs, fetched, appearances and attention."""
  from dgnet_jax.data.image_lists import ImageList
  from dgnet_jax.reports import figures

  if options.figure == 'attention':
    return figures.activation(model, named['images'] or data.people(1)[0])
  structures, appearances = named['structures'], named['appearances']
  if options.figure == 'swap':
    return figures.swap(model, structures or data.people(1)[0], appearances or data.people(1)[0])
  if options.figure in ('pairs', 'fetched'):
    if structures is None and appearances is None:
      structures, appearances = data.people(2)
    if structures is None or appearances is None or len(structures) != len(appearances):
      raise UserError(f'{options.figure} takes as many --structures as --appearances, or neither')
    draw = figures.pairs if options.figure == 'pairs' else figures.fetched
    return draw(model, structures, appearances)
  if structures is not None and len(structures) > 1:
    raise UserError(f'appearances takes one image of --structures, not {len(structures)}')
  if structures is None or appearances is None:
    people = data.people(1)[0]
    structures, appearances = structures or ImageList(people.items[:1]), appearances or people
  return figures.appearances(model, structures, appearances)


def _draw_curves(options: argparse.Namespace) -> None:
  from dgnet_jax.plots import curves
  from dgnet_jax.storage.local_copies import fetched_file
  from dgnet_jax.utils.writers import check_output

  check_output(options.out, curves.FORMATS)
  workdir = options.workdir
  title = workdir.resolve().name if isinstance(workdir, pathlib.Path) else workdir
  metrics = curves.read_metrics(fetched_file(workdir, curves.METRICS))
  logger.info(str(curves.draw_curves(metrics, options.out, title)))


def run(options: argparse.Namespace) -> None:
  check_no_problems(options)
  if options.figure == 'curves':
    _draw_curves(options)
    return
  if options.figure == 'embeddings':
    embedding_figures.run(options)
    return
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.utils.writers import IMAGES, check_output, save_image

  check_output(options.out, IMAGES)
  named = {
    source: as_image_list(getattr(options, source), source) if getattr(options, source) else None
    for source in FIGURES[options.figure].sources
  }

  from dgnet_jax.api import load
  from dgnet_jax.config.defaults import unfrozen
  from dgnet_jax.config.validation import validate

  model = load(options.workdir, batch_size=options.batch_size, step=options.step)
  config = unfrozen(model.config)
  data = RunImages(validate(config, apply_overrides(config, options.overrides)), model.workdir, options)
  logger.info(str(model))
  draw = {'interpolate': _draw_interpolation, 'ranked': _draw_ranked}.get(options.figure, _draw_sheet)
  logger.info(str(save_image(options.out, draw(model, data, named, options))))


COMMAND = Command(
  name='figures',
  summary='draw the figures of the paper from a run',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='data',
)
