"""How alike pictures are: those of one person to each other, and generated ones to true ones of the same name."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
import time
from typing import Any

import numpy as np

from dgnet_jax.config import UserError
from dgnet_jax.data.index import DISTRACTOR
from dgnet_jax.data.photos import PhotoFiles
from dgnet_jax.data.picture_sets import PictureSet, partners
from dgnet_jax.evaluation.image_quality import SSIM_WINDOW, psnr, ssim
from dgnet_jax.progress import Progress

Log = Callable[[str], None]
Measure = Callable[[np.ndarray, np.ndarray], np.ndarray]

PROGRESS_SECONDS = 10.0  # between progress lines
PAIRS_AT_A_TIME = 64


def common_size(pictures: Sequence[PictureSet], wanted: tuple[int, int] | None) -> tuple[int, int]:
  """The height and width at which pictures are compared: those asked for, or those that the last set has.

  Raises:
    UserError: none was asked for and the last set has several; or SSIM's window is larger.
  """
  size = wanted or pictures[-1].size_hw
  if size is None:
    last = pictures[-1]
    raise UserError(
      f'{last.title}: pictures of {last.size_text}; say at which size SSIM is taken, as in --size=256x128'
    )
  if min(size) < SSIM_WINDOW:
    raise UserError(f'{size[0]}x{size[1]} is smaller than the {SSIM_WINDOW}x{SSIM_WINDOW} window of SSIM')
  return size


def _on_two_pictures(identity: np.ndarray) -> np.ndarray:
  """The people with at least two pictures, ascending."""
  numbers, counts = np.unique(identity[identity > DISTRACTOR], return_counts=True)
  return numbers[counts > 1]


def has_pairs_within(pictures: PictureSet) -> bool:
  """Whether somebody is known to be on two pictures."""
  return pictures.identity is not None and len(_on_two_pictures(pictures.identity)) > 0


def draw_pairs_within(identity: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Pairs of different pictures of one person: every person is as likely, and every pair of theirs.

  Args:
    identity: i64[N]; distractors and junk are nobody.
    count: pairs; one may come twice.
    seed: of the draw.

  Returns:
    Indices i64[count] of the first and of the second.

  Raises:
    ValueError: nobody has two pictures.
  """
  numbers = _on_two_pictures(identity)
  if not len(numbers):
    raise ValueError('nobody is on two pictures')
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
  first: PhotoFiles, second: PhotoFiles, measures: Mapping[str, Measure], log: Log, what: str
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
        log(f'{what}: {progress.line(len(values))}')
        last_line = time.monotonic()
  return dict(zip(measures, np.array(values).T, strict=True))


def _files(pictures: PictureSet, chosen: np.ndarray, size_hw: tuple[int, int]) -> PhotoFiles:
  return PhotoFiles([pictures.paths[i] for i in chosen], size_hw)


def ssim_within_people(
  pictures: PictureSet, *, pairs: int, seed: int, size_hw: tuple[int, int], log: Log = print
) -> dict[str, Any]:
  """The mean SSIM of two pictures of one person: the paper's measure of how much the pictures of a person differ.

  Args:
    pictures: whose people are known.
    pairs: how many are drawn (`draw_pairs_within`).
    seed: of the draw.
    size_hw: to which pictures are resized, pixels.
    log: takes a progress line every ten seconds.

  Returns:
    ssim, standard_error (of the mean over the pairs; 0 for one), num_pairs, num_people (on the pairs).

  Raises:
    ValueError: the people are not known, or nobody has two pictures.
  """
  if pictures.identity is None:
    raise ValueError(f'{pictures.title}: people are not known')
  first, second = draw_pairs_within(pictures.identity, pairs, seed)
  sources = _files(pictures, first, size_hw), _files(pictures, second, size_hw)
  values = _measured(*sources, {'ssim': ssim}, log, f'SSIM within people of {pictures.title}')['ssim']
  return {
    'ssim': float(values.mean()),
    'standard_error': float(values.std(ddof=1) / np.sqrt(pairs)) if pairs > 1 else 0.0,
    'num_pairs': pairs,
    'num_people': len(np.unique(pictures.identity[first])),
  }


def compare_same_names(
  real: PictureSet, generated: PictureSet, *, size_hw: tuple[int, int], log: Log = print
) -> dict[str, Any]:
  """SSIM and PSNR of the pictures that both sets have under one name.

  Args:
    real: the truth.
    generated: what is judged.
    size_hw: to which pictures are resized, pixels.
    log: takes a progress line every ten seconds.

  Returns:
    ssim; psnr in dB, the mean over pictures that are not equal (None when all are); num_pictures, num_equal,
    num_real_alone and num_generated_alone.

  Raises:
    UserError: no names in common, or a name twice in a set.
  """
  places, others = partners(real, generated)
  sources = _files(generated, others, size_hw), _files(real, places, size_hw)
  values = _measured(*sources, {'ssim': ssim, 'psnr': psnr}, log, 'SSIM and PSNR of pictures of the same name')
  unequal = np.isfinite(values['psnr'])
  return {
    'ssim': float(values['ssim'].mean()),
    'psnr': float(values['psnr'][unequal].mean()) if unequal.any() else None,
    'num_pictures': len(places),
    'num_equal': int((~unequal).sum()),
    'num_real_alone': len(real) - len(places),
    'num_generated_alone': len(generated) - len(places),
  }
