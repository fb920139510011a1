"""The built-in pedestrians: rendered people, as single images and as a data set in Market-1501's layout.

The true image of one person's clothes in another's pose exists here: `render(appearance of A, structure of B)`.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import json
import logging
import os
import pathlib
import shutil
import time
from typing import Any
import uuid

import numpy as np
from PIL import Image

from dgnet_jax.config.schema import SyntheticDataConfig
from dgnet_jax.data.synthetic.cameras import CAMERAS, background, draw_occluder, expose
from dgnet_jax.data.synthetic.clothes import draw_person
from dgnet_jax.data.synthetic.people import (
  NUM_CAMERAS,
  Appearance,
  Body,
  Structure,
  appearance_from_json,
  draw_junk_structure,
  draw_people,
  draw_structure,
  hand_drawn,
  structure_from_json,
)
from dgnet_jax.errors import UserError
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


__all__ = ['Appearance', 'Structure', 'image_truth', 'render', 'write_dataset']

Truth = tuple[Appearance, Structure]

SUPERSAMPLING = 3  # pixels drawn per pixel and axis
JPEG_QUALITY = 95
MANIFEST = 'truth.json'
FORMAT = 3  # of the manifest and the drawings: a folder of another format is not reused
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
PROGRESS_EVERY_SECONDS = 3.0


def render(appearance: Appearance, structure: Structure, image_size_hw: tuple[int, int] = (128, 64)) -> np.ndarray:
  """The image of a person. The same arguments give the same pixels.

  Args:
    appearance: clothes and colours.
    structure: everything else: body, pose, place, camera, light, noise.
    image_size_hw: pixels. Lengths scale with the height; a smaller size looks like a larger one shrunk.

  Returns:
    u8[H, W, 3], RGB.

  Raises:
    ValueError: the camera does not exist or the size is not positive.
  """
  height, width = image_size_hw
  if structure.camera not in CAMERAS or height < 1 or width < 1:
    raise ValueError(f'{structure.camera=} (1..{NUM_CAMERAS}) {image_size_hw=}')
  image = background(structure, (width * SUPERSAMPLING, height * SUPERSAMPLING))
  draw_person(image, appearance, structure, CAMERAS[structure.camera].light_side)
  draw_occluder(image, structure)
  return expose(image.reduce(SUPERSAMPLING), structure)


class _Plan:
  """Which images a data set has: paths in Market-1501's layout, each with its truth."""

  def __init__(self) -> None:
    self.images: dict[str, Truth] = {}
    self._frame = 0

  def frame(self) -> int:
    """The number of a new moment."""
    self._frame += 25
    return self._frame

  def add(self, folder: str, identity: int, frame: int, box: int, truth: Truth) -> None:
    """One file, named identity_camera-sequence_frame_box; box 00 is drawn by hand, others come from a detector."""
    person = f'{identity:04d}' if identity >= 0 else str(identity)
    camera = truth[1].camera
    sequence = 1 + frame // 25 % 3
    self.images[f'{folder}/{person}_c{camera}s{sequence}_{frame:06d}_{box:02d}.jpg'] = truth


