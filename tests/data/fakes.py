"""Fake data sets in every public layout, small or of the published size (one image under many names)."""

import itertools
import os

from tests.data.folders import write_image

SMALL = {'train': (6, 3), 'query': (2, 2), 'gallery': (5, 2)}  # images and identities
MAX_LINKS = 50_000  # to one file; file systems have a limit
SUFFIX = {'cuhk03': '.png'}
CAMERAS = {'mars': 6, 'dukemtmc': 8, 'msmt17': 15, 'cuhk03': 2, 'veri776': 20}
FOLDERS = {
  'market1501': ('bounding_box_train', 'query', 'bounding_box_test'),
  'dukemtmc': ('bounding_box_train', 'query', 'bounding_box_test'),
  'cuhk03': ('detected/bounding_box_train', 'detected/query', 'detected/bounding_box_test'),
  'veri776': ('image_train', 'image_query', 'image_test'),
}
NAMES = {
  'market1501': '{identity:04d}_c{camera}s1_{number:06d}_00',
  'dukemtmc': '{identity:04d}_c{camera}_f{number:07d}',
  'cuhk03': '{identity:04d}_c{camera}_{number}',
  'veri776': '{identity:04d}_c{camera:03d}_{number:08d}_0',
}


class Images:
  """Writes different images or, if `linked`, hard links to a single one, which makes a full-size data set cheap."""

  def __init__(self, folder, linked):
    self.folder, self.linked, self.number = folder, linked, itertools.count()

  def write(self, path):
    """Writes an image at `path`."""
    number = next(self.number)
    if not self.linked:
      write_image(path, seed=number)
      return
    source = self.folder / f'.source_{number // MAX_LINKS}{path.suffix}'
    if not source.exists():
      write_image(source, seed=number)
    os.link(source, path)


def identities_and_cameras(images, identities, num_cameras, start):
  """Yields identity and camera of each image; cycles through the identities, and each identity's cameras."""
  for i in range(images):
    yield start + i % identities, 1 + (i // identities + i % identities) % num_cameras


def write_flat(root, layout, counts, images):
  """Writes Market-1501's layout or a similar one; queries show gallery identities by another camera."""
  for folder, split in zip(FOLDERS[layout], counts, strict=True):
    (root / folder).mkdir(parents=True)
    start = 1 if split == 'train' else 5001
    rows = identities_and_cameras(*counts[split], CAMERAS.get(layout, 6), start)
    for number, (identity, camera) in enumerate(rows):
      if split == 'query':
        camera = camera % CAMERAS.get(layout, 6) + 1
      name = NAMES[layout].format(identity=identity, camera=camera, number=number)
      images.write(root / folder / (name + SUFFIX.get(layout, '.jpg')))


def write_msmt17(root, counts, images, version=1):
  """Writes MSMT17, with a tenth of the training images in list_val; labels start at 0 in both parts."""
  folders = {1: ('train', 'test'), 2: ('mask_train_v2', 'mask_test_v2')}[version]
  for split, (count, identities) in counts.items():
    folder = root / folders[split != 'train']
    lists = {name: [] for name in (('list_train', 'list_val') if split == 'train' else (f'list_{split}',))}
    for number, (label, camera) in enumerate(identities_and_cameras(count, identities, 15, 0)):
      (folder / f'{label:04d}').mkdir(parents=True, exist_ok=True)
      camera = camera % 15 + 1 if split == 'query' else camera
      name = f'{label:04d}_{number:06d}_{camera:02d}_0303{split}_{number}_0.jpg'
      images.write(folder / f'{label:04d}' / name)
      lists['list_val' if split == 'train' and number % 10 == 9 else next(iter(lists))].append(
        f'{label:04d}/{name} {label}\n'
      )
    for name, lines in lists.items():
      (root / f'{name}.txt').write_text(''.join(lines))


def write_mars(root, counts, images):
  """Writes MARS: tracks of one image each, and the numbers of the query tracks as text."""
  tracks = []
  for split, (count, identities) in counts.items():
    folder = root / ('bbox_train' if split == 'train' else 'bbox_test')
    start = 1 if split == 'train' else 5001
    for number, (identity, camera) in enumerate(identities_and_cameras(count, identities, 6, start)):
      camera = camera % 6 + 1 if split == 'query' else camera
      track = f'{identity:04d}C{camera}T{number + 1:04d}'
      (folder / f'{identity:04d}').mkdir(parents=True, exist_ok=True)
      images.write(folder / f'{identity:04d}' / f'{track}F001.jpg')
      tracks += [(track, split)] if split != 'train' else []
  (root / 'info').mkdir()
  lines = [f'{number}\n' for number, (_, split) in enumerate(sorted(tracks), 1) if split == 'query']
  (root / 'info' / 'query_IDX.txt').write_text(''.join(lines))


def write_fake(root, layout, counts=None, *, linked=False, version=1):
  """Writes a data set in one of the public layouts and returns its root.

  Args:
    root: folder to create.
    layout: name of the layout.
    counts: images and identities of train, query and gallery.
    linked: make all images hard links to one.
    version: version of MSMT17.
  """
  root.mkdir(parents=True, exist_ok=True)
  images = Images(root, linked)
  if layout == 'msmt17':
    write_msmt17(root, counts or SMALL, images, version)
  elif layout == 'mars':
    write_mars(root, counts or SMALL, images)
  else:
    write_flat(root, layout, counts or SMALL, images)
  return root
