"""`dgnet index`: galleries that stay on disk."""

import argparse

from dgnet_jax.cli.arguments import local, writable
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import DETAILS, add_run, check_run, load_model

EPILOG = r"""examples:
  dgnet index build runs/market photos/ --out=gallery/
  dgnet index build runs/market photos/ more/ --out=gallery/ --skip-bad        # again: only what is new and changed
  dgnet index build runs/market photos/ --out=gallery/ --identity-pattern='^(?P<identity>\d+)_' \
      --camera-pattern='_c(?P<camera>\d+)'
  dgnet index build runs/market walks/ --out=gallery/ --tracks=folder          # one entry for the photos of a folder
  dgnet index info gallery/
  dgnet rank runs/market anna.jpg --gallery gallery/

A photo whose size and time are unchanged is not read; otherwise its SHA-256 decides whether it is embedded. Photos that
are gone leave the gallery, those that were moved or copied keep their embedding, and those of folders that are not
named stay. A folder that was deleted or emptied can still be named: its photos leave the gallery. Ctrl-C, SIGTERM or a
crash loses at most a minute of embedding; the same command goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parts = parser.add_subparsers(dest='part', required=True, metavar='PART')
  build = parts.add_parser('build', help='embed images into a gallery, or bring it up to date', allow_abbrev=False)
  add_run(build)
  build.add_argument('images', metavar='IMAGE', nargs='+', help='folders and files')
  build.add_argument('--out', required=True, type=writable, metavar='FOLDER', help='the gallery')
  for group in ('identity', 'camera'):
    build.add_argument(
      f'--{group}-pattern',
      metavar='REGEX',
      help=f'finds the {group} in the path within its folder by a group of this name (default: as before; empty: none)',
    )
  build.add_argument(
    '--tracks',
    metavar='folder|CSV',
    help='make tracks one entry: each folder is one, or a file with the columns path and track says so '
    '(default: as before; empty: none)',
  )
  build.add_argument('--keep-missing', action='store_true', help='keep images in the gallery whose files are gone')
  build.add_argument('--skip-bad', action='store_true', help='leave out unreadable images, and list them in bad.csv')
  info = parts.add_parser('info', help='print what is in a gallery', allow_abbrev=False)
  info.add_argument('gallery', type=local, metavar='GALLERY', help='its folder')


def run(options: argparse.Namespace) -> None:
  if options.part == 'info':
    from dgnet_jax.gallery.info import gallery_text

    print(gallery_text(options.gallery))
    return
  check_run(options)
  from dgnet_jax.gallery.build import BuildOptions
  from dgnet_jax.gallery.photos import Labeler, list_photos
  from dgnet_jax.gallery.plan import has_photos
  from dgnet_jax.utils.writers import check_output_folder

  check_output_folder(options.out)
  Labeler(options.identity_pattern or '', options.camera_pattern or '', options.tracks or '')  # before JAX starts
  list_photos(options.images, has_photos(options.out))
  load_model(options).store_gallery(
    options.out,
    options.images,
    BuildOptions(
      identity_pattern=options.identity_pattern,
      camera_pattern=options.camera_pattern,
      tracks=options.tracks,
      keep_missing=options.keep_missing,
      skip_bad=options.skip_bad,
    ),
  )


COMMAND = Command(
  name='index',
  summary='keep a gallery of images on disk',
  details=DETAILS,
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
