"""The registry of data sets: folders and file names, published counts, and terms of use.

Rows hold only data and nothing heavy is imported here, so that a config is validated before JAX is imported.
"""

from collections.abc import Mapping
import dataclasses

SPLITS = ('train', 'query', 'gallery', 'multi_query')
BOXES = ('detected', 'labeled')
NUM_SYNTHETIC_CAMERAS = 6  # of the built-in pedestrians


@dataclasses.dataclass(frozen=True)
class Count:
  """The published size of a split.

  Attributes:
    images: number of images.
    identities: number of identities; None if it was not published.
    verified: False if the number was taken from a publication and not checked against the files.
  """

  images: int
  identities: int | None = None
  verified: bool = True


@dataclasses.dataclass(frozen=True)
class Layout:
  """How one data set is stored.

  Attributes:
    name: value of `config.data.layout`.
    title: name in messages.
    reader: a key of `data.registry.READERS`.
    folders: candidate folders of each split; the first that exists is read.
    example: the name of an image file.
    file_name: regular expression for file names without extension, with the groups identity and camera.
    name_lists: optional files that list the images of a split.
    variants: subfolders of the root that hold alternative forms; `config.data.boxes` selects one.
    counts: published sizes, by split or 'split, variant'. 'gallery, without junk' counts the images that are ranked.
    num_cameras: published number of cameras.
    note: terms of use and other facts that a user needs first.
  """

  name: str
  title: str
  reader: str
  folders: Mapping[str, tuple[str, ...]]
  example: str
  file_name: str = ''
  name_lists: Mapping[str, str] = dataclasses.field(default_factory=dict)
  variants: tuple[str, ...] = ()
  counts: Mapping[str, Count] = dataclasses.field(default_factory=dict)
  num_cameras: int | None = None
  note: str = ''

  def count(self, split: str, variant: str = '') -> Count | None:
    """Returns the published size of a split, or None."""
    return self.counts.get(f'{split}, {variant}', self.counts.get(split))


LICENSE = 'Available from its authors on request; research use only.'
MARKET1501_FOLDERS = {
  'train': ('bounding_box_train',),
  'query': ('query',),
  'gallery': ('bounding_box_test',),
  'multi_query': ('gt_bbox',),
}
MARKET1501 = Layout(
  name='market1501',
  title='Market-1501',
  reader='flat',
  folders=MARKET1501_FOLDERS,
  example='0002_c1s1_000451_03.jpg',
  file_name=r'(?P<identity>-?\d+)_c(?P<camera>\d+)s\d+_\d+_\d+',
  counts={
    'train': Count(12_936, 751),
    'query': Count(3_368, 750),
    'gallery': Count(19_732, verified=False),
    'gallery, without junk': Count(15_913),
    'multi_query': Count(25_259, verified=False),
  },
  num_cameras=6,
  note=LICENSE,
)
DUKEMTMC = Layout(
  name='dukemtmc',
  title='DukeMTMC-reID',
  reader='flat',
  folders={split: MARKET1501_FOLDERS[split] for split in ('train', 'query', 'gallery')},
  example='0005_c2_f0046985.jpg',
  file_name=r'(?P<identity>-?\d+)_c(?P<camera>\d+)_f\d+',
  counts={'train': Count(16_522, 702), 'query': Count(2_228), 'gallery': Count(17_661)},
  num_cameras=8,
  note='Withdrawn by its authors in 2019; do not redistribute it or weights trained on it.',
)
MSMT17 = Layout(
  name='msmt17',
  title='MSMT17',
  reader='msmt17',
  folders={
    'train': ('train', 'mask_train_v2'),
    'query': ('test', 'mask_test_v2'),
    'gallery': ('test', 'mask_test_v2'),
  },
  example='0000/0000_000_01_0303morning_0008_0.jpg',
  file_name=r'[^_]+_[^_]+_(?P<camera>\d+)_.*',
  counts={
    'train': Count(32_621, 1_041),
    'train, without list_val': Count(30_248, 1_041, verified=False),
    'query': Count(11_659),
    'gallery': Count(82_161),
  },
  num_cameras=15,
  note='Requires a license agreement with its authors.',
)
CUHK03 = Layout(
  name='cuhk03',
  title='CUHK03-NP',
  reader='flat',
  folders={split: MARKET1501_FOLDERS[split] for split in ('train', 'query', 'gallery')},
  example='0001_c1_1.png',
  file_name=r'(?P<identity>\d+)_c(?P<camera>\d+)_\d+',
  variants=BOXES,
  counts={
    'train, detected': Count(7_365, 767, verified=False),
    'query, detected': Count(1_400, 700, verified=False),
    'gallery, detected': Count(5_332, 700, verified=False),
    'train, labeled': Count(7_368, 767, verified=False),
    'query, labeled': Count(1_400, 700, verified=False),
    'gallery, labeled': Count(5_328, 700, verified=False),
  },
  num_cameras=2,
  note=LICENSE,
)
VERI776 = Layout(
  name='veri776',
  title='VeRi-776',
  reader='flat',
  folders={'train': ('image_train',), 'query': ('image_query',), 'gallery': ('image_test',)},
  example='0001_c001_00016450_0.jpg',
  file_name=r'(?P<identity>\d+)_c(?P<camera>\d+)_\d+_\d+',
  name_lists={'train': 'name_train.txt', 'query': 'name_query.txt', 'gallery': 'name_test.txt'},
  counts={'train': Count(37_778, 576), 'query': Count(1_678), 'gallery': Count(11_579, 200)},
  num_cameras=20,
  note=f'Vehicles. {LICENSE}',
)
MARS = Layout(
  name='mars',
  title='MARS',
  reader='mars',
  folders={'train': ('bbox_train',), 'query': ('bbox_test',), 'gallery': ('bbox_test',)},
  example='0001/0001C1T0001F001.jpg',
  file_name=r'(?P<track>(?P<identity>\d{4}|00-1)C(?P<camera>\d+)T\d+)F\d+',
  counts={'train': Count(509_914, 625, verified=False)},
  num_cameras=6,
  note='Tracks in video (evaluation.tracklets). Research use only.',
)
SYNTHETIC = dataclasses.replace(
  MARKET1501,
  name='synthetic',
  title='the built-in pedestrians',
  counts={},
  num_cameras=None,
  note='Rendered on first use; no license needed.',
)
RELEASE = Layout(
  name='release',
  title="the release's folders",
  reader='identity_folders',
  folders={
    'train': ('train_all', 'train'),
    'query': ('query',),
    'gallery': ('gallery',),
    'multi_query': ('multi-query',),
  },
  example='pytorch/train_all/0002/0002_c1s1_000451_03.jpg',
  file_name=r'.*?c(?P<camera>\d+).*',
)
FOLDERS = Layout(
  name='folders',
  title='a folder for each identity',
  reader='identity_folders',
  folders={split: (split,) for split in SPLITS},
  example='train/Anna/door_3.jpg',
)
CSV = Layout(
  name='csv',
  title='a table',
  reader='table',
  folders={},
  example='path,identity,camera,split',
)

PREPARED = Layout(
  name='tfds',
  title='a data set prepared by TensorFlow Datasets',
  reader='prepared',
  folders={},
  example='market1501/1.0.0/market1501-train.array_record-00000-of-00001',
)

# In order of detection: stricter layouts come before those that match more folders.
LAYOUTS = {
  row.name: row
  for row in (CSV, PREPARED, MSMT17, MARKET1501, DUKEMTMC, CUHK03, VERI776, MARS, SYNTHETIC, RELEASE, FOLDERS)
}
