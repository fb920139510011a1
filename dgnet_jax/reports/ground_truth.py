"""Generated images of the built-in pedestrians' test identities, compared with the rendered ground truth.

The identities are new to the networks; the six cameras are those of the training images.
"""

from collections.abc import Callable, Mapping
import dataclasses
import logging
import pathlib
from typing import Any

import numpy as np
import numpy.typing as npt

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DISTRACTOR, DatasetIndex
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.synthetic.ground_truth import GroundTruthRenderer, RenderedGroundTruth
from dgnet_jax.evaluation.clothes_quality import Mask, colour_error, pattern_fidelity
from dgnet_jax.evaluation.embeddings import Floats
from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance
from dgnet_jax.evaluation.image_quality import Doubles, Pixels, psnr, ssim, trivial_baselines
from dgnet_jax.inference.predictor import Predictor, TeacherPredictor
from dgnet_jax.plots.sheets import ground_truth_sheet
from dgnet_jax.reports.similarity import Indices, draw_identity_pairs, has_identity_pairs
from dgnet_jax.utils.writers import save_image

logger = logging.getLogger(__name__)

Measures = Mapping[str, Doubles]  # name -> f64[N], NaN where an image has no value

SEED = 0  # every evaluation draws the same images, so that runs can be compared
PATTERNED_COLUMNS, PLAIN_COLUMNS = 5, 3  # of the ground truth sheet
NUM_SEVERAL = 4  # images of an appearance donor, or fewer if an identity has fewer
DIGITS = {'psnr': 2, 'ssim': 3, 'colour_error': 2, 'pattern_fidelity': 3}
HEADINGS = {'psnr': 'PSNR/dB', 'ssim': 'SSIM', 'colour_error': 'colour/dE', 'pattern_fidelity': 'pattern'}
KINDS = {
  'cross': "cross: another person's clothes",
  'several': f'the same from {NUM_SEVERAL} images of that person',
  'structure': 'baseline: structure image',
  'recolored': "baseline: structure, donor's mean colour",
  'self': 'self: reconstruction from one image',
  'same_person': "same person: another image's clothes",
}
DISTANCES = {
  'generated': 'cross images',
  'ground_truth': 'their ground truth',
  'real_halves': 'real images: one half from the other',
}


@dataclasses.dataclass(frozen=True, eq=False)
class Donors:
  """Indices i64[N] of the images that each generated image is made from.

  structure: the structure donor. other: the appearance donor of a cross image, of another identity. several: i64[N, S],
  `other` and more images of that identity. same: the appearance donor of a same-person image, another image of the
  structure donor's identity.
  """

  structure: Indices
  other: Indices
  several: Indices
  same: Indices


