"""Cross pictures of people never trained on: sheets, and on the built-in pedestrians the distance to the truth."""

from collections.abc import Callable, Iterable, Sequence
import os
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from dgnet_jax.data.index import DISTRACTOR, DatasetIndex
from dgnet_jax.data.photos import Chosen, PhotoFiles
from dgnet_jax.data.synthetic import photo_truth, render
from dgnet_jax.evaluation import image_quality, sheets
from dgnet_jax.trained import Trained, one_photo_each

Log = Callable[[str], None]

SHOWN_TRUTHS = 8  # columns of the truth sheet
PAIR_SEED = 0  # the same pairs in every evaluation, so that runs compare


def write_swap_sheet(config: Any, index: DatasetIndex, trained: Trained, path: pathlib.Path) -> pathlib.Path:
  """A sheet of test people in each other's clothes; on its diagonal everybody wears their own."""
  chosen = one_photo_each(index.query, config.evaluation.num_swaps)
  photos = PhotoFiles([index.query.paths[i] for i in chosen], tuple(config.data.image_size_hw))[:]
  rows, columns = np.divmod(np.arange(len(photos) ** 2), len(photos))
  made = np.concatenate(list(trained.swap_pictures(Chosen(photos, rows), Chosen(photos, columns))))
  return sheets.save_png(path, sheets.swap_sheet(photos, photos, made.reshape(len(photos), *photos.shape)))


def draw_pairs(identity: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """Indices i64[count] of structure donors and of appearance donors, each another person."""
  rng = np.random.default_rng(PAIR_SEED)
  people = np.flatnonzero(identity > DISTRACTOR)
  structure = rng.choice(people, count)
  appearance = np.array([rng.choice(people[identity[people] != identity[i]]) for i in structure])
  return structure, appearance


def render_truth(
  config: Any, root: str, paths: Sequence[str], structure_from: Iterable[int], appearance_from: Iterable[int]
) -> np.ndarray:
  """The true pictures of one photo's person in another photo's structure, at the size that networks see.

  Args:
    config: of the run; the data are the built-in pedestrians.
    root: of the data set.
    paths: of its photos.
    structure_from: N indices into `paths`.
    appearance_from: N indices into `paths`.

  Returns:
    u8[N, H, W, 3].
  """
  known = photo_truth(root)
  names = [pathlib.PurePath(os.path.relpath(path, root)).as_posix() for path in paths]
  height, width = config.data.image_size_hw
  truth = []
  for place, donor in zip(structure_from, appearance_from, strict=True):
    picture = render(known[names[donor]][0], known[names[place]][1], tuple(config.data.synthetic.image_size_hw))
    # Resized as a photo is when it is read.
    truth.append(np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)))
  return np.stack(truth)


def measure_against_truth(
  config: Any, index: DatasetIndex, trained: Trained, sheet_path: pathlib.Path, *, log: Log
) -> dict[str, dict[str, float]]:
  """PSNR and SSIM of cross pictures of test people against the rendered truth, next to two trivial answers.

  Args:
    config: of the run; the data are the built-in pedestrians.
    index: of the data.
    trained: networks.
    sheet_path: where the first pairs are shown.
    log: takes progress lines.

  Returns:
    {'generated': {'psnr', 'ssim'}, 'structure': ..., 'recolored': ...}, see `image_quality.trivial_answers`.
  """
  size = tuple(config.data.image_size_hw)
  identity = np.concatenate([index.query.identity, index.gallery.identity])
  paths = index.query.paths + index.gallery.paths
  chosen = draw_pairs(identity, config.evaluation.num_truth_pairs)
  structures, appearances = (PhotoFiles([paths[i] for i in donors], size)[:] for donors in chosen)
  truth = render_truth(config, index.root, paths, *chosen)
  swaps = trained.swap_pictures(structures, appearances, log=log, what='cross pictures against the truth')
  generated = np.concatenate(list(swaps))
  shown = slice(SHOWN_TRUTHS)
  psnr = image_quality.psnr(generated[shown], truth[shown])
  sheet = sheets.truth_sheet(structures[shown], appearances[shown], generated[shown], truth[shown], psnr.tolist())
  sheets.save_png(sheet_path, sheet)
  answers = {'generated': generated} | image_quality.trivial_answers(structures, appearances)
  return {name: image_quality.quality(pictures, truth) for name, pictures in answers.items()}
