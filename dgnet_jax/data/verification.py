"""Verification of images before training, which remembers the images verified by earlier starts of the run."""

from collections.abc import Iterable, Mapping, Sequence
import concurrent.futures
import contextlib
import functools
import json
import logging
import os
import pathlib

from dgnet_jax.data.image_bytes import RecordAddress
from dgnet_jax.data.images import find_problems, raise_problems, verify_image
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.bounded_files import read_json

logger = logging.getLogger(__name__)

FORMAT = 1  # of the cache file; other formats are ignored

Stamp = list[int]  # size in bytes and modification time in nanoseconds


def _folder_stamp(folder: str) -> Stamp:
  """Returns the total size and the latest modification time of the files in `folder`."""
  with os.scandir(folder) as entries:
    stats = [entry.stat() for entry in entries]
  return [sum(stat.st_size for stat in stats), max((stat.st_mtime_ns for stat in stats), default=0)]


def _file_stamp(path: str) -> Stamp:
  stat = os.stat(path)
  return [stat.st_size, stat.st_mtime_ns]


def _stamps(paths: Sequence[str], threads: int) -> dict[str, Stamp]:
  """Returns the stamps of all images that exist; a record has that of its folder."""
  folder_stamp = functools.lru_cache(_folder_stamp)

  def stamps_of(part: Sequence[str]) -> dict[str, Stamp]:
    stamps = {}
    for path in part:
      with contextlib.suppress(OSError, ValueError):  # ValueError: a NUL in the path
        stamps[path] = folder_stamp(path.folder) if isinstance(path, RecordAddress) else _file_stamp(path)
    return stamps

  stamps: dict[str, Stamp] = {}
  with concurrent.futures.ThreadPoolExecutor(threads) as pool:  # for file systems on a network
    for part in pool.map(stamps_of, [paths[i::threads] for i in range(threads)]):
      stamps |= part
  return stamps


def _load(cache_file: pathlib.Path) -> Mapping[str, Stamp]:
  """Reads the stamps of the images verified before; empty if the file is missing or damaged."""
  try:
    content = read_json(cache_file)
    images = content['images'] if content['format'] == FORMAT else {}
  except (OSError, ValueError, TypeError, KeyError):
    return {}
  return images if isinstance(images, dict) else {}


def _save(cache_file: pathlib.Path, stamps: Mapping[str, Stamp]) -> None:
  try:
    with atomic_file(cache_file) as partial:
      partial.write_text(json.dumps({'format': FORMAT, 'images': stamps}), encoding='utf-8')
  except OSError as error:
    logger.warning(f'{cache_file}: cannot be written ({error.strerror}); the next start verifies all images again')


def verify_images(paths: Iterable[str], *, threads: int, cache_file: pathlib.Path) -> None:
  """Decodes every image that has not been verified before, so that damaged images are found before training starts.

  An image counts as verified if it was decoded at its current size and modification time; for a record those of the
  prepared data set's folder count. The file keeps only the stamps of `paths`, so it stays bounded.

  Args:
    paths: paths of files, or addresses of records.
    threads: number of images decoded at a time.
    cache_file: file of the stamps of verified images; created if missing, ignored if damaged.

  Raises:
    UserError: images are missing, unreadable or truncated; lists the first few.
  """
  # Not normalized: 'link/../x' depends on where the link leads.
  paths = list(dict.fromkeys(os.path.join(os.getcwd(), path) for path in paths))
  # Before decoding: if a file changes meanwhile, the next start verifies it again.
  stamps = _stamps(paths, threads)
  known = _load(cache_file)
  new = [path for path in paths if path not in stamps or known.get(path) != stamps[path]]
  problems = find_problems(lambda i: verify_image(new[i]), new, threads=threads, action='checking')
  for i in problems:
    stamps.pop(new[i], None)
  if new:
    _save(cache_file, stamps)
  raise_problems(list(problems.values()), len(paths))
