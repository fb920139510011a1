"""Verification of images before training, which remembers the images verified by earlier starts of the run."""

from collections.abc import Iterable, Mapping
import functools
import json
import logging
import os
import pathlib

from dgnet_jax.data.image_bytes import record_folder
from dgnet_jax.data.images import find_problems, raise_problems, verify_image
from dgnet_jax.utils.atomic_files import atomic_file

logger = logging.getLogger(__name__)

FORMAT = 1  # of the memory file; other formats are ignored

Stamp = list[int]  # size in bytes and modification time in nanoseconds


def _folder_stamp(folder: str) -> Stamp:
  """Returns the total size and the latest modification time of the files in `folder`."""
  with os.scandir(folder) as entries:
    stats = [entry.stat() for entry in entries]
  return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def _file_stamp(path: str) -> Stamp:
  stat = os.stat(path)
  return [stat.st_size, stat.st_mtime_ns]


def _load(memory: pathlib.Path) -> Mapping[str, Stamp]:
  """Reads the stamps of the images verified before; empty if the file is missing or damaged."""
  try:
    content = json.loads(memory.read_text(encoding='utf-8'))
    images = content['images'] if content['format'] == FORMAT else {}
  except (OSError, ValueError, TypeError, KeyError, RecursionError):
    return {}
  return images if isinstance(images, dict) else {}


def _save(memory: pathlib.Path, stamps: Mapping[str, Stamp]) -> None:
  try:
    with atomic_file(memory) as partial:
      partial.write_text(json.dumps({'format': FORMAT, 'images': stamps}), encoding='utf-8')
  except OSError as error:
    logger.warning(f'{memory}: cannot be written ({error.strerror}); the next start verifies all images again')


def verify_images(paths: Iterable[str], *, threads: int, memory: pathlib.Path) -> None:
  """Decodes every image that has not been verified before, so that damaged images are found before training starts.

  An image counts as verified if it was decoded at its current size and modification time; for a record those of the
  prepared data set's folder count. The memory is replaced by the stamps of `paths`, so it cannot grow without bound.

  Args:
    paths: paths of files, or addresses of records.
    threads: number of images decoded at a time.
    memory: the file that remembers verified images.

  Raises:
    UserError: images are missing, unreadable or truncated; lists the first few.
  """
  # Not normalised: 'link/../x' depends on where the link leads.
  paths = list(dict.fromkeys(os.path.join(os.getcwd(), path) for path in paths))
  known = _load(memory)
  stamps: dict[str, Stamp] = {}
  folder_stamp = functools.lru_cache(_folder_stamp)

  def verify(i: int) -> None:
    path = paths[i]
    folder = record_folder(path)
    try:
      # Before decoding: if the file changes meanwhile, the next start verifies it again.
      stamp = folder_stamp(folder) if folder else _file_stamp(path)
    except OSError:
      verify_image(path)  # names the cause
      return
    if known.get(path) != stamp:
      verify_image(path)
    stamps[path] = stamp

  problems = find_problems(verify, paths, threads=threads, action='checking')
  if any(known.get(path) != stamp for path, stamp in stamps.items()):
    _save(memory, stamps)
  raise_problems(list(problems.values()), len(paths))
