"""`dgnet embed`, `swap` and `interpolate`: a trained model on any images, without a data set."""

import argparse
from collections.abc import Sequence
import logging
import os
import pathlib

from dgnet_jax.cli.arguments import at_least, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import DETAILS, add_alpha, add_run, check_run, load_model
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)

MAX_NAME_BYTES = 100  # of each image's name in the name of a swap


def _add_embed(parser: argparse.ArgumentParser) -> None:
  add_run(parser)
  parser.add_argument('images', metavar='IMAGE', nargs='+')
  add_alpha(parser)
  parser.add_argument(
    '--out', required=True, type=_output, metavar='PATH', help='.npz, .parquet, or a folder of Parquet files'
  )
  parser.add_argument(
    '--share', type=_share, metavar='I/N', help='of a folder: only every N-th file, from number I on, which is below N'
  )


def _share(text: str) -> tuple[int, int]:
  """An argparse type: '2/8'."""
  number, slash, count = text.partition('/')
  if slash and number.isdecimal() and count.isdecimal() and int(number[:9]) < int(count[:9]):
    return int(number[:9]), int(count[:9])
  raise argparse.ArgumentTypeError(f'{text!r} must be I/N, like 0/4 to 3/4')


def _embed(options: argparse.Namespace) -> None:
  path, is_folder = options.out
  if options.share and not is_folder:
    raise UserError(f'--share divides a folder of files, and {path} is one file')
  check_run(options)
  if is_folder:
    from dgnet_jax.utils.writers import check_output_folder

    check_output_folder(path)
    load_model(options).embed_to(path, options.images, alpha=options.alpha, share=options.share or (0, 1))
    return
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.inference.scoring import piece_shares
  from dgnet_jax.utils.writers import EMBEDDINGS, check_output, save_embeddings

  check_output(path, EMBEDDINGS)
  images = as_image_list(options.images)
  model = load_model(options)
  embeddings = model.embed(images, alpha=options.alpha)
  save_embeddings(path, images.paths, embeddings, piece_shares(model.config, options.alpha))
  logger.info(f'{len(images)} embeddings of {embeddings.shape[1]} numbers: {path}')


def _output(text: str) -> tuple[pathlib.Path, bool]:
  """An argparse type: a file or a folder to write, and whether it is a folder."""
  path = writable(text)
  return path, text.endswith('/') or path.is_dir() or not path.suffix


def _add_structure_and_appearance(parser: argparse.ArgumentParser) -> None:
  add_run(parser)
  parser.add_argument(
    '--structure', required=True, metavar='IMAGE', nargs='+', help='gives pose, position and background'
  )
  parser.add_argument('--appearance', required=True, metavar='IMAGE', nargs='+', help='gives the clothes')
  parser.add_argument('--out', required=True, type=_output, metavar='PATH', help='a file or a folder')


def _add_swap(parser: argparse.ArgumentParser) -> None:
  _add_structure_and_appearance(parser)
  parser.add_argument(
    '--one-person', action='store_true', help='the appearances show one person, whose clothes they give together'
  )


def _swap(options: argparse.Namespace) -> None:
  check_run(options)
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.utils.writers import IMAGES, check_output, save_image

  structures = as_image_list(options.structure, 'structures')
  appearances = as_image_list(options.appearance, 'appearances')
  count = len(structures) if options.one_person else max(len(structures), len(appearances))
  out, is_folder = options.out
  if not is_folder:
    check_output(out, IMAGES)
    if count > 1:
      raise UserError(f'{out}: {count} images do not fit into one file; name a folder')
    paths = [out]
  else:
    donors = appearances.paths[:1] if options.one_person else appearances.paths  # one name stands for the person
    stems = [[pathlib.Path(paths[i % len(paths)]).stem for i in range(count)] for paths in (structures.paths, donors)]
    paths = _numbered(out, [f'{_short(donor)}_in_{_short(structure)}' for structure, donor in zip(*stems, strict=True)])
  generated = load_model(options).iter_swap(
    structure_from=structures, appearance_from=appearances, one_person=options.one_person
  )
  for path, image in zip(paths, generated, strict=True):
    save_image(path, image)
  logger.info(f'{count} image{"s" if count > 1 else ""}: {out}')


