"""MSMT17: lists of files with labels that begin at 0, in the training and again in the test part."""

import logging
import os
import pathlib
import re

from dgnet_jax.config.schema import DataConfig
from dgnet_jax.data.index import Image, name_some
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import Found, first_folder
from dgnet_jax.errors import UserError

logger = logging.getLogger(__name__)


LISTS = {
  'train': ('list_train.txt', 'list_val.txt'),
  'query': ('list_query.txt',),
  'gallery': ('list_gallery.txt',),
}
VALIDATION = 'list_val.txt'


def _read_list(path: pathlib.Path) -> list[tuple[str, int]]:
  """Lines 'relative/path.jpg label' of a list.

  Raises:
    UserError: it cannot be read, or a line is of another form; names the line.
  """
  try:
    lines = path.read_text(encoding='utf-8', errors='surrogateescape').splitlines()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  found = []
  for number, line in enumerate(lines, 1):
    name, _, label = line.strip().rpartition(' ')
    if name and label.isascii() and label.isdigit():
      found.append((name.strip(), int(label)))
    elif line.strip():
      raise UserError(f"{path}, line {number}: not 'relative/path.jpg label': {name_some([line])}")
  return found


def _images(layout: Layout, folder: pathlib.Path, path: pathlib.Path, part: str) -> list[Image]:
  """The images of one list.

  Label 0 is a person here, not a distractor, and person 0 of the test part is another one than person 0 of the training
  part. So people are called by part and label, and `make_index` numbers them from 1, the training people first.
  """
  rows = _read_list(path)
  matches = [re.fullmatch(layout.file_name, os.path.basename(name), re.ASCII) for name, _ in rows]
  wrong = [name for (name, _), match in zip(rows, matches, strict=True) if match is None]
  if wrong:
    raise UserError(f'{path}: {len(wrong)} of {len(rows)} names are not like {layout.example}: {name_some(wrong)}')
  return [
    Image(os.path.join(folder, name), f'{part} {label:04d}', str(int(match['camera'])))
    for (name, label), match in zip(rows, matches, strict=True)
    if match is not None
  ]


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> Found:
  """Reads the lists whose folder is there; looks at no image.

  Raises:
    UserError: there is no list with its folder, a list is empty, or a line or name is of another form.
  """
  images: dict[str, list[Image]] = {}
  variant = ''
  for split, names in LISTS.items():
    folder = first_folder(root, layout.folders[split])
    for name in names:
      path = root / name
      if not path.is_file():
        continue
      if folder is None:
        logger.warning(f'{path}: skipped, there is no folder {" or ".join(layout.folders[split])}')
      elif name == VALIDATION and not data_config.train_with_val:
        variant = 'without list_val'
      else:
        part = 'train' if split == 'train' else 'test'
        images[split] = images.get(split, []) + _images(layout, folder, path, part)
  if not images:
    raise UserError(
      f'{root}: no list with its folder; {layout.title} has list_train.txt, list_val.txt with '
      f'{" or ".join(layout.folders["train"])}, and list_query.txt, list_gallery.txt with '
      f'{" or ".join(layout.folders["query"])}'
    )
  empty = [split for split, found in images.items() if not found]
  if empty:
    raise UserError(f'{root}: no images in the lists of {", ".join(empty)}')
  return Found(images, root, variant)


def recognise(layout: Layout, root: pathlib.Path) -> bool:
  """Whether a list and its folder are there."""
  return any(
    first_folder(root, layout.folders[split]) is not None and (root / name).is_file()
    for split, names in LISTS.items()
    for name in names
  )
