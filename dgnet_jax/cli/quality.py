"""`dgnet quality`: measures generated images against real ones."""

import argparse
import os

from dgnet_jax.cli.arguments import (
  add_batch_size,
  at_least,
  data_fields,
  local,
  positive,
  run_folder,
  size_hw,
  writable,
)
from dgnet_jax.cli.command import Command
from dgnet_jax.errors import UserError

EMBEDDINGS = ('teacher', 'dgnet', 'both')
DETAILS = """Frechet distances (FID), SSIM between images of one person, and SSIM and PSNR of images of the same
name. Downloads nothing, and writes only FILE.json.
"""
EPILOG = """examples:
  dgnet quality Market-1501-v15.09.15:train runs/market/generated/step_0100000 \\
      --inception=pt_inception-2015-12-05-6726825d.pth --workdir=runs/market
  dgnet quality ground_truth generated --same-names --out=quality.json
  dgnet quality images generated --identity-pattern='^(?P<identity>[0-9]+)_' --size=256x128

REAL and GENERATED are a folder of images, a folder of `dgnet generate` with its manifest, or splits of a data set:
ROOT:SPLIT, ROOT:query+gallery, or LAYOUT=ROOT:SPLIT if the layout should not be detected. Fields of config.data can
be set with --config.data.FIELD=VALUE.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('real', metavar='REAL')
  parser.add_argument('generated', metavar='GENERATED')
  parser.add_argument(
    '--inception',
    type=local,
    metavar='FILE',
    help='FID with these weights: pt_inception-2015-12-05-6726825d.pth of pytorch-fid',
  )
  parser.add_argument(
    '--workdir', type=run_folder, metavar='RUN', help='Frechet distance in the embedding of a run (not Inception FID)'
  )
  parser.add_argument(
    '--embedding',
    choices=EMBEDDINGS,
    default='teacher',
    help='which embedding of the run: the teacher has seen no generated image, dgnet judges its own work '
    '(default: teacher)',
  )
  parser.add_argument(
    '--pairs',
    type=at_least(0),
    default=2000,
    help='number of image pairs for the mean SSIM of two images of one person, if identities are known '
    '(default: %(default)s; 0 skips it)',
  )
  parser.add_argument('--seed', type=at_least(0), default=0, help='selects the pairs (default: 0)')
  parser.add_argument(
    '--identity-pattern',
    default='',
    metavar='PATTERN',
    help='identities in plain folders: a regular expression with a group (?P<identity>...) for the path in the folder',
  )
  parser.add_argument('--same-names', action='store_true', help='SSIM and PSNR of images that have the same name')
  parser.add_argument(
    '--size', type=size_hw, metavar='HxW', help='size for SSIM and PSNR (default: the size of GENERATED)'
  )
  add_batch_size(parser, 32)
  parser.add_argument('--threads', type=positive, default=os.cpu_count() or 1, help='files read in parallel')
  parser.add_argument('--out', type=writable, metavar='FILE.json', help='also write the results to this file')


def run(options: argparse.Namespace) -> None:
  fields = data_fields(options)
  if not (options.inception or options.workdir or options.pairs or options.same_names):
    raise UserError('nothing to measure: set --inception=FILE, --workdir=RUN, --same-names, or --pairs above 0')
  from dgnet_jax.data.image_sets import read_image_set
  from dgnet_jax.reports.quality import SsimOptions, measure, quality_text
  from dgnet_jax.utils.atomic_files import write_json
  from dgnet_jax.utils.writers import check_output

  if options.out:
    check_output(options.out, ('.json',))
  spaces = {}
  if options.inception or options.workdir:  # SSIM alone does not need JAX
    from dgnet_jax.reports.feature_spaces import EMBEDDINGS, inception_space, run_spaces
    from dgnet_jax.storage.local_copies import fetched

    if options.inception:
      spaces['inception'] = inception_space(options.inception, options.batch_size)
    if options.workdir:
      names = EMBEDDINGS if options.embedding == 'both' else (options.embedding,)
      spaces |= run_spaces(fetched(options.workdir), names, options.batch_size)
  real, generated = (
    read_image_set(text, identity_pattern=options.identity_pattern, fields=fields, threads=options.threads)
    for text in (options.real, options.generated)
  )
  ssim = SsimOptions(options.pairs, options.seed, options.same_names, options.size)
  results = measure(real, generated, spaces, ssim)
  print(quality_text(results))
  if options.out:
    write_json(options.out, results)
    print(f'results: {options.out}')


COMMAND = Command(
  name='quality',
  summary='measure generated images against real ones',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
  fields='data',
)
