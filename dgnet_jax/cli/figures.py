"""Draws the figures of the paper from a training run, one command each.

Images are people of the run's own data by default, evenly spread over one of its splits; or those that are named:
files, or folders, which stand for their images.
"""

import argparse
from collections.abc import Sequence
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import unfrozen, validate
from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.utils.console import exit_on_user_error

if TYPE_CHECKING:
  from dgnet_jax.api import Model
  from dgnet_jax.data.image_lists import Given
  from dgnet_jax.data.index import DatasetIndex
  from dgnet_jax.plots.figures import Truth

EXAMPLE = """
examples:
  python -m tools.figures swap --workdir=runs/market --out=swap.png
  python -m tools.figures swap --workdir=runs/market --out=ours.png --structures a.jpg b.jpg --appearances clothes/
  python -m tools.figures pairs --workdir=runs/market --out=pairs.png
  python -m tools.figures interpolate --workdir=runs/market --out=way.png            # and way.gif
  python -m tools.figures appearances --workdir=runs/market --out=wardrobe.png --count=24
  python -m tools.figures ranked --workdir=runs/market --out=ranked.png
  python -m tools.figures attention --workdir=runs/market --out=attention.png
  python -m tools.figures curves --workdir=runs/market --out=curves.pdf

The workdir may be one of the run's checkpoints (not for curves). Other data:
--config.data.layout=... --config.data.root=...
"""
# What each figure shows, the sources that can be named, and how many people it shows by default.
FIGURES: dict[str, tuple[str, tuple[str, ...], int]] = {
  'swap': ('every appearance on every structure, the sources on the edges', ('structures', 'appearances'), 8),
  'pairs': ('pairs of people, each in the clothes of the other', ('structures', 'appearances'), 8),
  'interpolate': (
    'from one appearance to another, and from one structure to another',
    ('structures', 'appearances'),
    2,
  ),
  'appearances': ('one structure under many appearances', ('structures', 'appearances'), 16),
  'ranked': ('queries with their best matches, right ones and wrong ones framed', ('queries', 'gallery'), 8),
  'attention': ('what the embedding looks at', ('images',), 8),
  'curves': ('losses, their weights and learning rates in the course of training', (), 0),
}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m tools.figures',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  commands = parser.add_subparsers(dest='figure', required=True, metavar='FIGURE')
  for name, (what, sources, count) in FIGURES.items():
    command = commands.add_parser(name, help=what, description=f'{what[0].upper()}{what[1:]}.', allow_abbrev=False)
    command.add_argument('--workdir', required=True, metavar='FOLDER', help='of the run, or one of its checkpoints')
    forms = '.png, .svg or .pdf' if name == 'curves' else '.png or .jpg'
    command.add_argument('--out', required=True, metavar='FILE', type=pathlib.Path, help=f'to write, {forms}')
    for source in sources:
      command.add_argument(f'--{source}', nargs='+', metavar='IMAGE', help='instead of those of the data')
    if sources:
      unit = {'interpolate': 'rows of each kind', 'pairs': 'pairs'}.get(name, 'people')
      command.add_argument('--count', type=int, default=count, help=f'{unit} taken from the data (default: {count})')
      command.add_argument('--batch-size', type=int, default=8, help='images at a time (default: %(default)s)')
    if sources and name != 'ranked':
      command.add_argument('--split', choices=SPLITS, default='query', help='of the data (default: %(default)s)')
    if name == 'interpolate':
      command.add_argument('--steps', type=int, default=8, help='images in a row (default: %(default)s)')
    if name == 'ranked':
      command.add_argument('--matches', type=int, default=10, help='of each query (default: %(default)s)')
  return parser


