"""Generated images of built-in pedestrians never trained on, against the rendered truth.

The people are new; the six cameras are those of the training images.
"""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.synthetic.ground_truth import RenderedTruth, render_truth
from dgnet_jax.evaluation import clothes_quality, image_quality
from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance
from dgnet_jax.inference.trained import Trained
from dgnet_jax.plots import sheets
from dgnet_jax.reports.similarity import draw_pairs_within

logger = logging.getLogger(__name__)

Values = Mapping[str, np.ndarray]

SEED = 0  # the same images in every evaluation, so that runs compare
SHOWN_PATTERNED, SHOWN_PLAIN = 5, 3  # columns of the truth sheet
COLUMNS = {'psnr': 'PSNR/dB', 'ssim': 'SSIM', 'colour_error': 'colour/dE', 'pattern_fidelity': 'pattern'}
KINDS = {
  'cross': "cross: another person's clothes",
  'structure': 'instead: the structure image itself',
  'recolored': "instead: that in the donor's mean colour",
  'self': 'self: rebuilt from the image alone',
  'same_person': "same person: another image's clothes",
}
DISTANCES = {
  'generated': 'cross images',
  'truth': 'their rendered truth',
  'real_halves': 'half of the real images to the other half',
}


@dataclasses.dataclass(frozen=True)
class Draw:
  """Indices i64[N] of images.

  structure: who gives the structure. other: who gives the clothes of a cross image. same: of a same-person image.
  """

  structure: np.ndarray
  other: np.ndarray
  same: np.ndarray


