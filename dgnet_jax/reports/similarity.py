"""How alike images are: those of one person to each other, and generated ones to true ones of the same name."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import logging
import time
from typing import Any

import numpy as np

from dgnet_jax.data.image_sets import ImageSet, partners
from dgnet_jax.data.index import DISTRACTOR
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.image_quality import SSIM_WINDOW, psnr, ssim
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)

Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]

PROGRESS_SECONDS = 10.0  # between progress lines
PAIRS_AT_A_TIME = 64


def common_size(images: Sequence[ImageSet], wanted: tuple[int, int] | None) -> tuple[int, int]:
  """The height and width at which images are compared: those asked for, or those that the last set has.

  Raises:
    UserError: none was asked for and the last set has several; or SSIM's window is larger.
  """
  size = wanted or images[-1].size_hw
  if size is None:
    last = images[-1]
    raise UserError(f'{last.title}: images of {last.size_text}; say at which size SSIM is taken, as in --size=256x128')
  if min(size) < SSIM_WINDOW:
    raise UserError(f'{size[0]}x{size[1]} is smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window of SSIM')
  return size


def _on_two_images(identity: np.ndarray) -> np.ndarray:
  """The people with at least two images, ascending."""
  numbers, counts = np.unique(identity[identity > DISTRACTOR], return_counts=True)
  return numbers[counts > 1]


def has_pairs_within(images: ImageSet) -> bool:
  """Whether somebody is known to be on two images."""
  return images.identity is not None and len(_on_two_images(images.identity)) > 0


def draw_pairs_within(identity: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of different images of one person: every person is as likely, and every pair of theirs.

  Args:
    identity: i64[N]; distractors and junk are nobody.
    count: pairs; one may come twice.
    seed: of the draw.

  Returns:
    Indices i64[count] of the first and of the second.

  Raises:
    ValueError: nobody has two images.
  """
  numbers = _on_two_images(identity)
  if not len(numbers):
    raise ValueError('nobody is on two images')
  rng = np.random.default_rng(seed)
  order = np.argsort(identity, kind='stable')
  start = np.searchsorted(identity[order], numbers)
  number = np.searchsorted(identity[order], numbers, side='right') - start
  person = rng.integers(len(numbers), size=count)
  first = rng.integers(number[person])
  second = rng.integers(number[person] - 1)
  second += second >= first
  return order[start[person] + first], order[start[person] + second]


def _measured(
  first: ImageFiles, second: ImageFiles, measures: Mapping[str, Measure], what: str
) -> dict[str, np.ndarray]:
  """Each measure f64[N] of N pairs, of which a few are in memory at a time."""

  def of_pair(pair: tuple[np.ndarray, np.ndarray]) -> list[float]:
    return [float(measure(pair[0][None], pair[1][None])[0]) for measure in measures.values()]

  values: list[list[float]] = []
  progress, last_line = Progress(len(first), unit='pairs'), time.monotonic()
  with ThreadPoolExecutor() as pool:
    for start in range(0, len(first), PAIRS_AT_A_TIME):
      run = slice(start, start + PAIRS_AT_A_TIME)
      values += pool.map(of_pair, zip(first[run], second[run], strict=True))
      if time.monotonic() - last_line > PROGRESS_SECONDS:
        logger.info(f'{what}: {progress.line(len(values))}')
        last_line = time.monotonic()
  return dict(zip(measures, np.array(values).T, strict=True))


def _files(images: ImageSet, chosen: np.ndarray, size_hw: tuple[int, int]) -> ImageFiles:
  return ImageFiles([images.paths[i] for i in chosen], size_hw)


def ssim_within_people(images: ImageSet, *, pairs: int, seed: int, size_hw: tuple[int, int]) -> dict[str, Any]:
  """The mean SSIM of two images of one person: the paper's measure of how much the images of a person differ.

  Args:
    images: whose people are known.
    pairs: how many are drawn (`draw_pairs_within`).
    seed: of the draw.
    size_hw: to which images are resized, pixels.

  Returns:
    ssim, standard_error (of the mean over the pairs; 0 for one), num_pairs, num_people (on the pairs).

  Raises:
    ValueError: the people are not known, or nobody has two images.
  """
  if images.identity is None:
    raise ValueError(f'{images.title}: people are not known')
  first, second = draw_pairs_within(images.identity, pairs, seed)
  sources = _files(images, first, size_hw), _files(images, second, size_hw)
  values = _measured(*sources, {'ssim': ssim}, f'SSIM within people of {images.title}')['ssim']
  return {
    'ssim': float(values.mean()),
    'standard_error': float(values.std(ddof=1) / np.sqrt(pairs)) if pairs > 1 else 0.0,
    'num_pairs': pairs,
    'num_people': len(np.unique(images.identity[first])),
  }


def compare_same_names(real: ImageSet, generated: ImageSet, *, size_hw: tuple[int, int]) -> dict[str, Any]:
  """SSIM and PSNR of the images that both sets have under one name.

  Args:
    real: the truth.
    generated: what is judged.
    size_hw: to which images are resized, pixels.

  Returns:
    ssim; psnr in dB, the mean over images that are not equal (None when all are); num_images, num_equal,
    num_real_alone and num_generated_alone.

  Raises:
    UserError: no names in common, or a name twice in a set.
  """
  places, others = partners(real, generated)
  sources = _files(generated, others, size_hw), _files(real, places, size_hw)
  values = _measured(*sources, {'ssim': ssim, 'psnr': psnr}, 'SSIM and PSNR of images of the same name')
  unequal = np.isfinite(values['psnr'])
  return {
    'ssim': float(values['ssim'].mean()),
    'psnr': float(values['psnr'][unequal].mean()) if unequal.any() else None,
    'num_images': len(places),
    'num_equal': int((~unequal).sum()),
    'num_real_alone': len(real) - len(places),
    'num_generated_alone': len(generated) - len(places),
  }
