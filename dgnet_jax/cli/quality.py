"""How good generated images are, beside real ones: Frechet distances (FID), SSIM within people, SSIM and PSNR.

Nothing is downloaded, and nothing is written but FILE.json.
"""

import argparse
from collections.abc import Sequence
import json
import os
import sys
from typing import Any

from dgnet_jax.cli.data_fields import data_fields
from dgnet_jax.config import loading
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import whole_file
from dgnet_jax.utils.console import exit_on_user_error

EMBEDDING_CHOICES = ('teacher', 'dgnet', 'both')
EXAMPLE = """
examples:
  python -m tools.quality Market-1501-v15.09.15:train runs/market/generated/step_0100000 \\
      --inception=pt_inception-2015-12-05-6726825d.pth --workdir=runs/market
  python -m tools.quality truth made --same-names --out=quality.json
  python -m tools.quality images made --identity-pattern='^(?P<identity>[0-9]+)_' --size=256x128

REAL and GENERATED are a folder of images, a folder of --mode=generate with its manifest, or parts of a data set:
ROOT:SPLIT, ROOT:query+gallery, or LAYOUT=ROOT:SPLIT where the layout is not to be recognised. Fields of config.data can
be set: --config.data.FIELD=VALUE.
"""


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m tools.quality',
    description=__doc__,
    epilog=EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  parser.add_argument('real', metavar='REAL')
  parser.add_argument('generated', metavar='GENERATED')
  parser.add_argument(
    '--inception', metavar='FILE', help='FID with these weights: pt_inception-2015-12-05-6726825d.pth of pytorch-fid'
  )
  parser.add_argument('--workdir', metavar='RUN', help='Frechet distance in the embedding of a run (no Inception FID)')
  parser.add_argument(
    '--embedding',
    choices=EMBEDDING_CHOICES,
    default='teacher',
    help='of the run: the teacher has seen no generated image, dgnet judges its own work (default: teacher)',
  )
  parser.add_argument(
    '--pairs',
    type=_counted,
    default=2000,
    help='mean SSIM of so many pairs of images of one person, where people are known (default: 2000; 0: none)',
  )
  parser.add_argument('--seed', type=_counted, default=0, help='which pairs (default: 0)')
  parser.add_argument(
    '--identity-pattern',
    default='',
    metavar='PATTERN',
    help='tells the people of plain folders: a regular expression with a group (?P<identity>...) for the path in it',
  )
  parser.add_argument('--same-names', action='store_true', help='SSIM and PSNR of images of one name in both sets')
  parser.add_argument(
    '--size', type=_size, metavar='HxW', help='at which SSIM and PSNR are taken (default: that of GENERATED)'
  )
  parser.add_argument('--batch-size', type=_positive, default=32, help='images at a time (default: 32)')
  parser.add_argument('--threads', type=_positive, default=os.cpu_count() or 1, help='files at a time')
  parser.add_argument('--out', metavar='FILE.json', help='to write the results to')
  return parser


def _counted(text: str, least: int = 0) -> int:
  if not text.isdecimal() or int(text) < least:
    raise argparse.ArgumentTypeError(f'{text!r} is no whole number of at least {least}')
  return int(text)


def _positive(text: str) -> int:
  return _counted(text, 1)


def _size(text: str) -> tuple[int, int]:
  height, x, width = text.partition('x')
  if not (x and height.isdecimal() and width.isdecimal()):
    raise argparse.ArgumentTypeError(f'{text!r} is no HEIGHTxWIDTH, as 256x128')
  return int(height), int(width)


def _check(options: argparse.Namespace) -> None:
  """Raises UserError for what is wrong with the command line."""
  if not (options.inception or options.workdir or options.pairs or options.same_names):
    raise UserError('nothing to measure: --inception=FILE, --workdir=RUN, --same-names, or more --pairs than 0')
  if options.out:
    from dgnet_jax.utils.writers import check_output  # late: help needs no numpy

    check_output(options.out, ('.json',))


def described(images: Any) -> dict[str, Any]:
  """What is told of a set."""
  people = {'num_people': images.num_people} if images.identity is not None else {}
  return {'title': images.title, 'num_images': len(images), 'size': images.size_text} | people


