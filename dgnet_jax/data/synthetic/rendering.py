"""Renders one image of a built-in pedestrian."""

import numpy as np

from dgnet_jax.data.synthetic.cameras import CAMERAS, background, draw_occluder, expose
from dgnet_jax.data.synthetic.clothes import draw_person
from dgnet_jax.data.synthetic.people import NUM_CAMERAS, Appearance, Structure

SUPERSAMPLING = 3  # pixels drawn per pixel and axis


def render(appearance: Appearance, structure: Structure, image_size_hw: tuple[int, int] = (128, 64)) -> np.ndarray:
  """Renders an image, a pure function of its arguments.

  The ground truth of an appearance swap is `render(appearance of A, structure of B)`.

  Args:
    appearance: clothes and colours.
    structure: everything else: body, pose, position, camera, light, noise.
    image_size_hw: height and width, pixels. Lengths scale with the height; a smaller image looks like a larger one
      shrunk.

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
