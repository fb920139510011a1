"""Generated pictures of built-in pedestrians never trained on, against the rendered truth.

The people are new; the six cameras are those of the training photos.
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.data.index import DISTRACTOR, DatasetIndex
from dgnet_jax.data.photos import PhotoFiles
from dgnet_jax.evaluation import clothes_quality, image_quality, sheets
from dgnet_jax.evaluation.frechet import Gaussian, RunningGaussian, frechet_distance
from dgnet_jax.rendered_truth import RenderedTruth, render_truth
from dgnet_jax.similarity_report import draw_pairs_within
from dgnet_jax.trained import Trained

Log = Callable[[str], None]
Values = Mapping[str, np.ndarray]

SEED = 0  # the same pictures in every evaluation, so that runs compare
SHOWN_PATTERNED, SHOWN_PLAIN = 5, 3  # columns of the truth sheet
COLUMNS = {'psnr': 'PSNR/dB', 'ssim': 'SSIM', 'colour_error': 'colour/dE', 'pattern_fidelity': 'pattern'}
KINDS = {
  'cross': "cross: another person's clothes",
  'structure': 'instead: the structure picture itself',
  'recolored': "instead: that in the donor's mean colour",
  'self': 'self: rebuilt from the photo alone',
  'same_person': "same person: another photo's clothes",
}
DISTANCES = {
  'generated': 'cross pictures',
  'truth': 'their rendered truth',
  'real_halves': 'half of the real photos to the other half',
}


@dataclasses.dataclass(frozen=True)
class Draw:
  """Indices i64[N] of photos.

  structure: who gives the structure. other: who gives the clothes of a cross picture. same: of a same-person picture.
  """

  structure: np.ndarray
  other: np.ndarray
  same: np.ndarray


def draw_photos(identity: np.ndarray, count: int) -> Draw:
  """Who goes with whom. Every photo gives the structure as often, but for one; clothes are drawn.

  Args:
    identity: i64[P]; distractors and junk are left out; at least two people, each on at least two photos.
    count: N.
  """
  rng = np.random.default_rng(SEED)
  people = np.flatnonzero(identity > DISTRACTOR)
  structure = np.concatenate([rng.permutation(people) for _ in range(-(-count // len(people)))])[:count]
  other = [rng.choice(people[identity[people] != identity[i]]) for i in structure]
  same = [rng.choice(people[(identity[people] == identity[i]) & (people != i)]) for i in structure]
  return Draw(structure, np.array(other), np.array(same))


def _measured(pictures: np.ndarray, truth: RenderedTruth) -> Values:
  """Each measure f64[N]; NaN where a picture has none."""
  return {
    'psnr': image_quality.psnr(pictures, truth.pictures),
    'ssim': image_quality.ssim(pictures, truth.pictures),
    'colour_error': clothes_quality.colour_error(pictures, truth.pictures, truth.garments),
    'pattern_fidelity': clothes_quality.pattern_fidelity(
      pictures, truth.pictures, truth.plain, truth.light[:, :2], truth.body
    ),
  }


def _means(values: Values, chosen: np.ndarray) -> dict[str, float]:
  """Means of the measures over the chosen pictures that have them; no entry where none has."""
  row: dict[str, float] = {'count': int(chosen.sum())}
  for name, value in values.items():
    known = value[chosen & ~np.isnan(value)]
    if len(known):
      row[name] = float(known.mean())
    if name == 'pattern_fidelity':
      row['pattern_count'] = len(known)
  return row


def group_means(values: Values, patterned: np.ndarray, same_camera: np.ndarray) -> dict[str, dict[str, float]]:
  """The measures' means over all pictures and over groups of them.

  Args:
    values: f64[N] for each measure, NaN where a picture has no value.
    patterned: bool[N], whether the true top has a pattern.
    same_camera: bool[N], whether one camera took both photos that a picture was made of.

  Returns:
    For 'all', 'plain', 'patterned' and, unless all are of one kind, 'same_camera' and 'other_camera': count (of
    pictures), the measures that any of them has, and pattern_count (of those with a pattern_fidelity). No empty groups.
  """
  groups = {'all': np.ones(len(patterned), bool), 'plain': ~patterned, 'patterned': patterned}
  if same_camera.any() and not same_camera.all():
    groups |= {'same_camera': same_camera, 'other_camera': ~same_camera}
  return {name: _means(values, chosen) for name, chosen in groups.items() if chosen.any()}


def _gaussian(features: np.ndarray) -> Gaussian:
  running = RunningGaussian(features.shape[1])
  running.add(features)
  return running.gaussian()


def feature_distances(real: np.ndarray, generated: np.ndarray, truth: np.ndarray, *, log: Log) -> dict[str, float]:
  """Frechet distances in some feature space, with two yardsticks.

  Args:
    real: f[R, D], of real photos.
    generated: f[N, D].
    truth: f[N, D], of the true pictures of the generated ones: the distance that a perfect generator would have.
    log: takes a warning.

  Returns:
    generated and truth, the distances of these from the real ones; real_halves, of one half of the real photos, drawn
    at random, from the other (fewer pictures, so it comes out larger than that of as many); dimensions, num_real,
    num_generated.
  """
  halves = np.array_split(np.random.default_rng(SEED).permutation(len(real)), 2)
  first, second = (_gaussian(real[half]) for half in halves)
  whole, made, true = _gaussian(real), _gaussian(generated), _gaussian(truth)
  if not (first.full_rank_possible and second.full_rank_possible and made.full_rank_possible):
    log(
      f'warning: {made.count} generated pictures and {second.count} in half of the real ones for {real.shape[1]} '
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
  """Mean SSIM of `count` pairs of different pictures of one person; None if nobody is on two.

  Args:
    identity: i64[P], who is on each picture.
    count: of pairs.
    read: maps indices of pictures to their pixels.
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
  """The first cross pictures in patterned tops, and in plain ones."""
  patterned, plain = np.flatnonzero(truth.patterned), np.flatnonzero(~truth.patterned)
  shown = np.concatenate([patterned[:SHOWN_PATTERNED], plain[:SHOWN_PLAIN]])
  sheet = sheets.truth_sheet(
    structures[shown],
    appearances[shown],
    generated[shown],
    truth.pictures[shown],
    values['psnr'][shown].tolist(),
    values['pattern_fidelity'][shown].tolist(),
  )
  sheets.save_png(path, sheet)


