"""The built-in pedestrians as a data set in Market-1501's layout."""

from collections.abc import Mapping, Sequence
import logging
import os
import pathlib
import re
import shutil
import time
from typing import Any
import uuid

import numpy as np
from PIL import Image

from dgnet_jax.config.data_schema import SyntheticDataConfig
from dgnet_jax.data.index import summarize
from dgnet_jax.data.synthetic.manifest import FORMAT, MANIFEST, ImageDescription, read_manifest, write_manifest
from dgnet_jax.data.synthetic.people import (
  NUM_CAMERAS,
  Appearance,
  Body,
  Structure,
  hand_drawn,
  sample_junk_structure,
  sample_people,
  sample_structure,
)
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.errors import UserError
from dgnet_jax.utils.locks import LOCK_FILE, exclusive
from dgnet_jax.utils.progress import ProgressLog
from dgnet_jax.utils.text import shortened
from dgnet_jax.utils.writers import encoded

logger = logging.getLogger(__name__)

JPEG_QUALITY = 95
FOLDERS = ('bounding_box_train', 'query', 'bounding_box_test', 'gt_bbox')
SETTINGS = (
  'seed',
  'num_train_identities',
  'num_test_identities',
  'images_per_identity',
  'cameras_per_identity',
  'num_distractors',
  'num_junk',
  'image_size_hw',
)


class _Plan:
  """The images of a data set: a description for each path in Market-1501's layout."""

  def __init__(self) -> None:
    self.images: dict[str, ImageDescription] = {}
    self._frame = 0

  def next_frame(self) -> int:
    """Returns the frame number of a new moment."""
    self._frame += 25
    return self._frame

  def add(self, folder: str, identity: int, frame: int, box: int, image: ImageDescription) -> None:
    """Adds a file identity_camera-sequence_frame_box; box 00 is drawn by hand, others come from a detector."""
    person = f'{identity:04d}' if identity >= 0 else str(identity)
    sequence = 1 + frame // 25 % 3
    self.images[f'{folder}/{person}_c{image.structure.camera}s{sequence}_{frame:06d}_{box:02d}.jpg'] = image