def draw_images(identity: np.ndarray, count: int) -> Draw:
  """Who goes with whom. Every image gives the structure as often, but for one; clothes are drawn.

  Args:
    identity: i64[P]; distractors and junk are left out; at least two people, each on at least two images.
    count: N.
  """
  rng = np.random.default_rng(SEED)
  people = np.flatnonzero(identity > DISTRACTOR)
  structure = np.concatenate([rng.permutation(people) for _ in range(-(-count // len(people)))])[:count]
  other = [rng.choice(people[identity[people] != identity[i]]) for i in structure]
  same = [rng.choice(people[(identity[people] == identity[i]) & (people != i)]) for i in structure]
  return Draw(structure, np.array(other), np.array(same))


def _measured(images: np.ndarray, truth: RenderedTruth) -> Values:
  """Each measure f64[N]; NaN where an image has none."""
  return {
    'psnr': image_quality.psnr(images, truth.images),
    'ssim': image_quality.ssim(images, truth.images),
    'colour_error': clothes_quality.colour_error(images, truth.images, truth.garments),
    'pattern_fidelity': clothes_quality.pattern_fidelity(
      images, truth.images, truth.plain, truth.light[:, :2], truth.body
    ),
  }


def _means(values: Values, chosen: np.ndarray) -> dict[str, float]:
  """Means of the measures over the chosen images that have them; no entry where none has."""
  row: dict[str, float] = {'count': int(chosen.sum())}
  for name, value in values.items():
    known = value[chosen & ~np.isnan(value)]
    if len(known):
      row[name] = float(known.mean())
    if name == 'pattern_fidelity':
      row['pattern_count'] = len(known)
  return row


def group_means(values: Values, patterned: np.ndarray, same_camera: np.ndarray) -> dict[str, dict[str, float]]:
  """The measures' means over all images and over groups of them.

  Args:
    values: f64[N] for each measure, NaN where an image has no value.
    patterned: bool[N], whether the true top has a pattern.
    same_camera: bool[N], whether one camera took both images that an image was made of.

  Returns:
    For 'all', 'plain', 'patterned' and, unless all are of one kind, 'same_camera' and 'other_camera': count (of
    images), the measures that any of them has, and pattern_count (of those with a pattern_fidelity). No empty groups.
  """
  groups = {'all': np.ones(len(patterned), bool), 'plain': ~patterned, 'patterned': patterned}
  if same_camera.any() and not same_camera.all():
    groups |= {'same_camera': same_camera, 'other_camera': ~same_camera}
  return {name: _means(values, chosen) for name, chosen in groups.items() if chosen.any()}


def _gaussian(features: np.ndarray) -> Gaussian:
  running = RunningGaussian(features.shape[1])
  running.add(features)
  return running.gaussian()


def feature_distances(real: np.ndarray, generated: np.ndarray, truth: np.ndarray) -> dict[str, float]:
  """Frechet distances in some feature space, with two yardsticks.

  Args:
    real: f[R, D], of real images.
    generated: f[N, D].
    truth: f[N, D], of the true images of the generated ones: the distance that a perfect generator would have.

  Returns:
    generated and truth, the distances of these from the real ones; real_halves, of one half of the real images, drawn
    at random, from the other (fewer images, so it comes out larger than that of as many); dimensions, num_real,
    num_generated.
  """
  halves = np.array_split(np.random.default_rng(SEED).permutation(len(real)), 2)
  first, second = (_gaussian(real[half]) for half in halves)
  whole, made, true = _gaussian(real), _gaussian(generated), _gaussian(truth)
  if not (first.full_rank_possible and second.full_rank_possible and made.full_rank_possible):
    logger.warning(
      f'{made.count} generated images and {second.count} in half of the real ones for {real.shape[1]} '
      'dimensions: covariances without full rank, and distances that come out too large'
    )
  return {
    'generated': frechet_distance(whole, made),
    'truth': frechet_distance(whole, true),
    'real_halves': frechet_distance(first, second),
    'dimensions': real.shape[1],
    'num_real': len(real),
    'num_generated': len(generated),
  }


def _ssim_within(identity: np.ndarray, count: int, read: Callable[[np.ndarray], np.ndarray]) -> float | None:
  """Mean SSIM of `count` pairs of different images of one person; None if nobody is on two.

  Args:
    identity: i64[P], who is on each image.
    count: of pairs.
    read: maps indices of images to their pixels.
  """
  try:
    first, second = draw_pairs_within(identity, count, SEED)
  except ValueError:
    return None
  return float(image_quality.ssim(read(first), read(second)).mean())


def _write_sheet(
  path: pathlib.Path,
  structures: np.ndarray,
  appearances: np.ndarray,
  generated: np.ndarray,
  truth: RenderedTruth,
  values: Values,
) -> None:
  """The first cross images in patterned tops, and in plain ones."""
  patterned, plain = np.flatnonzero(truth.patterned), np.flatnonzero(~truth.patterned)
  shown = np.concatenate([patterned[:SHOWN_PATTERNED], plain[:SHOWN_PLAIN]])
  sheet = sheets.truth_sheet(
    structures[shown],
    appearances[shown],
    generated[shown],
    truth.images[shown],
    values['psnr'][shown].tolist(),
    values['pattern_fidelity'][shown].tolist(),
  )
  sheets.save_png(path, sheet)


def measure_against_truth(
  config: Config,
  index: DatasetIndex,
  trained: Trained,
  embed_by_teacher: Callable[..., np.ndarray],
  real_features: np.ndarray,
  sheet_path: pathlib.Path,
) -> dict[str, dict[str, Any]]:
  """All that can be said of generated images of test people where the true image is known.

  Cross images, next to two trivial answers (`image_quality.trivial_answers`), and reconstructions: from an image
  alone, and in the clothes of another image of the same person. The truth is rendered for each.

  Args:
    config: of the run; the data are the built-in pedestrians.
    index: of the data.
    trained: networks.
    embed_by_teacher: maps images u8[N, H, W, 3], with `what` for progress lines, to features f[N, D].
    real_features: f[P, D], the same of all images of query and gallery, in this order.
    sheet_path: where some cross images are shown beside the truth.

  Returns:
    For each of `KINDS` the groups of `group_means`: psnr in dB, ssim, and of `clothes_quality` colour_error (dE) and
    pattern_fidelity. Under diversity the mean SSIM of two images of one person (the paper's measure): generated, two
    cross images in that person's clothes, and real, two images; either is None if nobody is on two. Under
    teacher_frechet_distance `feature_distances` in the embedding of the run's teacher: no FID, which is Inception's.
  """
  count, size = config.evaluation.num_ground_truth_pairs, config.data.image_size_hw
  paths = index.query.paths + index.gallery.paths
  identity, camera = (
    np.concatenate([getattr(split, name) for split in (index.query, index.gallery)]) for name in ('identity', 'camera')
  )

  def read(chosen: np.ndarray) -> np.ndarray:
    return ImageFiles([paths[i] for i in chosen], size)[:]

  draw = draw_images(identity, count)
  donors = {'cross': draw.other, 'self': draw.structure, 'same_person': draw.same}
  structures = read(draw.structure)
  appearances = {kind: read(donor) for kind, donor in donors.items()}
  images = image_quality.trivial_answers(structures, appearances['cross'])
  for kind, worn in appearances.items():
    swaps = trained.swap_images(structures, worn, what=f'{kind} images')
    images[kind] = np.concatenate(list(swaps))
  logger.info(f'rendering the truth of {count} cross images and of as many reconstructions')
  truth = {'cross': render_truth(config, index.root, paths, draw.structure, draw.other)}
  # The same clothes in the same structure, whichever image shows them.
  truth['self'] = truth['same_person'] = render_truth(config, index.root, paths, draw.structure, draw.structure)
  results: dict[str, dict[str, Any]] = {}
  for kind in KINDS:
    like = kind if kind in donors else 'cross'
    values = _measured(images[kind], truth[like])
    same_camera = camera[draw.structure] == camera[donors[like]]
    results[kind] = group_means(values, truth[like].patterned, same_camera)
    if kind == 'cross':
      _write_sheet(sheet_path, structures, appearances['cross'], images['cross'], truth['cross'], values)

  results['diversity'] = {
    'generated': _ssim_within(identity[draw.other], count, lambda chosen: images['cross'][chosen]),
    'real': _ssim_within(identity, count, read),
  }
  features = [
    embed_by_teacher(shown, what=f'teacher: embedding {name}')
    for name, shown in (('cross images', images['cross']), ('their truth', truth['cross'].images))
  ]
  results['teacher_frechet_distance'] = feature_distances(real_features[identity > DISTRACTOR], *features)
  return results


def image_table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """What `measure_against_truth` found, as a table for a person."""
  title = 'against the rendered truth'
  lines = [f'{title:<44}{"images":>9}' + ''.join(f'{label:>11}' for label in COLUMNS.values())]
  for kind, label in KINDS.items():
    for group, row in results[kind].items():
      shown = label if group == 'all' else f'  {group.replace("_", " ")}'
      digits = {'psnr': 2, 'ssim': 3, 'colour_error': 2, 'pattern_fidelity': 3}
      cells = [f'{row[name]:>11.{digits[name]}f}' if name in row else f'{"-":>11}' for name in COLUMNS]
      lines.append(f'  {shown:<42}{row["count"]:>9}' + ''.join(cells))
  lines.append('SSIM of two images of one person (diversity)')
  for name, label in (('generated', "cross images in the person's clothes"), ('real', 'real images')):
    value = results['diversity'][name]
    lines.append(f'  {label:<42}' + (f'{"-":>9}' if value is None else f'{value:>9.3f}'))
  distance = results['teacher_frechet_distance']
  sizes = f'{distance["num_generated"]} images, {distance["num_real"]} real images, {distance["dimensions"]} dimensions'
  lines.append(f'teacher feature distance from real images (Frechet; not Inception FID): {sizes}')
  lines += [f'  {label:<42}{distance[name]:>9.4f}' for name, label in DISTANCES.items()]
  return '\n'.join(lines)
