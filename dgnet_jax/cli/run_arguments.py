"""Arguments of the commands that use a trained model on any images."""

import argparse
from collections.abc import Sequence
import contextlib
import logging
import math
import pathlib
from typing import TYPE_CHECKING

from dgnet_jax.cli.arguments import add_batch_size, add_step, run_folder
from dgnet_jax.errors import UserError
from dgnet_jax.utils.paths import packaged_models

if TYPE_CHECKING:
  from dgnet_jax.api import Gallery, Model

logger = logging.getLogger(__name__)

DETAILS = """RUN is the work folder of a run, one of its checkpoints, RUN/checkpoints/STEP, a model file of `dgnet
export`, or synthetic, the small model of rendered people that comes with the package. IMAGE is a JPEG,
PNG, BMP or WebP file of any size, preferably of one upright person from head to foot; a folder stands
for the images in it and its subfolders.
"""
RUN_HELP = 'work folder, checkpoint, .safetensors file, or synthetic'


def add_run(parser: argparse.ArgumentParser) -> None:
  """Adds the arguments that `check_run` and `load_model` read."""
  parser.add_argument('run', type=run_folder, metavar='RUN', help=RUN_HELP)
  add_step(parser)
  add_batch_size(parser, 8)


def load_model(options: argparse.Namespace) -> 'Model':
  """Loads the model of the argument RUN."""
  from dgnet_jax.api import load

  model = load(options.run, batch_size=options.batch_size, step=getattr(options, 'step', None))
  logger.info(str(model))
  return model


def _alpha(text: str) -> float:
  """An argparse type: what `piece_shares` allows."""
  with contextlib.suppress(ValueError):
    alpha = float(text)
    if alpha == -1 or 0 <= alpha < math.inf:
      return alpha
  raise argparse.ArgumentTypeError(f'{text} must be at least 0, or -1 for the fine-grained half alone')


def add_alpha(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--alpha', type=_alpha, help="weight of the fine-grained half (default: the run's)")


def rate(text: str) -> float:
  """An argparse type: a false-positive rate."""
  with contextlib.suppress(ValueError):
    value = float(text)
    if 0 < value < 1:
      return value
  raise argparse.ArgumentTypeError(f'{text} must be above 0 and below 1, like 1e-3')


def check_run(options: argparse.Namespace) -> None:
  """Raises UserError if there is no such run, before JAX is imported."""
  if isinstance(options.run, pathlib.Path) and not options.run.exists() and str(options.run) not in packaged_models():
    raise UserError(f'{options.run}: no such folder or file, and no model of the package (RUN)')


def opened_gallery(paths: Sequence[str]) -> 'Gallery | None':
  """Opens the gallery that paths of images to search stand for; None if they are images.

  Raises:
    UserError: a gallery is among several paths, or it cannot be read.
  """
  from dgnet_jax.gallery.store import DESCRIPTION, is_gallery

  found = [path for path in paths if is_gallery(path)]
  if not found:
    return None
  if len(paths) > 1:
    raise UserError(f'{found[0]}: a gallery ({DESCRIPTION}), which can only be searched alone; name nothing else')
  from dgnet_jax.api import open_gallery

  return open_gallery(found[0])