def _draw_images(rng: np.random.Generator, body: Body, count: int, cameras: Sequence[int]) -> list[Structure]:
  """`count` images of one person, evenly by some of the cameras.

  Args:
    rng: draws everything.
    body: of the person.
    count: images.
    cameras: the fewest and the most. With few images there are fewer, two images by each, but always two cameras.
  """
  fewest, most = cameras
  num_cameras = min(int(rng.integers(fewest, most + 1)), max(2, count // 2))
  numbers = rng.permutation(np.arange(1, NUM_CAMERAS + 1))[:num_cameras]
  return [draw_structure(rng, int(numbers[index % num_cameras]), body) for index in range(count)]


def _add_test_person(plan: _Plan, identity: int, look: Appearance, images: list[Structure]) -> None:
  """A query per camera, of those that leave an image in the gallery; hand-drawn boxes of the queries' cameras."""
  cameras = [structure.camera for structure in images]
  asking = {camera for camera in cameras if cameras.count(camera) > 1} or {cameras[0]}
  asked: set[int] = set()
  for structure in images:
    frame = plan.frame()
    neat = hand_drawn(structure)
    if structure.camera in asking:
      plan.add('gt_bbox', identity, frame, 0, (look, neat))
    if structure.camera in asking - asked:
      plan.add('query', identity, frame, 0, (look, neat))
      asked.add(structure.camera)
    else:
      plan.add('bounding_box_test', identity, frame, 1, (look, structure))


def _plan_images(settings: Mapping[str, Any]) -> dict[str, Truth]:
  """Every file of a data set with its truth, a function of the settings."""

  def rng(*stream: int) -> np.random.Generator:
    return np.random.default_rng([settings['seed'], *stream])

  plan = _Plan()
  num_train = settings['num_train_identities']
  images = settings['images_per_identity'], settings['cameras_per_identity']
  for index, (look, body) in enumerate(draw_people(rng(0), num_train)):
    for structure in _draw_images(rng(1, index), body, *images):
      plan.add('bounding_box_train', 1 + index, plan.frame(), 1, (look, structure))
  test_people = draw_people(rng(2), settings['num_test_identities'])
  for index, (look, body) in enumerate(test_people):
    _add_test_person(plan, 1 + num_train + index, look, _draw_images(rng(3, index), body, *images))
  strangers = draw_people(rng(4), settings['num_distractors'])
  for index, (look, body) in enumerate(strangers):
    structure = draw_structure(rng(5, index), 1 + index % NUM_CAMERAS, body)
    plan.add('bounding_box_test', 0, plan.frame(), 1, (look, structure))
  for index in range(settings['num_junk']):
    look, body = test_people[index % len(test_people)]
    structure = draw_junk_structure(rng(6, index), 1 + index % NUM_CAMERAS, body)
    plan.add('bounding_box_test', -1, plan.frame(), 1, (look, structure))
  return plan.images


def _manifest_text(settings: Mapping[str, Any], images: Mapping[str, Truth]) -> str:
  """The manifest: settings, looks once each, and for every file its look and structure."""
  numbers = {look: index for index, look in enumerate(dict.fromkeys(look for look, _ in images.values()))}
  manifest = {
    'format': FORMAT,
    'settings': settings,
    'looks': [dataclasses.asdict(look) for look in numbers],
    'images': {
      path: {'look': numbers[look], 'structure': dataclasses.asdict(structure)}
      for path, (look, structure) in images.items()
    },
  }
  return json.dumps(manifest)


def _read_manifest(root: pathlib.Path) -> dict[str, Any]:
  """The manifest of a folder that `write_dataset` wrote."""
  path = root / MANIFEST
  try:
    manifest = json.loads(path.read_text())
  except FileNotFoundError as error:
    raise UserError(f'{root}: no built-in pedestrians here ({MANIFEST} is missing)') from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read ({error}); delete the folder {root} to render it anew') from error
  if not isinstance(manifest, dict) or not {'format', 'settings'} <= set(manifest):
    raise UserError(f'{path}: not a manifest of built-in pedestrians; delete the folder {root} to render it anew')
  return manifest


def _is_finished(root: pathlib.Path, settings: Mapping[str, Any]) -> bool:
  """Whether `root` holds this very data set; False if it is absent or empty.

  Raises:
    UserError: it holds something else.
  """
  if root.exists() and not root.is_dir():
    raise UserError(f'{root}: is a file; name a folder for the built-in pedestrians, --config.data.root=FOLDER')
  if not root.exists() or not any(root.iterdir()):
    return False
  advice = f'delete the folder {root} to render it anew, or name another, --config.data.root=FOLDER'
  if not (root / MANIFEST).exists():
    raise UserError(f'{root}: holds other files, and no built-in pedestrians; name another, --config.data.root=FOLDER')
  manifest = _read_manifest(root)
  stored = {'format': manifest['format'], **manifest['settings']}
  wanted = {'format': FORMAT, **settings}
  changes = [
    f'{name} {stored.get(name)} -> {wanted.get(name)}'
    for name in wanted | stored
    if stored.get(name) != wanted.get(name)
  ]
  if changes:
    raise UserError(f'{root}: pedestrians rendered with other settings ({", ".join(changes)}); {advice}')
  return True


def _write_images(root: pathlib.Path, settings: Mapping[str, Any]) -> None:
  """Renders everything into the existing empty folder `root`; the manifest comes last."""
  images = _plan_images(settings)
  for folder in FOLDERS:
    (root / folder).mkdir()
  height, width = settings['image_size_hw']
  progress = Progress(len(images), unit='images')
  last_line = time.monotonic()
  for count, (path, (look, structure)) in enumerate(images.items(), start=1):
    image = Image.fromarray(render(look, structure, (height, width)))
    image.save(root / path, quality=JPEG_QUALITY, subsampling=0)
    if time.monotonic() - last_line > PROGRESS_EVERY_SECONDS:
      last_line = time.monotonic()
      logger.info(f'rendering pedestrians {progress.line(count)}')
  (root / MANIFEST).write_text(_manifest_text(settings, images))


def write_dataset(root: str | pathlib.Path, synthetic_config: SyntheticDataConfig) -> None:
  """Renders a data set of pedestrians in Market-1501's folders and names; leaves a finished one alone.

  Train and test people differ; half of all people have near twins. Every query has a true match by another camera.
  Everything is written into a folder beside `root`, which takes the name `root` when complete.

  Args:
    root: folder to make; its parents are made too.
    synthetic_config: the section data.synthetic.

  Raises:
    UserError: `root` holds something else or a data set of other settings, or cannot be written.
  """
  root = pathlib.Path(root)
  settings = {name: getattr(synthetic_config, name) for name in SETTINGS}
  settings |= {name: list(settings[name]) for name in ('image_size_hw', 'cameras_per_identity')}
  if _is_finished(root, settings):
    return
  partial = root.with_name(f'{root.name}.{uuid.uuid4().hex[:8]}.partial')
  start = time.monotonic()
  try:
    partial.mkdir(parents=True)
    _write_images(partial, settings)
    try:
      os.rename(partial, root)  # also replaces an empty folder
    except OSError:
      # Another process may have been faster with the same data.
      if not _is_finished(root, settings):
        raise
  except OSError as error:
    raise UserError(f'{root}: cannot write the built-in pedestrians ({error})') from error
  finally:
    shutil.rmtree(partial, ignore_errors=True)
  logger.info(f'rendered pedestrians in {time.monotonic() - start:.0f}s: {root}')


def image_truth(root: str | pathlib.Path) -> Mapping[str, Truth]:
  """Who and what every image of a rendered data set shows.

  Args:
    root: folder that `write_dataset` made.

  Returns:
    From the path relative to `root`, with forward slashes, to (appearance, structure); `render` of these gives the
    stored image but for JPEG's error.

  Raises:
    UserError: there is no readable manifest.
  """
  root = pathlib.Path(root)
  manifest = _read_manifest(root)
  try:
    looks = [appearance_from_json(values) for values in manifest['looks']]
    return {
      path: (looks[image['look']], structure_from_json(image['structure']))
      for path, image in manifest['images'].items()
    }
  except (TypeError, KeyError, IndexError, AttributeError) as error:
    message = f'{root / MANIFEST}: does not fit this version ({error}); delete the folder {root} to render it anew'
    raise UserError(message) from error