def _short(name: str) -> str:
  """Returns the beginning of a file's name, so that two and a number make the name of a file."""
  while len(os.fsencode(name)) > MAX_NAME_BYTES:
    name = name[:-1]
  return name


def _numbered(folder: pathlib.Path, names: Sequence[str]) -> list[pathlib.Path]:
  """Returns PNG files in a folder, numbered in their order."""
  digits = len(str(len(names) - 1))
  return [folder / f'{i:0{digits}d}_{name}.png' for i, name in enumerate(names)]


def _add_interpolate(parser: argparse.ArgumentParser) -> None:
  _add_structure_and_appearance(parser)
  parser.add_argument('--steps', type=at_least(2), default=8, help='number of images (default: %(default)s)')


def _interpolate(options: argparse.Namespace) -> None:
  check_run(options)
  import numpy as np

  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.utils.writers import ANIMATIONS, IMAGES, check_output, save_animation, save_image

  out, is_folder = options.out
  if not is_folder:
    check_output(out, ANIMATIONS + IMAGES)
  structures = as_image_list(options.structure, 'structures')
  appearances = as_image_list(options.appearance, 'appearances')
  frames = load_model(options).interpolate(structure_from=structures, appearance_from=appearances, steps=options.steps)
  if is_folder:
    for path, frame in zip(_numbered(out, ['step'] * len(frames)), frames, strict=True):
      save_image(path, frame)
  elif out.suffix.lower() in ANIMATIONS:
    save_animation(out, frames)
  else:
    save_image(out, np.concatenate(list(frames), axis=1))
  logger.info(f'{len(frames)} images: {out}')


COMMANDS = (
  Command(
    name='embed',
    summary='embed images for re-identification',
    details=DETAILS,
    epilog="""examples:
  dgnet embed runs/market images/ --out=images.npz
  dgnet embed runs/market a.jpg b.jpg --out=embeddings.parquet
  dgnet embed runs/market images/ --out=embeddings/      # any number of images; the same command goes on after a stop
  dgnet embed runs/market images/ --out=embeddings/ --share=2/8               # the third of eight jobs that share them

The file has the columns path and embedding. Embeddings have length 1, and the dot product of two is their score in
`dgnet rank`. `share` (in Parquet: the schema's metadata) has the shares of the primary and the fine-grained half in it,
1/(1 + alpha) and alpha/(1 + alpha).
""",
    add_arguments=_add_embed,
    run=_embed,
  ),
  Command(
    name='swap',
    summary='generate people in the clothes of others',
    details=DETAILS,
    epilog="""examples:
  dgnet swap runs/market --structure=anna.jpg --appearance=ben.jpg --out=anna_in_bens_clothes.png
  dgnet swap runs/market --structure=anna.jpg --appearance clothes/ --out=anna_dressed_up/
  dgnet swap runs/market --structure=anna.jpg --appearance ben_front.jpg ben_back.jpg --one-person --out=anna.png

The numbers of structures and appearances must be equal, or one of them 1. Several images are written to a folder.
""",
    add_arguments=_add_swap,
    run=_swap,
  ),
  Command(
    name='interpolate',
    summary='generate images between two appearances or structures',
    details=DETAILS,
    epilog="""examples:
  dgnet interpolate runs/market --structure=anna.jpg --appearance ben.jpg cleo.jpg --out=clothes.gif
  dgnet interpolate runs/market --structure anna.jpg ben.jpg --appearance=anna.jpg --steps=5 --out=pose.png

Takes two appearances, two structures, or both, and goes from the first to the second. A .gif is an animation, a .png
or .jpg a strip; any other name is a folder of images.
""",
    add_arguments=_add_interpolate,
    run=_interpolate,
  ),
)
