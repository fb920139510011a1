"""Embeddings, activation maps and swaps of normalized images, as pure functions of parameters and images."""

import jax.numpy as jnp
import numpy as np

from dgnet_jax.models.generators import Codes, CorrespondenceGenerator, Trace
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import Array, Params


def embedding(networks: Networks, params: Params, batch_stats: Params, image: Array) -> Array:
  """Computes the re-id embedding [primary | fine-grained] of images, over both mirror views (release fact 41).

  In each view both halves are normalized; the views are added and the halves normalized again. Style normal has the
  primary half alone, style PCB one piece per part (the release's evaluation crashes there).

  Args:
    networks: their appearance encoder is used.
    params: parameters of the appearance encoder.
    batch_stats: its running statistics.
    image: f[..., H, W, 3], normalized.

  Returns:
    f[..., heads * D]; each head's piece has length 1.
  """
  views = _with_mirror(image)
  output = networks.encode_appearance(params, batch_stats, views)
  pieces = output.primary_feature  # to be [..., view, head, D]
  if output.fine_feature is None:
    pieces = pieces.reshape(*views.shape[:-3], -1, pieces.shape[-1])
  else:
    pieces = jnp.stack([pieces, output.fine_feature], axis=-2)
  return _unit(_unit(pieces).sum(axis=-3)).reshape(*image.shape[:-3], -1)


def teacher_embedding(teacher: TeacherNetwork, params: Params, batch_stats: Params, image: Array) -> Array:
  """Computes the teacher's embedding of images: one piece, mirror views as in `embedding`.

  Args:
    teacher: the network.
    params: parameters of the teacher.
    batch_stats: its running statistics.
    image: f[..., H, W, 3], normalized, at the generator's size.

  Returns:
    f[..., D] of length 1.
  """
  output, _ = teacher.apply(params, batch_stats, enlarge(_with_mirror(image), teacher.reid_scale))
  return _unit(_unit(output.feature).sum(axis=-2))


def activation(networks: Networks, params: Params, batch_stats: Params, image: Array) -> Array:
  """Measures how strongly the re-id backbone responds at each pixel: the norm of its last feature map over channels.

  It is the mean of both mirror views, which the embedding adds, too. In each view the cells of the map lie where their
  windows are centered, in a ResNet at multiples of the stride from the first pixel on. So the first cell sees a margin
  of zeros and the last does not: one view alone responds more to its right side, whatever it shows.

  Args:
    networks: their appearance encoder is used.
    params: parameters of the appearance encoder.
    batch_stats: its running statistics.
    image: f[..., H, W, 3], normalized.

  Returns:
    f32[..., H, W], at least 0; linear between the centers of cells, constant outside.
  """
  views = _with_mirror(image)
  norm = jnp.linalg.norm(networks.feature_map(params, batch_stats, views).astype(jnp.float32), axis=-1)
  rows, columns = (
    _between_cells(size, num_cells, networks.reid_scale, networks.reid_cells)
    for size, num_cells in zip(image.shape[-3:-1], norm.shape[-2:], strict=True)
  )
  maps = jnp.einsum('yh,...hw,xw->...yx', rows, norm, columns, precision='highest')
  return (maps[..., 0, :, :] + maps[..., 1, :, ::-1]) / 2


def _between_cells(size: int, num_cells: int, scale: int, cells: tuple[int, int]) -> np.ndarray:
  """Returns the weight of each cell at each pixel, f32[size, num_cells], for linear interpolation along an axis.

  Args:
    size: number of pixels.
    num_cells: number of cells.
    scale: pixels of the network's input for each pixel.
    cells: as in `Networks.reid_cells`.
  """
  center = (np.arange(size) + 0.5) * scale - 0.5  # of a pixel, in the network's input
  stride, first = cells
  place = np.clip((center - first) / stride, 0, num_cells - 1)[:, None]
  weight: np.ndarray = np.maximum(1 - np.abs(place - np.arange(num_cells)), 0).astype(np.float32)
  return weight


def encode_donor(
  networks: Networks, generator_params: Params | None, reid_params: Params, reid_stats: Params, image: Array
) -> Codes:
  """Encodes the appearance of images f[..., H, W, 3] as the generator decodes it, with leading axes `...`."""
  appearance = networks.encode_appearance(reid_params, reid_stats, image).code
  return networks.appearance_code(generator_params, image, appearance)


def swap(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  structure_from: Array,
  appearance_from: Array,
) -> Array:
  """Generates people with the structure of one image and the appearance of another.

  Args:
    networks: from `make_networks`.
    generator_params: parameters of the generator.
    reid_params: parameters of the appearance encoder.
    reid_stats: its running statistics.
    structure_from: f[..., H, W, 3], normalized; gives pose, position and background.
    appearance_from: f[..., H, W, 3], normalized, same shape; gives the clothes.

  Returns:
    f[..., H, W, 3], normalized but not clipped.
  """
  structure_code = networks.encode_structure(generator_params, structure_from)
  appearance_code = encode_donor(networks, generator_params, reid_params, reid_stats, appearance_from)
  return networks.decode(generator_params, structure_code, appearance_code)


def swap_several(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  structure_from: Array,
  appearance_from: Array,
) -> Array:
  """Like `swap`, with the clothes that several images of one person show.

  Args:
    networks: from `make_networks`.
    generator_params: parameters of the generator.
    reid_params: parameters of the appearance encoder.
    reid_stats: its running statistics.
    structure_from: f[..., H, W, 3], normalized.
    appearance_from: f[..., S, H, W, 3], normalized: S images of each appearance donor.

  Returns:
    f[..., H, W, 3], normalized but not clipped.
  """
  structure_code = networks.encode_structure(generator_params, structure_from)
  codes = encode_donor(networks, generator_params, reid_params, reid_stats, appearance_from)
  shares = jnp.full(appearance_from.shape[:-3], 1 / appearance_from.shape[-4], jnp.float32)
  return networks.decode(generator_params, structure_code, networks.join_donors(codes, shares, compete=True))


def trace(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  structure_from: Array,
  appearance_from: Array,
) -> Trace:
  """Like `swap`, with where the pixels come from; design correspondence only.

  Args:
    networks: from `make_networks`.
    generator_params: parameters of the generator.
    reid_params: parameters of the appearance encoder.
    reid_stats: its running statistics.
    structure_from: f[N, H, W, 3], normalized.
    appearance_from: f[N, H, W, 3], normalized.

  Returns:
    The images and their origin, with leading axis N and one donor each.

  Raises:
    ValueError: the generator has another design.
  """
  generator = networks.generator
  if not isinstance(generator, CorrespondenceGenerator):
    raise ValueError(f'{type(generator).__name__} fetches no pixels')
  structure_code = networks.encode_structure(generator_params, structure_from)
  appearance_code = encode_donor(networks, generator_params, reid_params, reid_stats, appearance_from)
  return generator.trace(generator_params, structure_code, appearance_code)


def _unit(x: Array) -> Array:
  """Scales vectors along the last axis to length 1; a zero vector stays zero."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  length = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.where(length > 0, length, 1)


def _with_mirror(image: Array) -> Array:
  """Stacks each image and its horizontal mirror: f[..., 2, H, W, 3]."""
  return jnp.stack([image, image[..., ::-1, :]], axis=-4)