def draw_donors(identity: npt.NDArray[np.integer], count: int) -> Donors:
  """Draws donors; the numbers of times that images are structure donors differ by at most one.

  Args:
    identity: i[P]; distractors and junk are left out. At least two identities, each with at least two images.
    count: N.
  """
  rng = np.random.default_rng(SEED)
  images = np.flatnonzero(identity > DISTRACTOR)
  structure = np.concatenate([rng.permutation(images) for _ in range(-(-count // len(images)))])[:count]
  other = [rng.choice(images[identity[images] != identity[i]]) for i in structure]
  same = [rng.choice(images[(identity[images] == identity[i]) & (images != i)]) for i in structure]
  rng = np.random.default_rng(SEED + 1)  # `same` is what it was before there was `several`
  more = [rng.permutation(images[(identity[images] == identity[i]) & (images != i)]) for i in other]
  several = [[i, *others[: NUM_SEVERAL - 1]] for i, others in zip(other, more, strict=True)]
  fewest = min(map(len, several))
  return Donors(structure, np.array(other), np.array([row[:fewest] for row in several]), np.array(same))


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherJudge:
  """A teacher, and its features f[P, D] of all query and gallery images, in this order."""

  teacher: TeacherPredictor
  real_features: Floats


def measure_against_ground_truth(
  config: Config,
  index: DatasetIndex,
  predictor: Predictor,
  judge: TeacherJudge | None,
  sheet_path: pathlib.Path,
) -> dict[str, dict[str, Any]]:
  """Measures generated images of test identities, and two trivial baselines, against the rendered ground truth.

  The images are cross images, from one and from several images of the appearance donor, and reconstructions: from one
  image alone, and with the clothes of another image of the same person.

  Args:
    config: the run's config; the data are the built-in pedestrians.
    index: index of the data set.
    predictor: generates the images.
    judge: for the Frechet distance, which is left out without it.
    sheet_path: the PNG file to write, with some cross images beside the ground truth.

  Returns:
    For each of `KINDS` the groups of `group_means`, with psnr in dB, ssim and, from `evaluation.clothes_quality`,
    colour_error (dE) and pattern_fidelity. diversity: the mean SSIM of two images of one identity (the paper's
    measure) for cross images in that identity's clothes (generated) and for real images (real); None if no identity
    has two. teacher_frechet_distance, with a judge: `feature_distances` in the teacher's embedding, which is not
    Inception's FID.
  """
  images = _TestImages(index, config.data.image_size_hw)
  count = config.evaluation.num_ground_truth_pairs
  donors = draw_donors(images.identity, count)
  appearance = dict.fromkeys(('cross', 'several', 'structure', 'recolored'), donors.other)
  appearance |= {'self': donors.structure, 'same_person': donors.same}
  structures, appearances = images.read(donors.structure), images.read(donors.other)
  generated = trivial_baselines(structures, appearances)
  for kind in ('cross', 'self', 'same_person'):
    donor_images = images.read(appearance[kind])
    generated[kind] = predictor.swap(structure_from=structures, appearance_from=donor_images, label=f'{kind} images')
  several = images.read(donors.several.ravel()).reshape(*donors.several.shape, *structures.shape[1:])
  generated['several'] = predictor.swap_several(
    structure_from=structures, appearance_from=several, label='cross images from several'
  )

  logger.info(f'rendering the ground truth of {count} cross images and {count} reconstructions')
  renderer = GroundTruthRenderer(config.data, index.root, images.paths)
  cross = renderer.with_garments(structure_from=donors.structure, appearance_from=donors.other)
  # One image of a person gives the same clothes as another, so both kinds of reconstruction have the same ground truth.
  reconstruction = renderer.with_garments(structure_from=donors.structure, appearance_from=donors.structure)
  results: dict[str, dict[str, Any]] = {}
  for kind in KINDS:
    ground_truth = reconstruction if kind in ('self', 'same_person') else cross
    measures = _measure(generated[kind], ground_truth)
    same_camera = images.camera[donors.structure] == images.camera[appearance[kind]]
    results[kind] = group_means(measures, ground_truth.patterned, same_camera)
    if kind == 'cross':
      rows = {'structure': structures, 'appearance': appearances, 'generated': generated[kind]}
      save_image(sheet_path, _sheet(rows, ground_truth, measures))

  results['diversity'] = {
    'generated': _ssim_within(images.identity[donors.other], count, lambda index: generated['cross'][index]),
    'real': _ssim_within(images.identity, count, images.read),
  }
  if judge is not None:
    results['teacher_frechet_distance'] = feature_distances(
      real=judge.real_features[images.identity > DISTRACTOR],
      generated=judge.teacher.embed(generated['cross'], label='teacher: embedding cross images'),
      ground_truth=judge.teacher.embed(cross.images, label='teacher: embedding their ground truth'),
    )
  return results


class _TestImages:
  """The images of query and gallery, in this order, with their labels."""

  def __init__(self, index: DatasetIndex, size_hw: tuple[int, int]) -> None:
    self._size_hw = size_hw
    self.paths = index.query.paths + index.gallery.paths
    self.identity = np.concatenate([index.query.identity, index.gallery.identity])
    self.camera = np.concatenate([index.query.camera, index.gallery.camera])

  def read(self, index: Indices) -> Pixels:
    """Returns the images at `index`: u8[N, H, W, 3]."""
    return ImageFiles([self.paths[i] for i in index], self._size_hw)[:]


def _measure(images: Pixels, ground_truth: RenderedGroundTruth) -> Measures:
  true = ground_truth.images
  return {
    'psnr': psnr(images, true),
    'ssim': ssim(images, true),
    'colour_error': colour_error(images, true, ground_truth.garments),
    'pattern_fidelity': pattern_fidelity(
      images, true, ground_truth.plain, ground_truth.light[:, :2], ground_truth.body
    ),
  }


def _sheet(rows: Mapping[str, Pixels], ground_truth: RenderedGroundTruth, measures: Measures) -> Pixels:
  """Returns the first cross images with patterned tops, and with plain ones, beside their donors."""
  patterned, plain = np.flatnonzero(ground_truth.patterned), np.flatnonzero(~ground_truth.patterned)
  chosen = np.concatenate([patterned[:PATTERNED_COLUMNS], plain[:PLAIN_COLUMNS]])
  images = {name: row[chosen] for name, row in rows.items()} | {'ground truth': ground_truth.images[chosen]}
  values = [measures[name][chosen].tolist() for name in ('psnr', 'pattern_fidelity')]
  return ground_truth_sheet(images, *values)


def group_means(measures: Measures, patterned: Mask, same_camera: Mask) -> dict[str, dict[str, float]]:
  """Averages measures over all images and over groups of them.

  Args:
    measures: name -> f64[N], NaN where an image has no value.
    patterned: bool[N], True if the true top has a pattern.
    same_camera: bool[N], True if both donors were seen by one camera.

  Returns:
    For the groups 'all', 'plain', 'patterned' and, if there are images of both kinds, 'same_camera' and
    'other_camera': count, the number of images; the means of the measures that any of them has; and pattern_count, the
    number of images with a pattern_fidelity. Empty groups are left out.
  """
  groups = {'all': np.ones(len(patterned), bool), 'plain': ~patterned, 'patterned': patterned}
  if same_camera.any() and not same_camera.all():
    groups |= {'same_camera': same_camera, 'other_camera': ~same_camera}
  return {name: _means(measures, mask) for name, mask in groups.items() if mask.any()}


def _means(measures: Measures, mask: Mask) -> dict[str, float]:
  row: dict[str, float] = {'count': int(mask.sum())}
  for name, values in measures.items():
    known = values[mask & ~np.isnan(values)]
    if len(known):
      row[name] = float(known.mean())
    if name == 'pattern_fidelity':
      row['pattern_count'] = len(known)
  return row


def feature_distances(*, real: Floats, generated: Floats, ground_truth: Floats) -> dict[str, float]:
  """Computes Frechet distances in a feature space, with two references.

  Args:
    real: f[R, D], of real images.
    generated: f[N, D].
    ground_truth: f[N, D], of the ground truth of the generated images.

  Returns:
    generated: the distance of the generated images from the real ones. ground_truth: that of a perfect generator.
    real_halves: the distance of a random half of the real images from the other half; it is overestimated, as the
    halves are smaller sets. Also dimensions, num_real and num_generated.
  """
  halves = np.array_split(np.random.default_rng(SEED).permutation(len(real)), 2)
  first_half, second_half = (_gaussian(real[half]) for half in halves)
  all_real, all_generated, all_true = _gaussian(real), _gaussian(generated), _gaussian(ground_truth)
  if not all(gaussian.full_rank_possible for gaussian in (first_half, second_half, all_generated)):
    logger.warning(
      f'{all_generated.count} generated images and {second_half.count} in half of the real ones are too few for '
      f'{real.shape[1]} dimensions: their covariances are singular and the distances are overestimated'
    )
  return {
    'generated': frechet_distance(all_real, all_generated),
    'ground_truth': frechet_distance(all_real, all_true),
    'real_halves': frechet_distance(first_half, second_half),
    'dimensions': real.shape[1],
    'num_real': len(real),
    'num_generated': len(generated),
  }


def _gaussian(features: Floats) -> Gaussian:
  running = RunningGaussian(features.shape[1])
  running.add(features)
  return running.gaussian()


def _ssim_within(identity: npt.NDArray[np.integer], count: int, read: Callable[[Indices], Pixels]) -> float | None:
  """Computes the mean SSIM of `count` pairs of images of one identity; None if no identity has two images.

  Args:
    identity: i[P], of each image.
    count: number of pairs.
    read: maps indices of images to their pixels.
  """
  if not has_identity_pairs(identity):
    return None
  first, second = draw_identity_pairs(identity, count, SEED)
  return float(ssim(read(first), read(second)).mean())


def image_table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """Formats the results of `measure_against_ground_truth` as text."""
  title = 'compared with the ground truth'
  lines = [f'{title:<44}{"images":>9}' + ''.join(f'{heading:>11}' for heading in HEADINGS.values())]
  for kind, label in KINDS.items():
    for group, row in results[kind].items():
      name = label if group == 'all' else f'  {group.replace("_", " ")}'
      cells = [f'{row[name]:>11.{DIGITS[name]}f}' if name in row else f'{"-":>11}' for name in HEADINGS]
      lines.append(f'  {name:<42}{row["count"]:>9}' + ''.join(cells))
  lines.append('diversity: SSIM of two images of one identity')
  for key, label in (('generated', 'cross images in its clothes'), ('real', 'real images')):
    value = results['diversity'][key]
    lines.append(f'  {label:<42}' + (f'{"-":>9}' if value is None else f'{value:>9.3f}'))
  distance = results.get('teacher_frechet_distance')
  if distance is None:
    return '\n'.join(lines)
  sizes = f'{distance["num_generated"]} images, {distance["num_real"]} real images, {distance["dimensions"]} dimensions'
  lines.append(f"Frechet distance from real images in the teacher's embedding (not Inception FID): {sizes}")
  lines += [f'  {label:<42}{distance[key]:>9.4f}' for key, label in DISTANCES.items()]
  return '\n'.join(lines)
