"""TensorFlow Datasets builders over the readers: `tfds.load('market1501')` after importing this file.

`dgnet prepare to-tfds FOLDER --out=DATA_DIR` writes the records. TFDS's own command does the same; it needs
apache-beam and mlcroissant, which it imports:

    tfds build market1501 --imports=dgnet_jax.data.tfds_builders --manual_dir=FOLDER --file_format=array_record

FOLDER is the data set's folder as its authors distribute it. Nothing is downloaded. Records contain the unchanged bytes
of the files in the order of the reader, so batch N is the same from files and from records.
"""

from collections.abc import Iterator, Mapping
import io
import os
import pathlib
import re
import shutil
from typing import Any

import tensorflow_datasets as tfds

from dgnet_jax.data.image_bytes import record_features
from dgnet_jax.data.images import read_encoded
from dgnet_jax.data.index import DatasetIndex, summarize
from dgnet_jax.data.layouts import BOXES, LAYOUTS, Layout
from dgnet_jax.data.registry import read_layout
from dgnet_jax.errors import UserError
from dgnet_jax.utils.locks import LOCK_FILE, exclusive

PREPARED = ('market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776', 'release', 'folders', 'csv')


class _Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg, misc]
  """A data set of the registry as records; identity and camera are the numbers of its index."""

  VERSION = tfds.core.Version('1.0.0')
  RELEASE_NOTES = {'1.0.0': 'First version.'}
  layout: Layout
  index: DatasetIndex | None = None  # None: read the manual folder

  def _info(self) -> tfds.core.DatasetInfo:
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'{self.layout.title}. {self.layout.note}',
      features=record_features(),
      metadata=tfds.core.MetadataDict(),
      disable_shuffling=True,  # record N is image N of the index
    )

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> Mapping[str, Any]:
    index = self.index or self._read(str(dl_manager.manual_dir))
    present = [name for name, split in index.splits.items() if len(split)]
    self.info.metadata.update({name: _label_names(index, name) for name in present})
    return {name: self._generate_examples(index, name) for name in present}

  def _read(self, folder: str) -> DatasetIndex:
    variant = self.builder_config.name if self.builder_config else ''
    fields: dict[str, Any] = {'boxes': variant} if variant in BOXES else {}
    try:
      return read_layout(folder, self.layout.name, **fields)
    except UserError as error:
      raise AssertionError(f'--manual_dir: {error}') from error

  def _generate_examples(self, index: DatasetIndex, name: str) -> Iterator[tuple[int, dict[str, Any]]]:
    split = index.splits[name]
    for i, path in enumerate(split.paths):
      relative = os.path.relpath(path, index.root)
      image = io.BytesIO(read_encoded(path))  # a path would be opened whatever it is
      yield i, {'image': image, 'identity': split.identity[i], 'camera': split.camera[i], 'path': relative}


def _label_names(index: DatasetIndex, name: str) -> dict[str, list[str]]:
  """Returns what `readers.prepared` needs to rebuild a split of the index."""
  split = index.splits[name]
  return {
    'path': [os.path.relpath(path, index.root) for path in split.paths],
    'identity': [index.identity_names[int(identity)] for identity in split.identity],
    'camera': [index.camera_names[int(camera)] for camera in split.camera],
  }


def _make_builder(layout: Layout) -> type[_Builder]:
  instructions = f'Copy or unpack {layout.title} and pass its folder. {layout.note}'
  fields: dict[str, Any] = {'layout': layout, 'MANUAL_DOWNLOAD_INSTRUCTIONS': instructions, '__module__': __name__}
  if layout.variants:
    fields['BUILDER_CONFIGS'] = [tfds.core.BuilderConfig(name=name) for name in layout.variants]
  return type(re.sub(r'^.', lambda first: first[0].upper(), layout.name), (_Builder,), fields)


# TFDS derives a data set's name from the class: Market1501 is market1501.
BUILDERS = {name: _make_builder(LAYOUTS[name]) for name in PREPARED}
Market1501, Dukemtmc, Msmt17, Cuhk03, Veri776, Release, Folders, Csv = BUILDERS.values()


def _is_text(name: str) -> bool:
  try:
    name.encode()
  except UnicodeEncodeError:
    return False
  return True


def prepare_records(index: DatasetIndex, data_dir: pathlib.Path) -> pathlib.Path:
  """Writes the records of a data set.

  Args:
    index: index of the files.
    data_dir: TFDS's folder of data sets.

  Returns:
    The folder of the version, in `data_dir`: `config.data.root` of layout tfds.

  Raises:
    UserError: the records exist, another process makes them, the data set consists of records already, a file cannot be
      read, or its name is not UTF-8.
  """
  if index.name not in BUILDERS:
    raise UserError(f'{index.root}: layout {index.name} cannot be prepared; {", ".join(BUILDERS)} can')
  names = [os.path.relpath(path, index.root) for split in index.splits.values() for path in split.paths]
  if undecodable := [name for name in names if not _is_text(name)]:
    raise UserError(f'{index.root}: file names that are not UTF-8 do not fit into records: {summarize(undecodable)}')
  variant = {'config': index.variant} if LAYOUTS[index.name].variants else {}
  builder = BUILDERS[index.name](data_dir=data_dir, file_format='array_record', **variant)
  folder = pathlib.Path(builder.data_dir)
  if folder.exists():
    raise UserError(f'{folder} already exists; name another folder, or remove it')
  builder.index = index
  try:
    data_dir.mkdir(parents=True, exist_ok=True)
    with exclusive(data_dir / LOCK_FILE, f'the preparation in {data_dir}'):
      for left in folder.parent.glob(f'incomplete.*_{folder.name}'):  # by a killed process
        shutil.rmtree(left)
      builder.download_and_prepare(download_config=tfds.download.DownloadConfig(manual_dir=index.root))
  except OSError as error:
    raise UserError(f'{folder}: {error}') from error
  return folder