def measure(options: argparse.Namespace, fields: dict[str, object]) -> dict[str, Any]:
  """All results; JSON can hold them. What can be wrong is told before the long work."""
  from dgnet_jax.data.image_sets import partners, read_image_set  # late: help needs no numpy
  from dgnet_jax.reports.similarity import common_size, has_pairs_within

  spaces = _spaces(options)
  sets = {
    name: read_image_set(text, identity_pattern=options.identity_pattern, fields=fields, threads=options.threads)
    for name, text in (('real', options.real), ('generated', options.generated))
  }
  for images in sets.values():
    if spaces and len(images) < 2:
      raise UserError(f'{images.title}: one image; a Frechet distance needs two')
  paired = [name for name, images in sets.items() if options.pairs and has_pairs_within(images)]
  if not (spaces or paired or options.same_names):
    raise UserError(
      'nothing to measure: nobody is known to be on two images (--identity-pattern tells who is on them); '
      'or --inception=FILE, --workdir=RUN, --same-names'
    )
  if options.same_names:
    partners(*sets.values())
  size_hw = common_size([*sets.values()], options.size) if paired or options.same_names else None
  results: dict[str, Any] = {name: described(images) for name, images in sets.items()}
  if size_hw:
    results['ssim'] = _ssim(options, sets, paired, size_hw)
  if spaces:
    from dgnet_jax.reports.feature_spaces import compare

    results['frechet'] = compare(spaces, *sets.values())
  return results


def _ssim(
  options: argparse.Namespace, sets: dict[str, Any], paired: Sequence[str], size_hw: tuple[int, int]
) -> dict[str, Any]:
  """SSIM within the people of the sets in `paired`, and of images of the same name where asked for."""
  from dgnet_jax.reports.similarity import compare_same_names, ssim_within_people

  results: dict[str, Any] = {'size_hw': list(size_hw), 'resizing': 'bicubic, antialiased'}
  if paired:
    drawn = {'pairs': options.pairs, 'seed': options.seed, 'size_hw': size_hw}
    within = {name: ssim_within_people(sets[name], **drawn) for name in paired}
    results |= {'seed': options.seed, 'within_people': within}
  if options.same_names:
    results['same_names'] = compare_same_names(*sets.values(), size_hw=size_hw)
  return results


def _spaces(options: argparse.Namespace) -> dict[str, Any]:
  """The feature spaces that are asked for; JAX starts for these only."""
  if not (options.inception or options.workdir):
    return {}
  from dgnet_jax.reports import feature_spaces

  spaces = {}
  if options.inception:
    spaces['inception'] = feature_spaces.inception_space(options.inception, options.batch_size)
  if not options.workdir:
    return spaces
  names = feature_spaces.EMBEDDINGS if options.embedding == 'both' else (options.embedding,)
  return spaces | feature_spaces.run_spaces(options.workdir, names, options.batch_size)


def report(results: dict[str, Any]) -> str:
  """The results for a person."""
  lines = []
  for name in ('real', 'generated'):
    row = results[name]
    people = f' of {row["num_people"]} people' if 'num_people' in row else ''
    lines.append(f'{name + ":":<11}{row["title"]}: {row["num_images"]} images{people}, {row["size"]} pixels')
  for row in results.get('frechet', {}).values():
    lines.append(f'{row["title"]}: {row["distance"]:.6g}')
    counts = f'{row["num_real"]} real and {row["num_generated"]} generated images'
    lines.append(f'  {row["dimensions"]} dimensions, {counts}')
    lines.append(f'  images {row["resizing"]}; weights of {row["source"]}')
  return '\n'.join([*lines, *_ssim_lines(results.get('ssim', {}))])


def _ssim_lines(results: dict[str, Any]) -> list[str]:
  lines = []
  if 'within_people' in results:
    lines.append('mean SSIM of two images of one person (the lower, the more they differ):')
  for name, row in results.get('within_people', {}).items():
    counts = f'{row["num_pairs"]} pairs of {row["num_people"]} people, seed {results["seed"]}'
    lines.append(f'  {name:<11}{row["ssim"]:.4f} +- {row["standard_error"]:.4f}  {counts}')
  if 'same_names' in results:
    row = results['same_names']
    psnr = 'all equal' if row['psnr'] is None else f'{row["psnr"]:.2f} dB'
    equal = f' ({row["num_equal"]} equal images left out)' if row['num_equal'] and row['psnr'] is not None else ''
    lines.append(f'{row["num_images"]} images of the same name: SSIM {row["ssim"]:.4f}, PSNR {psnr}{equal}')
    lines.append(f'  without a partner: {row["num_real_alone"]} real, {row["num_generated_alone"]} generated')
  if results:
    height, width = results['size_hw']
    lines.append(f'  SSIM with a Gaussian window of sigma 1.5, in colour; images to {height}x{width}, bicubic')
  return lines


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's."""
  overrides, others, problems = loading.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  with exit_on_user_error():
    fields = data_fields(overrides, problems)
    _check(options)
    results = measure(options, fields)
    print(report(results))
    if options.out:
      with whole_file(options.out) as aside:
        aside.write_text(json.dumps(results, indent=2) + '\n')
      print(f'results: {options.out}')


if __name__ == '__main__':
  main()
