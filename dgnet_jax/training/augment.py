"""Augmentation on the device: flip, padded crop and random erasing, as pure functions of pixels and a key."""

import jax
import jax.numpy as jnp

from dgnet_jax.config.data_schema import AugmentConfig
from dgnet_jax.models.warping import cell_centres, sample
from dgnet_jax.pixels import enlarge, normalize
from dgnet_jax.types import Array, MovedCopy, PairBatch, PixelBatch

# The release's random erasing (fact 39).
ERASED_AREA = (0.02, 0.4)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height over width
ERASING_TRIES = 100
# Moved copies.
SCALE = (0.8, 1.2)  # along each axis
SHIFT = 0.15  # at most, fraction of the height or width
SHEAR = 0.15  # at most, columns per row


def flip_and_crop(pixels: Array, key: Array, *, flip_prob: float, crop_padding: int) -> Array:
  """Flips images at random, pads them by replicating their edges and crops them at random to their size (fact 38).

  Args:
    pixels: [N, H, W, C] of any dtype.
    key: random key; the draws are independent for each image.
    flip_prob: probability of a horizontal flip.
    crop_padding: pixels of padding on each side.

  Returns:
    [N, H, W, C] of the same dtype.
  """
  count, height, width, _ = pixels.shape
  flip_key, row_key, column_key = jax.random.split(key, 3)
  flip = jax.random.bernoulli(flip_key, float(flip_prob), (count, 1))
  top = jax.random.randint(row_key, (count, 1), -crop_padding, crop_padding + 1)
  left = jax.random.randint(column_key, (count, 1), -crop_padding, crop_padding + 1)
  # Padding only clips the index of the pixel that is read, and a flip reverses it: two gathers do everything.
  row = jnp.clip(top + jnp.arange(height), 0, height - 1)
  column = jnp.clip(left + jnp.arange(width), 0, width - 1)
  column = jnp.where(flip, width - 1 - column, column)
  pixels = jnp.take_along_axis(pixels, row[:, :, None, None], axis=1)
  return jnp.take_along_axis(pixels, column[:, None, :, None], axis=2)


def _random_rectangles(key: Array, count: int, height: int, width: int) -> tuple[Array, ...]:
  """Draws the release's rectangles: (fits bool[N], top, left, rows, columns i32[N])."""
  area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
  tries = (count, ERASING_TRIES)
  area = jax.random.uniform(area_key, tries, jnp.float32, *ERASED_AREA) * (height * width)
  aspect = jax.random.uniform(aspect_key, tries, jnp.float32, *ERASED_ASPECT)
  rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  accepted = (rows < height) & (columns < width)
  # All tries are drawn at once; the first that fits is taken.
  first = jnp.argmax(accepted, axis=1, keepdims=True)
  fits, rows, columns = (jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (accepted, rows, columns))
  top = jax.random.randint(top_key, (count,), 0, jnp.maximum(height - rows, 0) + 1)
  left = jax.random.randint(left_key, (count,), 0, jnp.maximum(width - columns, 0) + 1)
  return fits, top, left, rows, columns


def random_erasing(images: Array, key: Array, prob: float) -> Array:
  """Sets a random rectangle of some images to 0.

  Reference: Zhong et al., arXiv 1708.04896, in the release's form (fact 39).

  Args:
    images: f[N, H, W, C], normalized, so that 0 is the mean color of ImageNet.
    key: random key; the draws are independent for each image.
    prob: probability that an image is changed.

  Returns:
    f[N, H, W, C].
  """
  if not prob:
    return images
  count, height, width, _ = images.shape
  chance_key, rectangle_key = jax.random.split(key)
  fits, top, left, rows, columns = _random_rectangles(rectangle_key, count, height, width)
  erased = fits & (jax.random.uniform(chance_key, (count,), jnp.float32) <= prob)
  row = jnp.arange(height) - top[:, None]
  column = jnp.arange(width) - left[:, None]
  in_rows = (row >= 0) & (row < rows[:, None]) & erased[:, None]
  in_columns = (column >= 0) & (column < columns[:, None])
  return jnp.where(in_rows[:, :, None, None] & in_columns[:, None, :, None], 0, images)


