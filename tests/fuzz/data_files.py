"""Files that describe images: tables and lists of data sets, records, the built-in people, galleries."""

import dataclasses
import io

import numpy as np
import scipy.io

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.data import images, verification
from dgnet_jax.data.image_bytes import _records, read_bytes, record_address
from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.readers.mat_files import read_matrix
from dgnet_jax.data.registry import read_dataset, read_layout
from dgnet_jax.data.synthetic.dataset import SETTINGS, _is_finished
from dgnet_jax.data.synthetic.manifest import image_descriptions
from dgnet_jax.data.synthetic.people import sample_person, sample_structure
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.gallery.photos import read_tracks
from dgnet_jax.gallery.store import GalleryStore
from dgnet_jax.gallery.store import read_description as read_gallery
from tests.data.folders import write_image
from tests.fuzz import mutations
from tests.fuzz.reader import Reader, copied, from_template, json_of, text_of

CONFIG = Config()


def _read_verified(path):
  verification.verify_images([str(path.parent / 'x.jpg')], threads=1, cache_file=path)


SYNTHETIC = {name: getattr(CONFIG.data.synthetic, name) for name in SETTINGS}
SYNTHETIC |= {name: list(SYNTHETIC[name]) for name in ('image_size_hw', 'cameras_per_identity')}
PERSON = sample_person(np.random.default_rng(0))
STRUCTURE = dataclasses.asdict(sample_structure(np.random.default_rng(0), 1, PERSON.body))


def _read_truth(path):
  for description in image_descriptions(path.parent).values():
    render(*description, image_size_hw=(16, 8))
  _is_finished(path.parent, SYNTHETIC)


PEOPLE = {'path': ['a/b.jpg', 'c.jpg'], 'identity': ['1', 'x'], 'camera': ['1', '2']}
TABLE = 'path,identity,camera,split\na.jpg,1,1,train\n"b,c.jpg",-1,2,gallery\nx.jpg,ann,3,train\n'


def _read_part(folder):
  store = GalleryStore(folder, read_gallery(folder))
  (part,) = store.description.parts
  store.rows(part)
  store.embeddings(part)


def _read_first_record(path):
  _records.cache_clear()
  images.decode_rgb(read_bytes(record_address(path.parent, 'train', 0, 'x.jpg')), path.name)


def _matlab():
  """Changed files with a matrix, packed and not."""
  files = []
  for packed in (False, True):
    file = io.BytesIO()
    scipy.io.savemat(file, {'track_test_info': np.float64([[1, 2, 3, 4]])}, do_compression=packed)
    files.append(file.getvalue())
  return mutations.mutated(files, (b'\0', b'\xff', b'\x0e\0\0\0', b'\x0f\0\0\0'))


GALLERY = {
  **{'format': 2, 'networks': 'a', 'step': 1, 'run': 'r', 'image_size_hw': [8, 4], 'size': 2, 'num_pieces': 1},
  **{'identity_pattern': '', 'camera_pattern': '', 'tracks': '', 'id': 'x', 'next_part': 1, 'pending': {'p': 1}},
  'parts': [{'file': 'part-00000000.parquet', 'rows': 1, 'roots': ['p']}],
}

READERS = {
  'truth': Reader(
    'truth.json',
    _read_truth,
    json_of(
      {
        'format': 3,
        'settings': SYNTHETIC,
        'looks': [dataclasses.asdict(PERSON.appearance)],
        'images': {'a.jpg': {'look': 0, 'structure': STRUCTURE}},
      }
    ),
  ),
  'verified images': Reader(
    'verified_images.json',
    _read_verified,
    json_of({'format': 1, 'images': {'/x.jpg': [5, 10**18]}}),
    lambda folder: write_image(folder / 'x.jpg'),
  ),
  'tfds': Reader(
    'metadata.json',
    lambda path: read_dataset(DataConfig(layout='tfds', root=str(path.parent))),
    json_of({'train': PEOPLE, 'query': PEOPLE}),
  ),
  'csv': Reader(
    'x.csv', lambda path: read_dataset(DataConfig(layout='csv', root=str(path))), text_of(mutations.TABLE_TOKENS, TABLE)
  ),
  'manifest': Reader(
    'manifest.csv',
    lambda path: read_image_set(str(path.parent)),
    text_of(mutations.TABLE_TOKENS, 'path,identity\na.jpg,1\n'),
  ),
  'list': Reader(
    'list_train.txt',
    lambda path: read_layout(path.parent, 'msmt17'),
    text_of(
      mutations.TABLE_TOKENS, '0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_000_02_0303noon_0008_0.jpg 1\n'
    ),
    lambda folder: (folder / 'train').mkdir(),
  ),
  'records description': Reader(
    'dataset_info.json',
    _read_first_record,
    from_template(mutations.JSON_TOKENS, 'records', 'dataset_info.json'),
    copied('records'),
  ),
  'record features': Reader(
    'features.json',
    _read_first_record,
    from_template(mutations.JSON_TOKENS, 'records', 'features.json'),
    copied('records'),
  ),
  'records': Reader(
    'market1501-train.array_record-00000-of-00001',
    _read_first_record,
    from_template(mutations.IMAGE_TOKENS, 'records', '*-train.array_record-*'),
    copied('records'),
  ),
  'gallery': Reader('gallery.json', lambda path: read_gallery(path.parent), json_of(GALLERY)),
  'matlab': Reader('x.mat', read_matrix, _matlab()),
  'tracks': Reader('tracks.csv', read_tracks, text_of(mutations.TABLE_TOKENS, 'path,track\na.jpg,1\nb/c.jpg,walk\n')),
  'gallery part': Reader(
    'part-00000000.parquet',
    lambda path: _read_part(path.parent),
    from_template((b'\0', b'\xff', b'\x80' * 9), 'gallery', 'part-00000000.parquet'),
    copied('gallery'),
  ),
}
