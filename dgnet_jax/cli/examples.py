"""`dgnet examples`: a few built-in pedestrians as image files, to try the other commands on."""

import argparse

from dgnet_jax.cli.arguments import writable
from dgnet_jax.cli.command import Command

EPILOG = """examples:
  dgnet examples --out=people
  dgnet rank synthetic people/person_01/camera_1.jpg --gallery people/
  dgnet swap synthetic --structure=people/person_01/camera_1.jpg --appearance people/person_02/ --out=dressed_up/

`synthetic` is a small trained model that comes with the package. It knows only people like these.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--out', required=True, type=writable, metavar='FOLDER', help='folder to create')


def run(options: argparse.Namespace) -> None:
  from dgnet_jax.data.synthetic.examples import write_examples

  write_examples(options.out)


COMMAND = Command(
  name='examples',
  summary='write a few built-in pedestrians, to try a model on',
  details='Renders 12 people by six cameras as JPEG files, in a folder for each person. It takes about a second.',
  epilog=EPILOG,
  add_arguments=add_arguments,
  run=run,
)
