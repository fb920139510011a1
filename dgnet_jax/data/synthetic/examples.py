"""Some built-in pedestrians as plain image files, to try a model on: people of no training set."""

import logging
import pathlib

import numpy as np
from PIL import Image

from dgnet_jax.data.synthetic.people import NUM_CAMERAS, sample_people, sample_structure
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_folder
from dgnet_jax.utils.paths import check_writable
from dgnet_jax.utils.user_cache import user_cache

logger = logging.getLogger(__name__)

SEED = 1_000_003  # data.synthetic.seed of these people, which no config has
NUM_PEOPLE = 12
IMAGES_PER_PERSON = 6  # one by each camera
SIZE_HW = (128, 64)  # pixels
CACHED = 'example_people'  # in the user's cache


def write_examples(folder: str | pathlib.Path) -> pathlib.Path:
  """Writes `NUM_PEOPLE` folders, person_01 and so on, with an image by each camera, camera_1.jpg and so on.

  It takes a second. The folder has the form of a split of the layout `folders`; half of the people have lookalikes.

  Args:
    folder: a folder to create.

  Raises:
    UserError: it exists, or cannot be written.
  """
  folder = check_writable(folder)
  if folder.exists():
    raise UserError(f'{folder} exists already; name another folder, or remove it')
  people = sample_people(np.random.default_rng([SEED, 0]), NUM_PEOPLE)
  with atomic_folder(folder) as temporary:
    for number, (look, body) in enumerate(people, 1):
      (temporary / f'person_{number:02d}').mkdir()
      rng = np.random.default_rng([SEED, 1, number])
      for camera in range(1, min(IMAGES_PER_PERSON, NUM_CAMERAS) + 1):
        image = Image.fromarray(render(look, sample_structure(rng, camera, body), SIZE_HW))
        image.save(temporary / f'person_{number:02d}' / f'camera_{camera}.jpg', quality=95, subsampling=0)
  logger.info(f'{NUM_PEOPLE} people, {IMAGES_PER_PERSON} images of each: {folder}')
  return folder


def example_images() -> pathlib.Path:
  """Returns a folder of `write_examples`, in the user's cache, which is written on first use."""
  folder = user_cache() / CACHED
  if not folder.is_dir():
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
      write_examples(folder)
    except UserError:
      if not folder.is_dir():  # another process was faster
        raise
  return folder
