"""TensorFlow Datasets builders over the readers: `tfds.load('market1501')` after importing this file.

`python -m tools.prepare to-tfds FOLDER --out=DATA_DIR` makes the records; so does TFDS's own command, where
apache-beam and mlcroissant are installed, which it imports:

    tfds build market1501 --imports=dgnet_jax.data.tfds_builders --manual_dir=FOLDER --file_format=array_record

FOLDER is the data set's own folder as its authors distribute it. Nothing is downloaded. Records keep the files' own
bytes, in the order of the reader, so batch N is the same from raw files and from records.
"""

from collections.abc import Iterator
import os
import pathlib
import re
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.layouts import BOXES, LAYOUTS, Layout
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError

PREPARED = ('market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776', 'release', 'folders', 'csv')


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
  """A data set of the registry as records; identity and camera are the numbers of its index."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First.'}
  layout: Layout
  index: DatasetIndex | None = None  # already read; None reads the manual folder

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'image': tfds.features.Image(shape=(None, None, 3)),
      'identity': tfds.features.Scalar(np.int32),
      'camera': tfds.features.Scalar(np.int32),
      'path': tfds.features.Text(),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{self.layout.title}. {self.layout.note}',
      features=tfds.features.FeaturesDict(features),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,  # record N is image N of the index
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
    index = self.index or self._read(str(dl_manager.manual_dir))
    present = [split for split, found in index.splits.items() if len(found)]
    self.info.metadata.update({split: _names(index, split) for split in present})
    return {split: self._generate_examples(index, split) for split in present}

  def _read(self, folder: str) -> DatasetIndex:
    variant = self.builder_config.name if self.builder_config else ''
    fields: dict[str, Any] = {'boxes': variant} if variant in BOXES else {}
    try:
      return read_layout(folder, self.layout.name, **fields)
    except UserError as error:
      raise AssertionError(f'--manual_dir: {error}') from error

  def _generate_examples(self, index: DatasetIndex, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
    found = index.splits[split]
    for i, path in enumerate(found.paths):
      names = os.path.relpath(path, index.root)
      yield i, {'image': path, 'identity': found.identity[i], 'camera': found.camera[i], 'path': names}


def _names(index: DatasetIndex, split: str) -> dict[str, list[str]]:
  """What `readers.prepared` needs to make the same index again."""
  found = index.splits[split]
  return {
    'path': [os.path.relpath(path, index.root) for path in found.paths],
    'identity': [index.identity_names[int(identity)] for identity in found.identity],
    'camera': [index.camera_names[int(camera)] for camera in found.camera],
  }


def _make(layout: Layout) -> type[_Builder]:
  note = f'Copy or unpack {layout.title} and name its folder. {layout.note}'
  fields: dict[str, Any] = {'layout': layout, 'MANUAL_DOWNLOAD_INSTRUCTIONS': note, '__module__': __name__}
  if layout.variants:
    fields['BUILDER_CONFIGS'] = [tfds.core.BuilderConfig(name=name) for name in layout.variants]
  return type(re.sub(r'^.', lambda first: first[0].upper(), layout.name), (_Builder,), fields)


# Their names, as TFDS turns them around: Market1501 is market1501.
BUILDERS = {name: _make(LAYOUTS[name]) for name in PREPARED}
Market1501, Dukemtmc, Msmt17, Cuhk03, Veri776, Release, Folders, Csv = BUILDERS.values()


def prepare_records(index: DatasetIndex, data_dir: pathlib.Path) -> pathlib.Path:
  """Writes a data set's records.

  Args:
    index: of the raw files.
    data_dir: TFDS's folder of data sets.

  Returns:
    The folder of the version, in `data_dir`: `config.data.root` of layout tfds.

  Raises:
    UserError: it is there already, is no data set of files, or a file cannot be read.
  """
  if index.name not in BUILDERS:
    raise UserError(f'{index.root}: layout {index.name} cannot be prepared; {", ".join(BUILDERS)} can')
  builder_class = BUILDERS[index.name]
  variant = {'config': index.variant} if LAYOUTS[index.name].variants else {}
  builder = builder_class(data_dir=data_dir, file_format='array_record', **variant)
  folder = pathlib.Path(builder.data_dir)
  if folder.exists():
    raise UserError(f'{folder} is there already; name another folder, or remove it')
  builder.index = index
  try:
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=index.root))
  except OSError as error:
    raise UserError(f'{index.root}: {error}') from error
  return folder