def measure_against_truth(
  config: Any,
  index: DatasetIndex,
  trained: Trained,
  embed_by_teacher: Callable[..., np.ndarray],
  real_features: np.ndarray,
  sheet_path: pathlib.Path,
  *,
  log: Log,
) -> dict[str, dict[str, Any]]:
  """All that can be said of generated pictures of test people where the true picture is known.

  Cross pictures, next to two trivial answers (`image_quality.trivial_answers`), and reconstructions: from a photo
  alone, and in the clothes of another photo of the same person. The truth is rendered for each.

  Args:
    config: of the run; the data are the built-in pedestrians.
    index: of the data.
    trained: networks.
    embed_by_teacher: maps pictures u8[N, H, W, 3], with `what` for progress lines, to features f[N, D].
    real_features: f[P, D], the same of all photos of query and gallery, in this order.
    sheet_path: where some cross pictures are shown beside the truth.
    log: takes progress lines.

  Returns:
    For each of `KINDS` the groups of `group_means`: psnr in dB, ssim, and of `clothes_quality` colour_error (dE) and
    pattern_fidelity. Under diversity the mean SSIM of two pictures of one person (the paper's measure): generated, two
    cross pictures in that person's clothes, and real, two photos; either is None if nobody is on two. Under
    teacher_frechet_distance `feature_distances` in the embedding of the run's teacher: no FID, which is Inception's.
  """
  count, size = config.evaluation.num_truth_pairs, tuple(config.data.image_size_hw)
  paths = index.query.paths + index.gallery.paths
  identity, camera = (
    np.concatenate([getattr(split, name) for split in (index.query, index.gallery)]) for name in ('identity', 'camera')
  )

  def read(chosen: np.ndarray) -> np.ndarray:
    return PhotoFiles([paths[i] for i in chosen], size)[:]

  draw = draw_photos(identity, count)
  donors = {'cross': draw.other, 'self': draw.structure, 'same_person': draw.same}
  structures = read(draw.structure)
  appearances = {kind: read(donor) for kind, donor in donors.items()}
  pictures = image_quality.trivial_answers(structures, appearances['cross'])
  for kind, worn in appearances.items():
    swaps = trained.swap_pictures(structures, worn, log=log, what=f'{kind} pictures')
    pictures[kind] = np.concatenate(list(swaps))
  log(f'rendering the truth of {count} cross pictures and of as many reconstructions')
  truth = {'cross': render_truth(config, index.root, paths, draw.structure, draw.other)}
  # The same clothes in the same structure, whichever photo shows them.
  truth['self'] = truth['same_person'] = render_truth(config, index.root, paths, draw.structure, draw.structure)
  results: dict[str, dict[str, Any]] = {}
  for kind in KINDS:
    like = kind if kind in donors else 'cross'
    values = _measured(pictures[kind], truth[like])
    same_camera = camera[draw.structure] == camera[donors[like]]
    results[kind] = group_means(values, truth[like].patterned, same_camera)
    if kind == 'cross':
      _write_sheet(sheet_path, structures, appearances['cross'], pictures['cross'], truth['cross'], values)

  results['diversity'] = {
    'generated': _ssim_within(identity[draw.other], count, lambda chosen: pictures['cross'][chosen]),
    'real': _ssim_within(identity, count, read),
  }
  features = [
    embed_by_teacher(shown, what=f'teacher: embedding {name}')
    for name, shown in (('cross pictures', pictures['cross']), ('their truth', truth['cross'].pictures))
  ]
  results['teacher_frechet_distance'] = feature_distances(real_features[identity > DISTRACTOR], *features, log=log)
  return results


def picture_table(results: Mapping[str, Mapping[str, Any]]) -> str:
  """What `measure_against_truth` found, as a table for a person."""
  title = 'against the rendered truth'
  lines = [f'{title:<44}{"pictures":>9}' + ''.join(f'{label:>11}' for label in COLUMNS.values())]
  for kind, label in KINDS.items():
    for group, row in results[kind].items():
      shown = label if group == 'all' else f'  {group.replace("_", " ")}'
      digits = {'psnr': 2, 'ssim': 3, 'colour_error': 2, 'pattern_fidelity': 3}
      cells = [f'{row[name]:>11.{digits[name]}f}' if name in row else f'{"-":>11}' for name in COLUMNS]
      lines.append(f'  {shown:<42}{row["count"]:>9}' + ''.join(cells))
  lines.append('SSIM of two pictures of one person (diversity)')
  for name, label in (('generated', "cross pictures in the person's clothes"), ('real', 'real photos')):
    value = results['diversity'][name]
    lines.append(f'  {label:<42}' + (f'{"-":>9}' if value is None else f'{value:>9.3f}'))
  distance = results['teacher_frechet_distance']
  sizes = (
    f'{distance["num_generated"]} pictures, {distance["num_real"]} real photos, {distance["dimensions"]} dimensions'
  )
  lines.append(f'teacher feature distance from real photos (Frechet; not Inception FID): {sizes}')
  lines += [f'  {label:<42}{distance[name]:>9.4f}' for name, label in DISTANCES.items()]
  return '\n'.join(lines)
