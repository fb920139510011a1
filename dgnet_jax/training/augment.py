"""Augmentation on the device: mirror, pad and crop, random erasing. Pure functions of pixels and a key."""

import jax
import jax.numpy as jnp

from dgnet_jax.config.schema import AugmentConfig
from dgnet_jax.pixels import enlarge, normalize
from dgnet_jax.types import Array, PairBatch, PixelBatch

# The release's random erasing (fact 39).
ERASED_AREA = (0.02, 0.4)  # fraction of the image
ERASED_ASPECT = (0.3, 1 / 0.3)  # height over width
ERASING_TRIES = 100


def flip_and_crop(pixels: Array, key: Array, *, flip_prob: float, crop_padding: int) -> Array:
  """Mirrors some images, pads each by its own edge and cuts a random window of the old size (fact 38).

  Args:
    pixels: [N, H, W, C] of any type.
    key: of the draws, which are independent for every image.
    flip_prob: chance of a horizontal mirror.
    crop_padding: pixels of edge replication on every side.

  Returns:
    [N, H, W, C] of the same type.
  """
  count, height, width, _ = pixels.shape
  flip_key, row_key, column_key = jax.random.split(key, 3)
  flip = jax.random.bernoulli(flip_key, float(flip_prob), (count, 1))
  top = jax.random.randint(row_key, (count, 1), -crop_padding, crop_padding + 1)
  left = jax.random.randint(column_key, (count, 1), -crop_padding, crop_padding + 1)
  # Edge padding is a bound on what a pixel looks up, and so is the mirror: two lookups make all three.
  row = jnp.clip(top + jnp.arange(height), 0, height - 1)
  column = jnp.clip(left + jnp.arange(width), 0, width - 1)
  column = jnp.where(flip, width - 1 - column, column)
  pixels = jnp.take_along_axis(pixels, row[:, :, None, None], axis=1)
  return jnp.take_along_axis(pixels, column[:, None, :, None], axis=2)


def _rectangles(key: Array, count: int, height: int, width: int) -> tuple[Array, Array, Array, Array, Array]:
  """What the release would erase: (found bool[N], top, left, rows, columns i32[N])."""
  area_key, aspect_key, top_key, left_key = jax.random.split(key, 4)
  tries = (count, ERASING_TRIES)
  area = jax.random.uniform(area_key, tries, jnp.float32, *ERASED_AREA) * (height * width)
  aspect = jax.random.uniform(aspect_key, tries, jnp.float32, *ERASED_ASPECT)
  rows = jnp.round(jnp.sqrt(area * aspect)).astype(jnp.int32)
  columns = jnp.round(jnp.sqrt(area / aspect)).astype(jnp.int32)
  accepted = (rows < height) & (columns < width)
  # All tries are drawn at once; the first that fits counts.
  first = jnp.argmax(accepted, axis=1, keepdims=True)
  found, rows, columns = (jnp.take_along_axis(x, first, axis=1)[:, 0] for x in (accepted, rows, columns))
  top = jax.random.randint(top_key, (count,), 0, jnp.maximum(height - rows, 0) + 1)
  left = jax.random.randint(left_key, (count,), 0, jnp.maximum(width - columns, 0) + 1)
  return found, top, left, rows, columns


def random_erasing(images: Array, key: Array, prob: float) -> Array:
  """Sets a random rectangle of some images to 0, as the release does (fact 39; Zhong et al., arXiv 1708.04896).

  Args:
    images: f[N, H, W, C], normalised, so that 0 is ImageNet's mean colour.
    key: of the draws, which are independent for every image.
    prob: chance that an image is touched.

  Returns:
    f[N, H, W, C].
  """
  if not prob:
    return images
  count, height, width, _ = images.shape
  chance_key, rectangle_key = jax.random.split(key)
  found, top, left, rows, columns = _rectangles(rectangle_key, count, height, width)
  touched = found & (jax.random.uniform(chance_key, (count,), jnp.float32) <= prob)
  row = jnp.arange(height) - top[:, None]
  column = jnp.arange(width) - left[:, None]
  in_rows = (row >= 0) & (row < rows[:, None]) & touched[:, None]
  in_columns = (column >= 0) & (column < columns[:, None])
  return jnp.where(in_rows[:, :, None, None] & in_columns[:, None, :, None], 0, images)


def augment_pairs(pixels: PixelBatch, key: Array, augment_config: AugmentConfig, reid_scale: int) -> PairBatch:
  """A step's input from a source's pixels; every image of every stream is drawn for itself.

  Args:
    pixels: u8[B, 2, H, W, 3] images, positives and, if there are any, true cross images.
    key: of this step.
    augment_config: `config.augment`.
    reid_scale: enlargement of what the re-id network sees.

  Returns:
    Normalised images f32; the erased ones are the same images, enlarged and then erased.
  """
  geometry_key, erasing_key = jax.random.split(key)
  # [B, image and positive, 2 streams, ...]; the batch axis stays first, so that it stays split over the devices.
  both = jnp.stack([pixels.image, pixels.positive], axis=1)
  flat = both.reshape(-1, *both.shape[3:])
  flat = flip_and_crop(flat, geometry_key, flip_prob=augment_config.flip_prob, crop_padding=augment_config.crop_padding)
  images = normalize(flat)
  erased = random_erasing(enlarge(images, reid_scale), erasing_key, augment_config.random_erasing_prob)
  images = images.reshape(both.shape)
  true_cross = pixels.true_cross
  if true_cross is not None:
    moved = flip_and_crop(
      true_cross.reshape(flat.shape[0] // 2, *flat.shape[1:]),
      jax.random.fold_in(geometry_key, 1),
      flip_prob=augment_config.flip_prob,
      crop_padding=augment_config.crop_padding,
    )
    true_cross = normalize(moved).reshape(true_cross.shape)
  erased = erased.reshape(*both.shape[:3], *erased.shape[1:])
  return PairBatch(
    image=images[:, 0],
    positive=images[:, 1],
    erased_image=erased[:, 0],
    erased_positive=erased[:, 1],
    identity=pixels.identity,
    true_cross=true_cross,
  )


def augment_singles(
  images: Array, key: Array, augment_config: AugmentConfig, erasing_prob: float, reid_scale: int
) -> Array:
  """A classifier's input from a source's single images.

  Args:
    images: u8[B, H, W, 3].
    key: of this step.
    augment_config: `config.augment`; flip_prob and crop_padding are read.
    erasing_prob: chance of random erasing.
    reid_scale: enlargement.

  Returns:
    f32[B, rH, rW, 3], normalised.
  """
  geometry_key, erasing_key = jax.random.split(key)
  moved = flip_and_crop(
    images, geometry_key, flip_prob=augment_config.flip_prob, crop_padding=augment_config.crop_padding
  )
  return random_erasing(enlarge(normalize(moved), reid_scale), erasing_key, erasing_prob)