def _sample_structures(rng: np.random.Generator, body: Body, count: int, cameras: Sequence[int]) -> list[Structure]:
  """Samples `count` images of one person, spread evenly over some of the cameras.

  Args:
    rng: random generator.
    body: body of the person.
    count: number of images.
    cameras: minimum and maximum number of cameras. It is lowered to one camera per two images, but not below two.
  """
  minimum, maximum = cameras
  num_cameras = min(int(rng.integers(minimum, maximum + 1)), max(2, count // 2))
  numbers = rng.permutation(np.arange(1, NUM_CAMERAS + 1))[:num_cameras]
  return [sample_structure(rng, int(numbers[index % num_cameras]), body) for index in range(count)]


def _add_test_person(plan: _Plan, identity: int, look: Appearance, structures: list[Structure]) -> None:
  """Adds one query per camera that also leaves an image in the gallery, and hand-drawn boxes of the query cameras."""
  cameras = [structure.camera for structure in structures]
  query_cameras = {camera for camera in cameras if cameras.count(camera) > 1} or {cameras[0]}
  queried: set[int] = set()
  for structure in structures:
    frame = plan.next_frame()
    neat = ImageDescription(look, hand_drawn(structure))
    if structure.camera in query_cameras:
      plan.add('gt_bbox', identity, frame, 0, neat)
    if structure.camera in query_cameras - queried:
      plan.add('query', identity, frame, 0, neat)
      queried.add(structure.camera)
    else:
      plan.add('bounding_box_test', identity, frame, 1, ImageDescription(look, structure))


def _plan_images(settings: Mapping[str, Any]) -> dict[str, ImageDescription]:
  """Returns the description of every file of a data set, a function of the settings."""

  def rng(*stream: int) -> np.random.Generator:
    return np.random.default_rng([settings['seed'], *stream])

  plan = _Plan()
  num_train = settings['num_train_identities']
  counts = settings['images_per_identity'], settings['cameras_per_identity']
  for index, (look, body) in enumerate(sample_people(rng(0), num_train)):
    for structure in _sample_structures(rng(1, index), body, *counts):
      plan.add('bounding_box_train', 1 + index, plan.next_frame(), 1, ImageDescription(look, structure))
  test_people = sample_people(rng(2), settings['num_test_identities'])
  for index, (look, body) in enumerate(test_people):
    _add_test_person(plan, 1 + num_train + index, look, _sample_structures(rng(3, index), body, *counts))
  distractors = sample_people(rng(4), settings['num_distractors'])
  for index, (look, body) in enumerate(distractors):
    structure = sample_structure(rng(5, index), 1 + index % NUM_CAMERAS, body)
    plan.add('bounding_box_test', 0, plan.next_frame(), 1, ImageDescription(look, structure))
  for index in range(settings['num_junk']):
    look, body = test_people[index % len(test_people)]
    structure = sample_junk_structure(rng(6, index), 1 + index % NUM_CAMERAS, body)
    plan.add('bounding_box_test', -1, plan.next_frame(), 1, ImageDescription(look, structure))
  return plan.images


def _is_finished(root: pathlib.Path, settings: Mapping[str, Any]) -> bool:
  """Returns True if `root` contains the data set of these settings, and False if it is missing or empty.

  Raises:
    UserError: it contains something else.
  """
  if root.exists() and not root.is_dir():
    raise UserError(f'{root}: is a file; name a folder for the built-in pedestrians, --config.data.root=FOLDER')
  if not root.exists() or not any(root.iterdir()):
    return False
  if not (root / MANIFEST).exists():
    raise UserError(
      f'{root}: contains other files than the built-in pedestrians; name another folder, --config.data.root=FOLDER'
    )
  manifest = read_manifest(root)
  stored = {'format': manifest['format'], **manifest['settings']}
  wanted = {'format': FORMAT, **settings}
  changes = [
    f'{shortened(name)} {shortened(str(stored.get(name)))} -> {wanted.get(name)}'
    for name in wanted | stored
    if stored.get(name) != wanted.get(name)
  ]
  if changes:
    raise UserError(
      f'{root}: pedestrians rendered with other settings ({summarize(changes)}); delete the folder {root} to render it '
      'again, or name another, --config.data.root=FOLDER'
    )
  return True


def _render_all(root: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Renders everything into the existing empty folder `root`; the manifest is written last."""
  images = _plan_images(settings)
  for folder in FOLDERS:
    (root / folder).mkdir()
  height, width = settings['image_size_hw']
  progress = ProgressLog(logger, 'rendering pedestrians', len(images), 'images')
  for done, (path, (look, structure)) in enumerate(images.items(), start=1):
    image = Image.fromarray(render(look, structure, (height, width)))
    (root / path).write_bytes(encoded(image, format='JPEG', quality=JPEG_QUALITY, subsampling=0))
    progress.update(done)
  write_manifest(root, settings, images)


def write_dataset(root: str | pathlib.Path, synthetic_config: SyntheticDataConfig) -> None:
  """Renders a data set of pedestrians with Market-1501's folders and file names, unless it exists already.

  Training and test people differ; half of all people have lookalikes. Every query has a match by another camera. The
  folder `root` appears only when it is complete. If another process is rendering it, waits for that.

  Args:
    root: folder to create, with its parents.
    synthetic_config: section `data.synthetic` of the config.

  Raises:
    UserError: `root` contains something else or a data set of other settings, or cannot be written.
  """
  root = pathlib.Path(os.path.abspath(root))
  settings = {name: getattr(synthetic_config, name) for name in SETTINGS}
  settings |= {name: list(settings[name]) for name in ('image_size_hw', 'cameras_per_identity')}  # as JSON has them
  if _is_finished(root, settings):
    return
  start = time.monotonic()
  try:
    root.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(root.with_name(f'.{root.name}{LOCK_FILE}'), str(root), wait=True) as locked:
      if _is_finished(root, settings):  # another process rendered it meanwhile
        return
      if locked:
        _remove_leftovers(root)
      _render_beside(root, settings)
  except OSError as error:
    raise UserError(f'{root}: cannot write the built-in pedestrians ({error})') from error
  logger.info(f'rendered pedestrians in {time.monotonic() - start:.0f}s: {root}')


def _remove_leftovers(root: pathlib.Path) -> None:
  """Removes the folders of killed processes; nobody else renders this data set now."""
  for partial in root.parent.iterdir():
    if re.fullmatch(rf'{re.escape(root.name)}\.[0-9a-f]{{8}}\.partial', partial.name):
      logger.info(f'removing {partial}, which a killed process left behind')
      shutil.rmtree(partial, ignore_errors=True)


def _render_beside(root: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Renders the data set into a temporary folder and renames it."""
  partial = root.with_name(f'{root.name}.{uuid.uuid4().hex[:8]}.partial')
  try:
    partial.mkdir()
    _render_all(partial, settings)
    try:
      os.rename(partial, root)  # also replaces an empty folder
    except OSError:
      # Without locks, another process may have finished the same data first.
      if not _is_finished(root, settings):
        raise
  finally:
    shutil.rmtree(partial, ignore_errors=True)
