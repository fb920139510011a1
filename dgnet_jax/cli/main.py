"""The `dgnet` command: a trained network on anybody's images, without a data set.

Everything heavy is imported after the command line has been found right.
"""

import argparse
from collections.abc import Iterable, Sequence
import csv
import importlib.util
import logging
import os
import pathlib
from typing import TYPE_CHECKING

import dgnet_jax
from dgnet_jax.errors import UserError
from dgnet_jax.utils.console import exit_on_user_error

if TYPE_CHECKING:
  from dgnet_jax.api import Model
  from dgnet_jax.data.image_lists import Given

logger = logging.getLogger(__name__)

WORDS = """RUN is the work folder of a training run, or one of its checkpoints,
RUN/checkpoints/STEP. IMAGE is a JPEG or PNG file of any size, best one
upright person from head to foot; or a folder, which stands for its images.
"""
EXAMPLES = {
  'embed': """examples:
  dgnet embed runs/market images/ --out=images.npz
  dgnet embed runs/market a.jpg b.jpg --out=embeddings.parquet

The file has the columns path and embedding. The dot product of two embeddings says how alike the people are.
""",
  'swap': """examples:
  dgnet swap runs/market --structure=anna.jpg --appearance=ben.jpg --out=anna_in_bens_clothes.png
  dgnet swap runs/market --structure=anna.jpg --appearance clothes/ --out=anna_dressed_up/

As many structures as appearances, or one of either. Several images go to a folder.
""",
  'interpolate': """examples:
  dgnet interpolate runs/market --structure=anna.jpg --appearance ben.jpg cleo.jpg --out=clothes.gif
  dgnet interpolate runs/market --structure anna.jpg ben.jpg --appearance=anna.jpg --steps=5 --out=pose.png

Two appearances, two structures, or both: from the first to the second. A .gif moves, a .png or .jpg is a strip, all
else is a folder of images.
""",
  'rank': """examples:
  dgnet rank runs/market anna.jpg --gallery images/
  dgnet rank runs/market anna.jpg ben.jpg --gallery images/ --count=100 --out=found.csv

A score of 1 is the same image. Without --out, rank, score and path are printed.
""",
  'page': """examples:
  dgnet page runs/market
  dgnet page runs/market --gallery images/ --port=8080

Open the printed address in a browser of this machine. Uploads (JPEG or PNG) are held in memory until they are answered,
and nowhere else; the page loads and sends nothing from or to anywhere else. Other machines reach it only with
--host=0.0.0.0, and then everybody on the network does.
""",
}


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='dgnet',
    description=f'Uses a trained DG-Net on your images.\n\n{WORDS}',
    epilog='dgnet COMMAND --help shows examples.',
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('--version', action='version', version=f'dgnet_jax {dgnet_jax.__version__}')
  commands = parser.add_subparsers(dest='command', required=True, metavar='COMMAND')

  def command(name: str, what: str) -> argparse.ArgumentParser:
    added = commands.add_parser(
      name,
      help=what,
      description=f'{what[0].upper()}{what[1:]}.\n\n{WORDS}',
      epilog=EXAMPLES[name],
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    added.add_argument('run', metavar='RUN', help='work folder or checkpoint')
    return added

  embed = command('embed', 'embeddings by which people are told apart')
  embed.add_argument('images', metavar='IMAGE', nargs='+')
  embed.add_argument('--out', required=True, metavar='FILE', help='.npz or .parquet')
  swap = command('swap', 'people in the clothes of others')
  interpolate = command('interpolate', "from one image's clothes or pose to another's")
  for added in (swap, interpolate):
    added.add_argument('--structure', required=True, metavar='IMAGE', nargs='+', help='gives pose, place, background')
    added.add_argument('--appearance', required=True, metavar='IMAGE', nargs='+', help='gives the clothes')
    added.add_argument('--out', required=True, metavar='PATH', help='a file or a folder')
  interpolate.add_argument('--steps', type=int, default=8, help='images in all (default: %(default)s)')
  rank = command('rank', 'search images for a person')
  rank.add_argument('queries', metavar='IMAGE', nargs='+', help='people to find')
  rank.add_argument('--gallery', required=True, metavar='IMAGE', nargs='+', help='images to search')
  rank.add_argument('--alpha', type=float, help="weight of the fine-grained half (default: the run's)")
  rank.add_argument('--count', type=int, default=10, help='matches for each query (default: %(default)s)')
  rank.add_argument('--out', metavar='FILE.csv', help='a table instead')
  page = command('page', 'a page in the browser to swap and search on')
  page.add_argument('--gallery', metavar='IMAGE', nargs='+', help='images to search, commonly a folder')
  page.add_argument('--host', default='127.0.0.1', help='to listen at (default: %(default)s, this machine alone)')
  page.add_argument('--port', type=int, default=7860, help='0 is any that is free (default: %(default)s)')
  for added in commands.choices.values():
    added.add_argument('--batch-size', type=int, default=8, help='images at a time (default: %(default)s)')
  return parser


def _load(options: argparse.Namespace) -> 'Model':
  from dgnet_jax.api import load

  model = load(options.run, batch_size=options.batch_size)
  logger.info(str(model))
  return model


def _embed(options: argparse.Namespace) -> None:
  from dgnet_jax.data.image_lists import collect
  from dgnet_jax.utils.writers import EMBEDDINGS, check_output, save_embeddings

  check_output(options.out, EMBEDDINGS)
  given = collect(options.images)
  embeddings = _load(options).embed(given)
  logger.info(
    f'{len(given)} embeddings of {embeddings.shape[1]} numbers: {save_embeddings(options.out, given.paths, embeddings)}'
  )


def _sources(options: argparse.Namespace) -> dict[str, 'Given']:
  from dgnet_jax.data.image_lists import collect

  return {
    'structure_from': collect(options.structure, 'structures'),
    'appearance_from': collect(options.appearance, 'appearances'),
  }


def _swap(options: argparse.Namespace) -> None:
  from dgnet_jax.utils.writers import IMAGES, check_output, save_image

  sources = _sources(options)
  structures, appearances = sources.values()
  count = max(len(structures), len(appearances))
  if pathlib.Path(options.out).suffix:
    check_output(options.out, IMAGES)
    if count > 1:
      raise UserError(f'{options.out}: {count} images do not go into one file; name a folder')
    paths = [pathlib.Path(options.out)]
  else:
    stems = [[pathlib.Path(given.paths[i % len(given)]).stem for i in range(count)] for given in sources.values()]
    paths = _numbered(options.out, [f'{clothes}_in_{pose}' for pose, clothes in zip(*stems, strict=True)])
  made = _load(options).iter_swap(**sources)
  for path, image in zip(paths, made, strict=True):
    save_image(path, image)
  logger.info(f'{count} images: {options.out}')


def _numbered(folder: str, names: Iterable[str]) -> list[pathlib.Path]:
  """PNG files in a folder whose names say their order too."""
  names = list(names)
  digits = len(str(len(names) - 1))
  return [pathlib.Path(folder) / f'{i:0{digits}d}_{name}.png' for i, name in enumerate(names)]


def _interpolate(options: argparse.Namespace) -> None:
  import numpy as np

  from dgnet_jax.utils.writers import ANIMATIONS, IMAGES, check_output, save_animation, save_image

  suffix = pathlib.Path(options.out).suffix.lower()
  if suffix:
    check_output(options.out, ANIMATIONS + IMAGES)
  sources = _sources(options)
  frames = _load(options).interpolate(**sources, steps=options.steps)
  if suffix in ANIMATIONS:
    save_animation(options.out, frames)
  elif suffix:
    save_image(options.out, np.concatenate(list(frames), axis=1))
  else:
    for path, frame in zip(_numbered(options.out, ['step'] * len(frames)), frames, strict=True):
      save_image(path, frame)
  logger.info(f'{len(frames)} images: {options.out}')


def _rank(options: argparse.Namespace) -> None:
  from dgnet_jax.data.image_lists import collect
  from dgnet_jax.utils.atomic_files import whole_file
  from dgnet_jax.utils.writers import check_output

  if options.out:
    check_output(options.out, ('.csv',))
  queries, gallery = collect(options.queries, 'queries'), collect(options.gallery, 'gallery')
  found = _load(options).rank(queries, gallery, alpha=options.alpha, count=options.count)
  if options.out:
    with whole_file(options.out) as aside, aside.open('w', newline='') as file:
      writer = csv.writer(file)
      writer.writerow(('query', 'rank', 'score', 'path'))
      for name, matches in zip(queries.names, found, strict=True):
        writer.writerows((name, rank, f'{match.score:.6f}', match.path) for rank, match in enumerate(matches, 1))
    logger.info(f'rankings: {options.out}')
    return
  for name, matches in zip(queries.names, found, strict=True):
    print(name)
    for rank, match in enumerate(matches, 1):
      print(f'{rank:>6}  {match.score:7.4f}  {match.path}')


def _page(options: argparse.Namespace) -> None:
  missing = [name for name in ('starlette', 'uvicorn') if importlib.util.find_spec(name) is None]
  if missing:
    raise UserError(f"the page needs {' and '.join(missing)}: pip install 'dgnet_jax[page]'")
  from dgnet_jax.data.image_lists import collect
  from dgnet_jax.page.answers import Answers
  from dgnet_jax.page.server import is_loopback, listen, serve

  with listen(options.host, options.port) as listening:
    if not is_loopback(options.host):
      logger.warning(f'--host={options.host}: whoever reaches this machine can use the page and see the gallery')
    gallery = collect(options.gallery, 'gallery') if options.gallery else None
    answers = Answers(_load(options), gallery)
    serve(answers, listening, options.host)


JOBS = {'embed': _embed, 'swap': _swap, 'interpolate': _interpolate, 'rank': _rank, 'page': _page}


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's, 130 after an interruption."""
  options = _parser().parse_args(arguments)
  with exit_on_user_error():
    if not os.path.exists(options.run):
      raise UserError(f'{options.run}: no such folder (RUN)')
    JOBS[options.command](options)


if __name__ == '__main__':
  main()
