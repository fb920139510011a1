"""Data sets in every public layout with a few images, or as many as were published: one image under many names."""

import itertools
import os

from tests.data.folders import write_image

SMALL = {'train': (6, 3), 'query': (2, 2), 'gallery': (5, 2)}  # images and people
MOST_LINKS = 50_000  # to one file; file systems have a limit
SUFFIX = {'cuhk03': '.png'}
CAMERAS = {'dukemtmc': 8, 'msmt17': 15, 'cuhk03': 2, 'veri776': 20}
FOLDERS = {
  'market1501': ('bounding_box_train', 'query', 'bounding_box_test'),
  'dukemtmc': ('bounding_box_train', 'query', 'bounding_box_test'),
  'cuhk03': ('detected/bounding_box_train', 'detected/query', 'detected/bounding_box_test'),
  'veri776': ('image_train', 'image_query', 'image_test'),
}
NAMES = {
  'market1501': '{person:04d}_c{camera}s1_{number:06d}_00',
  'dukemtmc': '{person:04d}_c{camera}_f{number:07d}',
  'cuhk03': '{person:04d}_c{camera}_{number}',
  'veri776': '{person:04d}_c{camera:03d}_{number:08d}_0',
}


class Images:
  """Files of one content each, or (`linked`) hard links to a single one, which make a full data set cheap."""

  def __init__(self, folder, linked):
    self.folder, self.linked, self.number = folder, linked, itertools.count()

  def write(self, path):
    """Puts an image at `path`."""
    number = next(self.number)
    if not self.linked:
      write_image(path, seed=number)
      return
    source = self.folder / f'.source_{number // MOST_LINKS}{path.suffix}'
    if not source.exists():
      write_image(source, seed=number)
    os.link(source, path)


def people_and_cameras(images, people, num_cameras, start):
  """The person and the camera of each image: all people, and of each person as many cameras as may be."""
  for i in range(images):
    yield start + i % people, 1 + (i // people + i % people) % num_cameras


def write_flat(root, layout, counts, images):
  """Market-1501's layout and those like it; queries are of gallery people, seen by another camera."""
  for folder, split in zip(FOLDERS[layout], counts, strict=True):
    (root / folder).mkdir(parents=True)
    start = 1 if split == 'train' else 5001
    rows = people_and_cameras(*counts[split], CAMERAS.get(layout, 6), start)
    for number, (person, camera) in enumerate(rows):
      if split == 'query':
        camera = camera % CAMERAS.get(layout, 6) + 1
      name = NAMES[layout].format(person=person, camera=camera, number=number)
      images.write(root / folder / (name + SUFFIX.get(layout, '.jpg')))


def write_msmt17(root, counts, images, version=1):
  """MSMT17, with a tenth of the training images in list_val; labels begin at 0 twice."""
  folders = {1: ('train', 'test'), 2: ('mask_train_v2', 'mask_test_v2')}[version]
  for split, (count, people) in counts.items():
    folder = root / folders[split != 'train']
    lists = {name: [] for name in (('list_train', 'list_val') if split == 'train' else (f'list_{split}',))}
    for number, (label, camera) in enumerate(people_and_cameras(count, people, 15, 0)):
      person = folder / f'{label:04d}'
      person.mkdir(parents=True, exist_ok=True)
      camera = camera % 15 + 1 if split == 'query' else camera
      name = f'{label:04d}_{number:06d}_{camera:02d}_0303{split}_{number}_0.jpg'
      images.write(person / name)
      lists['list_val' if split == 'train' and number % 10 == 9 else next(iter(lists))].append(
        f'{label:04d}/{name} {label}\n'
      )
    for name, lines in lists.items():
      (root / f'{name}.txt').write_text(''.join(lines))


def write_fake(root, layout, counts=None, *, linked=False, version=1):
  """A data set at `root` (made) in one of the public layouts.

  Args:
    root: folder.
    layout: of the registry.
    counts: images and people of train, query, gallery.
    linked: all images are hard links to one.
    version: of MSMT17.
  """
  root.mkdir(parents=True, exist_ok=True)
  images = Images(root, linked)
  if layout == 'msmt17':
    write_msmt17(root, counts or SMALL, images, version)
  else:
    write_flat(root, layout, counts or SMALL, images)
  return root