class Source:
  """The images of a figure: named ones, else those of the run's data, which is opened when it is first needed."""

  def __init__(self, model: 'Model', options: argparse.Namespace) -> None:
    self._model, self._options = model, options
    self._index: DatasetIndex | None = None

  def index(self, *needs: str) -> 'DatasetIndex':
    from dgnet_jax.data.dataset import open_dataset

    if self._index is None:
      self._index = open_dataset(self._model.config, self._model.workdir, needs=needs)
    return self._index

  def people(self, groups: int = 1) -> list['Given']:
    """`count` images for each group, all of different people while there are enough of them."""
    from dgnet_jax.data.image_lists import Given
    from dgnet_jax.inference.trained import one_image_each

    split = self.index(self._options.split).splits[self._options.split]
    chosen = one_image_each(split, groups * self._options.count)
    paths = [split.paths[i] for i in chosen]
    size = max(1, min(self._options.count, len(paths) // groups))
    return [Given([paths[(start * size + i) % len(paths)] for i in range(size)]) for start in range(groups)]


def _named(options: argparse.Namespace) -> dict[str, Any]:
  """The sources that were named, checked; None for the others."""
  from dgnet_jax.data.image_lists import collect

  return {
    source: collect(getattr(options, source), source) if getattr(options, source) else None
    for source in FIGURES[options.figure][1]
  }


def _draw_interpolation(model: 'Model', source: Source, named: dict[str, Any], options: argparse.Namespace) -> None:
  from dgnet_jax.data.image_lists import Given
  from dgnet_jax.plots import figures
  from dgnet_jax.utils.writers import save_animation, save_image

  structures, appearances = named['structures'], named['appearances']
  if structures is None and appearances is None:
    kept, start, end = (given.items for given in source.people(3))
    rows = list(zip(kept, start, end, strict=True))
    ways = [figures.Way(kind, Given([row[0]]), Given(row[1:])) for kind in ('clothes', 'pose') for row in rows]
  elif {len(structures or ()), len(appearances or ())} == {1, 2}:
    ways = [
      figures.Way('clothes', structures, appearances)
      if len(appearances) == 2
      else figures.Way('pose', appearances, structures)
    ]
  else:
    raise UserError('interpolate takes two --appearances and one of --structures, or one and two, or none at all')
  sheet, frames = figures.interpolation(model, ways, options.steps)
  save_image(options.out, sheet)
  print(save_animation(options.out.with_suffix('.gif'), frames))


def _truth(index: 'DatasetIndex', chosen: Any) -> 'Truth':
  """Who is who in the lists of the queries `chosen`."""
  from dgnet_jax.data.index import DISTRACTOR, JUNK
  from dgnet_jax.plots.figures import Truth

  query, gallery = index.query, index.gallery
  same = query.identity[chosen][:, None] == gallery.identity

  def labels(split: Any, images: Any) -> list[list[str]]:
    who = {DISTRACTOR: 'distractor', JUNK: 'junk'}
    return [[who.get(split.identity[i], f'id {split.identity[i]:04d}'), f'camera {split.camera[i]}'] for i in images]

  junk = (same & (query.camera[chosen][:, None] == gallery.camera)) | (gallery.identity == JUNK)
  return Truth(labels(query, chosen), labels(gallery, range(len(gallery))), same & (gallery.identity > 0), junk)


def _draw_ranked(model: 'Model', source: Source, named: dict[str, Any], options: argparse.Namespace) -> Any:
  from dgnet_jax.data.image_lists import Given
  from dgnet_jax.inference.trained import one_image_each
  from dgnet_jax.plots import figures

  queries, gallery, truth = named['queries'], named['gallery'], None
  if queries is None and gallery is None:
    index = source.index('query', 'gallery')
    chosen = one_image_each(index.query, options.count)
    queries, gallery = Given([index.query.paths[i] for i in chosen]), Given(index.gallery.paths)
    truth = _truth(index, chosen)
  elif queries is None or gallery is None:
    raise UserError('ranked takes both --queries and --gallery, or neither')
  return figures.ranked(model, queries, gallery, truth, options.matches)


def _draw(model: 'Model', source: Source, named: dict[str, Any], options: argparse.Namespace) -> Any:
  """The sheet of a figure that is one."""
  from dgnet_jax.data.image_lists import Given
  from dgnet_jax.plots import figures

  if options.figure == 'ranked':
    return _draw_ranked(model, source, named, options)
  if options.figure == 'attention':
    return figures.attention(model, named['images'] or source.people()[0])
  structures, appearances = named['structures'], named['appearances']
  if options.figure == 'swap':
    return figures.swap(model, structures or source.people()[0], appearances or source.people()[0])
  if options.figure == 'pairs':
    if (structures is None) != (appearances is None) or (structures and len(structures) != len(appearances)):
      raise UserError('pairs takes as many --structures as --appearances, or none at all')
    return figures.pairs(model, *((structures, appearances) if structures else source.people(2)))
  people = () if structures and appearances else source.people()[0].items
  if structures and len(structures) > 1:
    raise UserError(f'appearances takes one image of --structures, not {len(structures)}')
  return figures.appearances(model, structures or Given(people[:1]), appearances or Given(people))


def draw(options: argparse.Namespace, overrides: dict[str, str]) -> None:
  """Draws `options.figure`; raises UserError before work starts if something is wrong."""
  from dgnet_jax.utils.writers import IMAGES, check_output

  if options.figure == 'curves':
    from dgnet_jax.plots import curves

    check_output(options.out, curves.FORMS)
    series = curves.read_metrics(pathlib.Path(options.workdir) / 'metrics.jsonl')
    print(curves.draw_curves(series, options.out, pathlib.Path(options.workdir).resolve().name))
    return
  check_output(options.out, IMAGES)
  for name in ('count', 'steps', 'matches', 'batch_size'):
    least = 2 if name == 'steps' else 1
    if getattr(options, name, least) < least:
      raise UserError(f'--{name.replace("_", "-")}={getattr(options, name)} must be at least {least}')
  named = _named(options)

  from dgnet_jax.api import load

  model = load(options.workdir, batch_size=options.batch_size)
  config = unfrozen(model.config)
  problems = loading.apply_overrides(config, overrides)
  if problems:
    raise ConfigError(problems)
  model.config = validate(config)
  print(model)
  source = Source(model, options)
  if options.figure == 'interpolate':
    _draw_interpolation(model, source, named, options)
  else:
    from dgnet_jax.utils.writers import save_image

    save_image(options.out, _draw(model, source, named, options))
  print(options.out)


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's, 130 after an interruption."""
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  problems += [f'{name}: only fields of data are read' for name in overrides if not name.startswith('data.')]
  with exit_on_user_error():
    if problems:
      raise ConfigError(problems)
    draw(options, overrides)


if __name__ == '__main__':
  main()
