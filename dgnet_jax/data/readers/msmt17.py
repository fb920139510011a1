"""MSMT17: lists of files and labels, which start at 0 in the training part and again in the test part."""

import logging
import os
import pathlib
import re

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import MAX_DIGITS, LabeledImage, summarize
from dgnet_jax.data.layouts import Layout
from dgnet_jax.data.readers.listing import ReadImages, first_folder
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_text
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)


LISTS = {
  'train': ('list_train.txt', 'list_val.txt'),
  'query': ('list_query.txt',),
  'gallery': ('list_gallery.txt',),
}
VALIDATION = 'list_val.txt'
MAX_LINE = 4096  # characters; longer paths cannot be opened


def _read_list(path: pathlib.Path) -> list[tuple[str, int]]:
  """Reads the lines 'relative/path.jpg label' of a list.

  Raises:
    UserError: it cannot be read, or a line has another form.
  """
  try:
    lines = read_text(path, errors='surrogateescape').splitlines()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  rows = []
  for number, line in enumerate(lines, 1):
    name, _, label = line.strip().rpartition(' ')
    is_label = label.isascii() and label.isdigit() and len(label) <= MAX_DIGITS
    if name and is_label and len(line) <= MAX_LINE and '\0' not in line:
      rows.append((name.strip(), int(label)))
    elif line.strip():
      raise UserError(f"{path}, line {number}: not 'relative/path.jpg label': {summarize([shortened(line)])}")
  return rows


def _images(layout: Layout, folder: pathlib.Path, path: pathlib.Path, part: str) -> list[LabeledImage]:
  """Reads the images of one list.

  Label 0 is an identity here, not a distractor, and label 0 of the test part is another identity than label 0 of the
  training part. So identities are named by part and label, and `make_index` numbers them from 1, train first.
  """
  rows = _read_list(path)
  names = [re.fullmatch(layout.file_name, os.path.basename(name), re.ASCII) for name, _ in rows]
  wrong = [name for (name, _), match in zip(rows, names, strict=True) if match is None]
  if wrong:
    raise UserError(f'{path}: {len(wrong)} of {len(rows)} names are not like {layout.example}: {summarize(wrong)}')
  return [
    LabeledImage(os.path.join(folder, name), f'{part} {label:04d}', str(int(match['camera'])))
    for (name, label), match in zip(rows, names, strict=True)
    if match is not None
  ]


def read(layout: Layout, root: pathlib.Path, data_config: DataConfig) -> ReadImages:
  """Reads the lists whose folder exists, without looking at any image.

  Raises:
    UserError: no list has its folder, a list is empty, or a line or name has another form.
  """
  images: dict[str, list[LabeledImage]] = {}
  variant = ''
  for split, names in LISTS.items():
    folder = first_folder(root, layout.folders[split])
    for name in names:
      path = root / name
      if not path.is_file():
        continue
      if folder is None:
        logger.warning(f'{path}: skipped because the folder {" or ".join(layout.folders[split])} does not exist')
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
  empty = [split for split, rows in images.items() if not rows]
  if empty:
    raise UserError(f'{root}: no images in the lists of {", ".join(empty)}')
  return ReadImages(images, root, variant)


def matches(layout: Layout, root: pathlib.Path) -> bool:
  """Returns True if a list and its folder exist."""
  return any(
    first_folder(root, layout.folders[split]) is not None and (root / name).is_file()
    for split, names in LISTS.items()
    for name in names
  )
