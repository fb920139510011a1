"""Codes of many images and images of many codes, in padded batches of one size."""

from collections.abc import Iterator
import functools

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.data.lazy_images import Pixels
from dgnet_jax.inference.functions import in_batches
from dgnet_jax.models.build import Networks
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.types import Array, Params


@functools.partial(jax.jit, static_argnums=0)
def _structure_batch(networks: Networks, generator: Params, pixels: Array) -> Array:
  return networks.encode_structure(generator, normalize(pixels))


@functools.partial(jax.jit, static_argnums=0)
def _appearance_batch(networks: Networks, reid: Params, stats: Params, pixels: Array) -> Array:
  return networks.encode_appearance(reid, stats, normalize(pixels)).code


@functools.partial(jax.jit, static_argnums=0)
def _activation_batch(networks: Networks, reid: Params, stats: Params, pixels: Array) -> Array:
  return jnp.linalg.norm(networks.last_map(reid, stats, normalize(pixels)).astype(jnp.float32), axis=-1)


@functools.partial(jax.jit, static_argnums=0)
def _decode_batch(networks: Networks, generator: Params, structure_code: Array, appearance_code: Array) -> Array:
  return networks.decode(generator, structure_code, appearance_code)


def structure_codes(
  networks: Networks, generator: Params, images: Pixels, batch_size: int, mesh: jax.sharding.Mesh | None = None
) -> np.ndarray:
  """Structure codes f32[N, h, w, C] of u8[N > 0, H, W, 3] or files; arguments as of `inference.embed`."""
  function = functools.partial(_structure_batch, networks, generator)
  return np.concatenate(list(in_batches(function, [images], batch_size, mesh, 'embedding')))


def appearance_codes(
  networks: Networks,
  reid: Params,
  stats: Params,
  images: Pixels,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
  """Appearance codes f32[N, F]; arguments as of `inference.embed`."""
  function = functools.partial(_appearance_batch, networks, reid, stats)
  return np.concatenate(list(in_batches(function, [images], batch_size, mesh, 'embedding')))


def activation(
  networks: Networks,
  reid: Params,
  stats: Params,
  images: Pixels,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
  """How strongly the re-id backbone answers to each place: the length of its last map's vectors.

  Args: as of `inference.embed`.

  Returns:
    f32[N, h, w], at least 0.
  """
  function = functools.partial(_activation_batch, networks, reid, stats)
  return np.concatenate(list(in_batches(function, [images], batch_size, mesh, 'embedding')))


def decode(
  networks: Networks,
  generator: Params,
  structure_codes: Pixels,
  appearance_codes: Pixels,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
) -> Iterator[np.ndarray]:
  """Images of pairs of codes.

  Args:
    networks: from `make_networks`.
    generator: parameters; replicated over `mesh` if there is one.
    structure_codes: f32[N, h, w, C], or anything that is gone through slice by slice.
    appearance_codes: f32[N, F], likewise.
    batch_size: pairs at a time.
    mesh: devices to spread a batch over; None leaves it to jax.

  Yields:
    u8[n, H, W, 3], in order, N in all.
  """
  function = functools.partial(_decode_batch, networks, generator)
  for made in in_batches(function, [structure_codes, appearance_codes], batch_size, mesh, 'generating'):
    yield denormalize(made)
