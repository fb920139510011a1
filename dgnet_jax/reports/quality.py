"""Generated images measured against real ones: Frechet distances, SSIM and PSNR, as numbers and as text."""

from collections.abc import Mapping
import dataclasses
from typing import TYPE_CHECKING, Any

from dgnet_jax.data.image_sets import ImageSet, match_by_name
from dgnet_jax.errors import UserError
from dgnet_jax.reports.similarity import common_size, compare_same_names, has_identity_pairs, ssim_within_identities

if TYPE_CHECKING:
  from dgnet_jax.reports.feature_spaces import FeatureSpace  # imports JAX

Results = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class SsimOptions:
  """What is measured with SSIM.

  Attributes:
    pairs: number of pairs of images of one identity to draw from each set; 0 draws none.
    seed: selects the pairs.
    same_names: also compare the images that have the same name in both sets.
    size_hw: height and width at which images are compared; None is the size of the generated images.
  """

  pairs: int
  seed: int = 0
  same_names: bool = False
  size_hw: tuple[int, int] | None = None


def measure(
  real: ImageSet, generated: ImageSet, spaces: Mapping[str, 'FeatureSpace'], ssim_options: SsimOptions
) -> Results:
  """Measures generated images against real ones. Mistakes are reported before the slow part.

  Args:
    real: real images.
    generated: generated images.
    spaces: feature spaces for Frechet distances, by name; may be empty.
    ssim_options: what to measure with SSIM.

  Returns:
    `real` and `generated` (a description of each set), `frechet` (see `feature_spaces.compare`) and `ssim`, the last
    two only if measured. All values can be written as JSON.

  Raises:
    UserError: there is nothing to measure, a set is too small, or sizes or names do not fit.
  """
  sets = {'real': real, 'generated': generated}
  for images in sets.values():
    if spaces and len(images) < 2:
      raise UserError(f'{images.title}: one image; a Frechet distance needs two')
  paired = {name: images for name, images in sets.items() if ssim_options.pairs and has_identity_pairs(images.identity)}
  if not (spaces or paired or ssim_options.same_names):
    raise UserError(
      'nothing to measure: no identity is known to have two images (set --identity-pattern); or set --inception=FILE, '
      '--workdir=RUN or --same-names'
    )
  if ssim_options.same_names:
    match_by_name(real, generated)
  results: Results = {name: _description(images) for name, images in sets.items()}
  if paired or ssim_options.same_names:
    size_hw = common_size([real, generated], ssim_options.size_hw)
    results['ssim'] = {'size_hw': list(size_hw), 'resizing': 'bicubic, antialiased'}
    if paired:
      results['ssim'] |= {
        'seed': ssim_options.seed,
        'within_identities': {
          name: ssim_within_identities(images, pairs=ssim_options.pairs, seed=ssim_options.seed, size_hw=size_hw)
          for name, images in paired.items()
        },
      }
    if ssim_options.same_names:
      results['ssim']['same_names'] = compare_same_names(real, generated, size_hw=size_hw)
  if spaces:
    from dgnet_jax.reports.feature_spaces import compare

    results['frechet'] = compare(spaces, real, generated)
  return results


def _description(images: ImageSet) -> Results:
  identities = {'num_identities': images.num_identities} if images.identity is not None else {}
  return {'title': images.title, 'num_images': len(images), 'size': images.size_text} | identities


def quality_text(results: Results) -> str:
  """Formats the results of `measure` as lines of text."""
  lines = []
  for name in ('real', 'generated'):
    row = results[name]
    identities = f' of {row["num_identities"]} identities' if 'num_identities' in row else ''
    lines.append(f'{name + ":":<11}{row["title"]}: {row["num_images"]} images{identities}, {row["size"]} pixels')
  for row in results.get('frechet', {}).values():
    lines.append(f'{row["title"]}: {row["distance"]:.6g}')
    counts = f'{row["num_real"]} real and {row["num_generated"]} generated images'
    lines.append(f'  {row["dimensions"]} dimensions, {counts}')
    lines.append(f'  images {row["resizing"]}; weights of {row["source"]}')
  return '\n'.join([*lines, *_ssim_lines(results.get('ssim', {}))])


def _ssim_lines(results: Results) -> list[str]:
  lines = []
  if 'within_identities' in results:
    lines.append('mean SSIM of two images of one identity (lower is more diverse):')
  for name, row in results.get('within_identities', {}).items():
    counts = f'{row["num_pairs"]} pairs of {row["num_identities"]} identities, seed {results["seed"]}'
    lines.append(f'  {name:<11}{row["ssim"]:.4f} +- {row["standard_error"]:.4f}  {counts}')
  if 'same_names' in results:
    row = results['same_names']
    psnr = 'all equal' if row['psnr'] is None else f'{row["psnr"]:.2f} dB'
    equal = f' (without {row["num_equal"]} equal images)' if row['num_equal'] and row['psnr'] is not None else ''
    lines.append(f'{row["num_images"]} images of the same name: SSIM {row["ssim"]:.4f}, PSNR {psnr}{equal}')
    lines.append(f'  without a partner: {row["num_real_alone"]} real, {row["num_generated_alone"]} generated')
  if results:
    height, width = results['size_hw']
    lines.append(f'  SSIM with a Gaussian window of sigma 1.5, in colour; images resized to {height}x{width}, bicubic')
  return lines
