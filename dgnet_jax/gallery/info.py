"""Describes a gallery on disk in text."""

from collections import Counter
import pathlib

from dgnet_jax.data.index import printable
from dgnet_jax.errors import UserError
from dgnet_jax.gallery.bad_files import BAD_FILES, read_bad_files
from dgnet_jax.gallery.store import GalleryStore, is_gallery, read_description


def gallery_text(folder: pathlib.Path) -> str:
  """Returns lines about a gallery: by what it was built, and how many images, folders, people and tracks it has.

  Raises:
    UserError: there is none, or it is damaged.
  """
  if not is_gallery(folder):
    raise UserError(f'{folder}: no gallery; `dgnet index build RUN PHOTOS --out={folder}` makes one')
  store = GalleryStore(folder, read_description(folder))
  description = store.description
  rows = [row for part in description.parts for row in store.rows(part)]
  num_bad = len(read_bad_files(folder))
  height, width = description.image_size_hw
  labels = [row.labels for row in rows]
  tracks = Counter(label.track for label in labels if label.track is not None)
  lines = {
    'built by': f'step {description.step} of {description.run}, networks {description.networks[:12]}',
    'images': f'{len(rows):,}, resized to {height}x{width}',
    'not embedded yet': f'{description.num_pending:,}' if description.num_pending else '',
    'embeddings': f'{description.size} numbers in {description.num_pieces} pieces, {len(description.parts)} files',
    'identities': _counted({label.identity for label in labels}, description.identity_pattern),
    'cameras': _counted({label.camera for label in labels}, description.camera_pattern),
    'tracks': f'{len(tracks):,} of {tracks.total():,} images ({description.tracks})' if description.tracks else '',
    'left out': f'{num_bad:,} images: {folder / BAD_FILES}' if num_bad else '',
  }
  text = [f'{name + ":":<18}{printable(value)}' for name, value in lines.items() if value]
  for root, count in sorted(Counter(row.photo.root for row in rows).items()):
    text.append(f'{"folder:":<18}{printable(root)}, {count:,} images')
  return '\n'.join(text)


def _counted(names: set[str | None], pattern: str) -> str:
  return f'{len(names - {None}):,}, by the pattern {pattern}' if pattern else ''