def _augmented(pixels: Array, key: Array, config: AugmentConfig) -> Array:
  """Flips, crops and normalizes images of any leading shape [B, ..., H, W, 3]."""
  flat = pixels.reshape(-1, *pixels.shape[-3:])
  flat = flip_and_crop(flat, key, flip_prob=config.flip_prob, crop_padding=config.crop_padding)
  normalized: Array = normalize(flat)
  return normalized.reshape(pixels.shape)


def _erased(images: Array, key: Array, prob: float, reid_scale: int) -> Array:
  """Enlarges images of any leading shape [B, ..., H, W, 3] by `reid_scale`, then erases."""
  enlarged = enlarge(images, reid_scale)
  return random_erasing(enlarged.reshape(-1, *enlarged.shape[-3:]), key, prob).reshape(enlarged.shape)


def augment_pairs(pixels: PixelBatch, key: Array, config: AugmentConfig, reid_scale: int) -> PairBatch:
  """Makes a training step's input from pixels; every image is augmented independently.

  Args:
    pixels: u8[B, 2, H, W, 3] images, positives and optionally the ground truth of cross images.
    key: random key of this step.
    config: probabilities and padding.
    reid_scale: enlargement of the re-id network's input.

  Returns:
    Normalized images f32. The erased ones are the same augmented images, enlarged and then erased.
  """
  geometry_key, erasing_key, cross_key = jax.random.split(key, 3)
  # [B, image and positive, 2 streams, H, W, 3]; the batch axis stays first, so it stays split over the devices.
  images = _augmented(jnp.stack([pixels.image, pixels.positive], axis=1), geometry_key, config)
  erased = _erased(images, erasing_key, config.random_erasing_prob, reid_scale)
  cross_ground_truth = pixels.cross_ground_truth
  if cross_ground_truth is not None:
    cross_ground_truth = _augmented(cross_ground_truth, cross_key, config)
  return PairBatch(
    image=images[:, 0],
    positive=images[:, 1],
    erased_image=erased[:, 0],
    erased_positive=erased[:, 1],
    identity=pixels.identity,
    cross_ground_truth=cross_ground_truth,
  )


def augment_singles(images: Array, key: Array, config: AugmentConfig, erasing_prob: float, reid_scale: int) -> Array:
  """Makes the teacher's input from single images.

  Args:
    images: u8[B, H, W, 3].
    key: random key of this step.
    config: flip_prob and crop_padding are read.
    erasing_prob: probability of random erasing.
    reid_scale: enlargement of the network's input.

  Returns:
    f32[B, rH, rW, 3], normalized.
  """
  geometry_key, erasing_key = jax.random.split(key)
  return _erased(_augmented(images, geometry_key, config), erasing_key, erasing_prob, reid_scale)


def moved_copies(image: Array, key: Array) -> MovedCopy:
  """Scales, shifts and shears images at random; where every pixel comes from is known.

  Nothing is mirrored: from the front, a person and the mirror image look the same, and the mean of both places that fit
  would be the middle of the body.

  Args:
    image: f[B, 2, H, W, 3].
    key: random key; the draws are independent for each image.

  Returns:
    The copies; beyond the edges of the original they repeat its outermost pixels.
  """
  *lead, height, width, channels = image.shape
  flat = image.reshape(-1, height, width, channels)
  count, size = len(flat), jnp.array([height, width], image.dtype)
  scale_key, shift_key, shear_key = jax.random.split(key, 3)
  scale = jax.random.uniform(scale_key, (count, 1, 1, 2), image.dtype, *SCALE)
  shift = jax.random.uniform(shift_key, (count, 1, 1, 2), image.dtype, -SHIFT, SHIFT) * size
  shear = jax.random.uniform(shear_key, (count, 1, 1), image.dtype, -SHEAR, SHEAR)
  centre = (size - 1) / 2
  offset = cell_centres(height, width, 1).astype(image.dtype) - centre
  columns = offset[..., 1] + shear * offset[..., 0]
  rows = jnp.broadcast_to(offset[..., 0], columns.shape)
  place = jnp.stack([rows, columns], axis=-1) * scale + shift + centre
  copies = sample(flat, place)
  return MovedCopy(copies.reshape(image.shape), place.reshape(*lead, height, width, 2))
