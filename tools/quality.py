"""How good generated pictures are, beside real ones: Frechet distances (FID).

Nothing is downloaded, and nothing is written but FILE.json.
"""

import argparse
from collections.abc import Sequence
import json
import os
import sys
from typing import Any

from dgnet_jax import config_file
from dgnet_jax.config import UserError
from tools.data_fields import data_fields

EMBEDDING_CHOICES = ('teacher', 'dgnet', 'both')
EXAMPLE = """
examples:
  python -m tools.quality Market-1501-v15.09.15:train runs/market/generated/step_0100000 --workdir=runs/market

REAL and GENERATED are a folder of pictures, a folder of --mode=generate with its manifest, or parts of a data set:
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
  parser.add_argument('--workdir', metavar='RUN', help='Frechet distance in the embedding of a run (no Inception FID)')
  parser.add_argument(
    '--embedding',
    choices=EMBEDDING_CHOICES,
    default='teacher',
    help='of the run: the teacher has seen no generated picture, dgnet judges its own work (default: teacher)',
  )
  parser.add_argument('--batch-size', type=_positive, default=32, help='pictures at a time (default: 32)')
  parser.add_argument('--threads', type=_positive, default=os.cpu_count() or 1, help='files at a time')
  parser.add_argument('--out', metavar='FILE.json', help='to write the results to')
  return parser


def _positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f'{number} is not at least 1')
  return number


def _check(options: argparse.Namespace) -> None:
  """Raises UserError for what is wrong with the command line."""
  if not options.workdir:
    raise UserError('nothing to measure: name a run with --workdir')
  if options.out and not options.out.endswith('.json'):
    raise UserError(f'--out={options.out}: a name that ends in .json')


def described(pictures: Any) -> dict[str, Any]:
  """What is told of a set."""
  people = {'num_people': pictures.num_people} if pictures.identity is not None else {}
  return {'title': pictures.title, 'num_pictures': len(pictures), 'size': pictures.size_text} | people


def measure(options: argparse.Namespace, fields: dict[str, object]) -> dict[str, Any]:
  """All results; JSON can hold them."""
  from dgnet_jax import feature_spaces  # late: help needs no JAX
  from dgnet_jax.data.picture_sets import read_picture_set

  spaces = {}
  if options.workdir:
    names = feature_spaces.EMBEDDINGS if options.embedding == 'both' else (options.embedding,)
    spaces |= feature_spaces.run_spaces(options.workdir, names, options.batch_size)
  real, generated = (
    read_picture_set(text, fields=fields, threads=options.threads, log=print)
    for text in (options.real, options.generated)
  )
  for pictures in (real, generated):
    if spaces and len(pictures) < 2:
      raise UserError(f'{pictures.title}: one picture; a Frechet distance needs two')
  results: dict[str, Any] = {'real': described(real), 'generated': described(generated)}
  results['frechet'] = feature_spaces.compare(spaces, real, generated, log=print)
  return results


def report(results: dict[str, Any]) -> str:
  """The results for a person."""
  lines = []
  for name in ('real', 'generated'):
    row = results[name]
    people = f' of {row["num_people"]} people' if 'num_people' in row else ''
    lines.append(f'{name + ":":<11}{row["title"]}: {row["num_pictures"]} pictures{people}, {row["size"]} pixels')
  for row in results['frechet'].values():
    lines.append(f'{row["title"]}: {row["distance"]:.6g}')
    counts = f'{row["num_real"]} real and {row["num_generated"]} generated pictures'
    lines.append(f'  {row["dimensions"]} dimensions, {counts}')
    lines.append(f'  pictures {row["resizing"]}; weights of {row["source"]}')
  return '\n'.join(lines)


def main(arguments: Sequence[str] | None = None) -> None:
  """Entry point; ends with status 2 after a mistake of the user's."""
  overrides, others, problems = config_file.split_overrides(sys.argv[1:] if arguments is None else arguments)
  options = _parser().parse_args(others)
  try:
    fields = data_fields(overrides, problems)
    _check(options)
    results = measure(options, fields)
    print(report(results))
    if options.out:
      from dgnet_jax.files import whole_file

      with whole_file(options.out) as aside:
        aside.write_text(json.dumps(results, indent=2) + '\n')
      print(f'results: {options.out}')
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    raise SystemExit(2) from error
  except KeyboardInterrupt:
    raise SystemExit(130) from None


if __name__ == '__main__':
  main()
