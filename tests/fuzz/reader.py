"""What a fuzz test reads: a name, what reads it, and a strategy for its content; and what the strategies share."""

from collections.abc import Callable
import dataclasses
import functools
import importlib.util
import json
import pathlib
import shutil
import tempfile

from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.registry import read_layout
from dgnet_jax.gallery.build import BuildOptions, build_gallery
from dgnet_jax.gallery.store import Description
from tests.data.folders import write_image, write_market
from tests.fuzz import mutations
from tests.training.checkpoint_states import save_steps


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader under test.

  Attributes:
    name: name of the file, which its errors must contain.
    read: reads the file at a path; raises UserError if it is not as it should be.
    contents: strategy for its bytes.
    prepare: makes what else must be in its folder.
  """

  name: str
  read: Callable[[pathlib.Path], object]
  contents: st.SearchStrategy
  prepare: Callable[[pathlib.Path], object] = lambda folder: None


def json_of(*values):
  seeds = [json.dumps(value) for value in values]
  return mutations.changed_json(seeds) | mutations.mutated([seed.encode() for seed in seeds], mutations.JSON_TOKENS)


def text_of(tokens, *seeds):
  return mutations.mutated([seed.encode() for seed in seeds], tokens)


@functools.cache
def templates():
  """A folder with a checkpoint, a gallery and a prepared data set, made when the first test needs it."""
  folder = tempfile.TemporaryDirectory(prefix='dgnet_fuzz_')
  root = pathlib.Path(folder.name)
  save_steps(root / 'checkpoint', (10,))
  if importlib.util.find_spec('pyarrow'):
    (root / 'photos').mkdir()
    write_image(root / 'photos' / 'x.jpg')
    described = Description('a', step=1, run='r', image_size_hw=(8, 4), size=2, num_pieces=1)
    build_gallery(
      root / 'gallery', [root / 'photos'], lambda _: iter([np.float32([[0, 1]])]), described, BuildOptions()
    )
  if importlib.util.find_spec('array_record') and importlib.util.find_spec('tensorflow_datasets'):
    from dgnet_jax.data.tfds_builders import prepare_records

    (root / 'files').mkdir()
    prepare_records(read_layout(write_market(root / 'files')), root / 'tfds').rename(root / 'records')
  return root, folder  # which is removed with the process


def copied(name):
  """Returns a function that copies a template's folder into a folder."""

  def prepare(folder):
    if not (template := templates()[0] / name).exists():
      pytest.skip('pyarrow, TensorFlow Datasets or ArrayRecord is not installed')
    shutil.copytree(template, folder, dirs_exist_ok=True)

  return prepare


def from_template(tokens, *pattern):
  """Changed bytes of the files that match a pattern in the template's folder."""

  def contents():
    found = sorted(templates()[0].glob('/'.join(pattern)))
    return mutations.mutated([path.read_bytes() for path in found] or [b''], tokens)

  return st.deferred(contents)
