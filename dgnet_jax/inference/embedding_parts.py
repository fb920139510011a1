"""Embeddings of many images as a folder of Parquet files: memory is bounded by one of them, a job that was stopped goes
on with the next, and several jobs can share the work.
"""

from collections.abc import Callable, Sequence
import dataclasses
import hashlib
import logging
import os
import pathlib
from typing import Any

import numpy as np

from dgnet_jax.data.image_lists import ImageList, as_image_list
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.utils.atomic_files import remove_leftovers, write_json
from dgnet_jax.utils.parquet_parts import PLAN_FILE, changes_of_plan, part_files
from dgnet_jax.utils.progress import Progress
from dgnet_jax.utils.writers import save_embeddings

logger = logging.getLogger(__name__)

ROWS = 10_000  # images in a file: 41 MB with 1,024 numbers each


@dataclasses.dataclass(frozen=True)
class EmbeddingParts:
  """A folder with the embeddings of N images.

  Attributes:
    folder: created if missing.
    paths: the N images, in the order of the rows.
    shares: f32[P], as in `save_embeddings`.
    networks: digest of the parameters that embed.
    rows: images in a file.
  """

  folder: pathlib.Path
  paths: Sequence[str]
  shares: np.ndarray
  networks: str
  rows: int = ROWS

  @property
  def files(self) -> list[pathlib.Path]:
    """The files, in order; those that exist are complete."""
    return part_files(self.folder, len(self.paths), self.rows)

  def write(self, embed: Callable[[ImageList], np.ndarray], *, share: tuple[int, int] = (0, 1)) -> None:
    """Writes the files that do not exist yet.

    Args:
      embed: maps images to f32[n, D].
      share: (i, n) writes only every n-th file, from the i-th on, for n jobs at a time.

    Raises:
      UserError: the folder holds embeddings of other images or by other networks, there are too many images, or some of
        them cannot be read; all images that are still to be embedded are read first.
      Interrupted: SIGINT or SIGTERM was received; the current file is complete.
    """
    files = self.files
    self._check_plan()
    wanted = range(share[0], len(files), share[1])
    missing = [i for i in wanted if not files[i].exists()]
    logger.info(f'{len(self.paths)} images in {len(files)} files: {len(wanted) - len(missing)} of {len(wanted)} exist')
    parts = [self.paths[i * self.rows : (i + 1) * self.rows] for i in missing]
    if parts:
      as_image_list([path for part in parts for path in part])
    progress = Progress(sum(map(len, parts)), unit='images')
    num_done = 0
    with stop_signals() as stopped:
      for i, part in zip(missing, parts, strict=True):
        embeddings = embed(ImageList(part))
        save_embeddings(files[i], part, embeddings, self.shares)
        num_done += len(part)
        logger.info(f'{files[i]}: {progress.line(num_done)}')
        if stopped() and i != missing[-1]:
          raise Interrupted(f'stopped after {files[i]}. Run the same command to go on.')
    if all(file.exists() for file in files):
      remove_leftovers(self.folder)
      logger.info(f'{len(self.paths)} embeddings: {self.folder}')
    else:
      logger.info(f'{self.folder}: the files of other shares are missing')

  def _check_plan(self) -> None:
    """Writes the plan of a new folder; raises UserError if the folder has another one."""
    plan = self._plan()
    changed = changes_of_plan(self.folder, plan)
    if changed is None:
      if self.folder.is_dir() and any(self.folder.glob('*.parquet')):
        raise UserError(f'{self.folder}: holds Parquet files of something else; choose another folder')
      write_json(self.folder / PLAN_FILE, plan)
    if changed:
      raise UserError(
        f'{self.folder}: holds other embeddings ({", ".join(changed)} changed); choose another folder, or move it away'
      )

  def _plan(self) -> dict[str, Any]:
    """Describes what is embedded by what, as JSON."""
    images = hashlib.sha256()
    for path in self.paths:
      images.update(f'{path}\n{_size(path)}\n'.encode(errors='surrogateescape'))
    return {
      'images': images.hexdigest(),
      'num_images': len(self.paths),
      'rows': self.rows,
      'networks': self.networks,
      'shares': [float(share) for share in self.shares],
    }


def _size(path: str) -> int:
  try:
    return os.stat(path).st_size
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
