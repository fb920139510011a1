"""How similar images are: those of one identity to each other, and generated images to real ones of the same name."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import logging
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.data.image_sets import ImageSet, match_by_name
from dgnet_jax.data.index import DISTRACTOR
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.image_quality import SSIM_WINDOW, Doubles, Pixels, psnr, ssim
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

Measure = Callable[[Pixels, Pixels], Doubles]
Indices = npt.NDArray[np.int64]

PAIRS_PER_BATCH = 64


def common_size(sets: Sequence[ImageSet], requested_hw: tuple[int, int] | None) -> tuple[int, int]:
  """Returns the size at which images are compared: the requested height and width, or those of the last set's images.

  Raises:
    UserError: no size is requested and the last set has several, or the size is smaller than SSIM's window.
  """
  size_hw = requested_hw or sets[-1].size_hw
  if size_hw is None:
    last = sets[-1]
    raise UserError(f'{last.title}: images of {last.size_text}; choose the size for SSIM, for example --size=256x128')
  if min(size_hw) < SSIM_WINDOW:
    raise UserError(f'{size_hw[0]}x{size_hw[1]} is smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window of SSIM')
  return size_hw


def has_identity_pairs(identity: npt.NDArray[np.integer] | None) -> bool:
  """Returns True if an identity is known to have two images; distractors and junk do not count."""
  return identity is not None and len(_with_two_images(identity)) > 0


def _with_two_images(identity: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
  """Returns the identities with at least two images, ascending."""
  identities, counts = np.unique(identity[identity > DISTRACTOR], return_counts=True)
  repeated: npt.NDArray[np.integer] = identities[counts > 1]
  return repeated


def draw_identity_pairs(identity: npt.NDArray[np.integer], count: int, seed: int) -> tuple[Indices, Indices]:
  """Draws pairs of different images of one identity, uniformly over identities and over the pairs of each.

  Args:
    identity: i[N]; distractors and junk are left out.
    count: number of pairs; a pair may be drawn more than once.
    seed: seed of the draw.

  Returns:
    Indices of the first and of the second images, i64[count] each.

  Raises:
    ValueError: no identity has two images.
  """
  identities = _with_two_images(identity)
  if not len(identities):
    raise ValueError('no identity has two images')
  rng = np.random.default_rng(seed)
  order = np.argsort(identity, kind='stable')
  start = np.searchsorted(identity[order], identities)
  num_images = np.searchsorted(identity[order], identities, side='right') - start
  drawn = rng.integers(len(identities), size=count)
  first = rng.integers(num_images[drawn])
  second = rng.integers(num_images[drawn] - 1)
  second += second >= first
  return order[start[drawn] + first], order[start[drawn] + second]


def ssim_within_identities(images: ImageSet, *, pairs: int, seed: int, size_hw: tuple[int, int]) -> dict[str, Any]:
  """Computes the mean SSIM of two images of one identity: the paper's measure of diversity.

  Args:
    images: with known identities.
    pairs: number of pairs to draw (`draw_identity_pairs`).
    seed: seed of the draw.
    size_hw: height and width that images are resized to, pixels.

  Returns:
    ssim; standard_error, of the mean over the pairs (0 for one pair); num_pairs; num_identities, among the pairs.

  Raises:
    ValueError: the identities are unknown, or none has two images.
  """
  if images.identity is None:
    raise ValueError(f'{images.title}: unknown identities')
  first, second = draw_identity_pairs(images.identity, pairs, seed)
  sources = _files(images, first, size_hw), _files(images, second, size_hw)
  values = _measure_pairs(*sources, {'ssim': ssim}, f'SSIM within identities of {images.title}')['ssim']
  return {
    'ssim': float(values.mean()),
    'standard_error': float(values.std(ddof=1) / np.sqrt(pairs)) if pairs > 1 else 0.0,
    'num_pairs': pairs,
    'num_identities': len(np.unique(images.identity[first])),
  }


def compare_same_names(real: ImageSet, generated: ImageSet, *, size_hw: tuple[int, int]) -> dict[str, Any]:
  """Measures SSIM and PSNR of the images that have the same name in both sets.

  Args:
    real: the ground truth.
    generated: the images to measure.
    size_hw: height and width that images are resized to, pixels.

  Returns:
    ssim; psnr in dB, the mean over images that are not equal (None if all are); num_images, num_equal,
    num_real_alone and num_generated_alone.

  Raises:
    UserError: the sets have no names in common, or a set has a name twice.
  """
  real_index, generated_index = match_by_name(real, generated)
  sources = _files(generated, generated_index, size_hw), _files(real, real_index, size_hw)
  values = _measure_pairs(*sources, {'ssim': ssim, 'psnr': psnr}, 'SSIM and PSNR of images of the same name')
  differs = np.isfinite(values['psnr'])
  return {
    'ssim': float(values['ssim'].mean()),
    'psnr': float(values['psnr'][differs].mean()) if differs.any() else None,
    'num_images': len(real_index),
    'num_equal': int((~differs).sum()),
    'num_real_alone': len(real) - len(real_index),
    'num_generated_alone': len(generated) - len(real_index),
  }


def _files(images: ImageSet, index: Indices, size_hw: tuple[int, int]) -> ImageFiles:
  return ImageFiles([images.paths[i] for i in index], size_hw)


def _measure_pairs(
  first: ImageFiles, second: ImageFiles, measures: Mapping[str, Measure], label: str
) -> dict[str, Doubles]:
  """Computes measures f64[N] of N pairs, a few in memory at a time; `label` names the work in progress lines."""

  def measure(pair: tuple[Pixels, Pixels]) -> list[float]:
    return [float(function(pair[0][None], pair[1][None])[0]) for function in measures.values()]

  values: list[list[float]] = []
  progress = ProgressLog(logger, label, len(first), 'pairs')
  with ThreadPoolExecutor() as pool:
    for start in range(0, len(first), PAIRS_PER_BATCH):
      batch = slice(start, start + PAIRS_PER_BATCH)
      values += pool.map(measure, zip(first[batch], second[batch], strict=True))
      progress.update(len(values))
  return dict(zip(measures, np.array(values).T, strict=True))
