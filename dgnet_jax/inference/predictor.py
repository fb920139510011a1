"""Applies trained networks to images: pixels in, pixels and embeddings out."""

from collections.abc import Iterator
import dataclasses
import functools
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.data.lazy_images import ImageSequence
from dgnet_jax.errors import UserError
from dgnet_jax.inference import functions
from dgnet_jax.inference.batching import BatchedFunction
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.teacher import TeacherNetwork
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.types import Array, Params, Teacher
from dgnet_jax.utils.xla_options import jit_network

Codes = Any  # structure or appearance codes: a pytree of f[N, ...]; only models/ knows what it holds


@functools.partial(jit_network, static_argnums=(0,))
def _embed(networks: Networks, reid: Params, reid_stats: Params, pixels: Array) -> Array:
  return functions.embedding(networks, reid, reid_stats, normalize(pixels))


@functools.partial(jit_network, static_argnums=(0,))
def _embed_teacher(network: TeacherNetwork, teacher: Teacher, pixels: Array) -> Array:
  return functions.teacher_embedding(network, teacher.params, teacher.batch_stats, normalize(pixels))


@functools.partial(jit_network, static_argnums=(0,))
def _activation(networks: Networks, reid: Params, reid_stats: Params, pixels: Array) -> Array:
  return functions.activation(networks, reid, reid_stats, normalize(pixels))


@functools.partial(jit_network, static_argnums=(0,))
def _encode_structure(networks: Networks, generator: Params, pixels: Array) -> Codes:
  return networks.encode_structure(generator, normalize(pixels))


@functools.partial(jit_network, static_argnums=(0,))
def _encode_appearance(
  networks: Networks, generator: Params | None, reid: Params, reid_stats: Params, pixels: Array
) -> Codes:
  return functions.encode_donor(networks, generator, reid, reid_stats, normalize(pixels))


@functools.partial(jit_network, static_argnums=(0,))
def _decode(networks: Networks, generator: Params, structure_codes: Codes, appearance_codes: Codes) -> Array:
  return denormalize(networks.decode(generator, structure_codes, appearance_codes))


@functools.partial(jit_network, static_argnums=(0,))
def _swap(
  networks: Networks, generator: Params, reid: Params, reid_stats: Params, structures: Array, appearances: Array
) -> Array:
  sources = {'structure_from': normalize(structures), 'appearance_from': normalize(appearances)}
  return denormalize(functions.swap(networks, generator, reid, reid_stats, **sources))


@functools.partial(jit_network, static_argnums=(0,))
def _swap_several(
  networks: Networks, generator: Params, reid: Params, reid_stats: Params, structures: Array, appearances: Array
) -> Array:
  sources = {'structure_from': normalize(structures), 'appearance_from': normalize(appearances)}
  return denormalize(functions.swap_several(networks, generator, reid, reid_stats, **sources))


@functools.partial(jit_network, static_argnums=(0,))
def _trace(
  networks: Networks, generator: Params, reid: Params, reid_stats: Params, structures: Array, appearances: Array
) -> dict[str, Array]:
  sources = {'structure_from': normalize(structures), 'appearance_from': normalize(appearances)}
  trace = functions.trace(networks, generator, reid, reid_stats, **sources)
  images = {'image': denormalize(trace.image), 'fetched': denormalize(trace.fetched)}
  return images | {'mask': trace.mask[..., 0], 'trust': trace.trust[..., 0], 'place': trace.place[:, 0]}


@dataclasses.dataclass(frozen=True, eq=False)
class Predictor:
  """DG-Net's networks with trained parameters, applied to images of the networks' size.

  Images are u8[N, H, W, 3], N > 0, or read lazily (`ImageSequence`); results are NumPy arrays.

  Attributes:
    networks: from `make_networks`.
    generator: parameters of the generator; None after a run without a generator (joint=False).
    reid: parameters of the appearance encoder.
    reid_stats: its running statistics.
    mesh: the devices of this process; all of the above are on each of them.
    batch_size: images per call of a network.
    num_identities: number of training identities.
    step: training steps done when the parameters were saved.
  """

  networks: Networks
  generator: Params | None
  reid: Params
  reid_stats: Params
  mesh: jax.sharding.Mesh
  batch_size: int
  num_identities: int
  step: int

  def embed(self, images: ImageSequence, *, label: str = 'embedding') -> np.ndarray:
    """Embeds images as `functions.embedding` does.

    Args:
      images: u8[N, H, W, 3].
      label: names the work in progress lines.

    Returns:
      f32[N, D].
    """
    return np.concatenate(list(self.embed_batches(images, label=label)))

  def embed_batches(self, images: ImageSequence, *, label: str = 'embedding') -> Iterator[np.ndarray]:
    """Like `embed`, but yields f32[n, D] batch by batch, in order and in bounded memory."""
    return self._batched(_embed, self.reid, self.reid_stats).batches(images, label=label)

  def embedding_size(self, image_size_hw: tuple[int, int]) -> int:
    """Returns the numbers in the embedding of an image of this size, without computing one."""
    embed = functools.partial(functions.embedding, self.networks)
    return int(
      jax.eval_shape(embed, self.reid, self.reid_stats, np.zeros((1, *image_size_hw, 3), np.float32)).shape[-1]
    )

  def swap(
    self, *, structure_from: ImageSequence, appearance_from: ImageSequence, label: str = 'generating'
  ) -> np.ndarray:
    """Generates people with the structure of one image and the appearance of another.

    Args:
      structure_from: u8[N, H, W, 3]; give pose, position and background.
      appearance_from: u8[N, H, W, 3]; give the clothes.
      label: names the work in progress lines.

    Returns:
      u8[N, H, W, 3].

    Raises:
      UserError: the run has no generator; raised by every method that needs one.
    """
    batches = self.swap_batches(structure_from=structure_from, appearance_from=appearance_from, label=label)
    return np.concatenate(list(batches))

  def swap_batches(
    self, *, structure_from: ImageSequence, appearance_from: ImageSequence, label: str = 'generating'
  ) -> Iterator[np.ndarray]:
    """Like `swap`, but yields u8[n, H, W, 3] batch by batch, in order and in bounded memory."""
    function = self._batched(_swap, self.require_generator(), self.reid, self.reid_stats)
    return function.batches(structure_from, appearance_from, label=label)

  def swap_several(
    self, *, structure_from: ImageSequence, appearance_from: ImageSequence, label: str = 'generating'
  ) -> np.ndarray:
    """Like `swap`, with the clothes that several images of one person show.

    Args:
      structure_from: u8[N, H, W, 3].
      appearance_from: u8[N, S, H, W, 3], S images of each appearance donor.
      label: names the work in progress lines.

    Returns:
      u8[N, H, W, 3].
    """
    function = self._batched(_swap_several, self.require_generator(), self.reid, self.reid_stats)
    return np.asarray(function(structure_from, appearance_from, label=label))

  def trace(self, *, structure_from: ImageSequence, appearance_from: ImageSequence) -> dict[str, np.ndarray]:
    """Swaps as `swap` does, and says where the pixels come from; design correspondence only.

    Args:
      structure_from: u8[N, H, W, 3].
      appearance_from: u8[N, H, W, 3].

    Returns:
      image: u8[N, H, W, 3], the result. mask: f32[N, H, W] in [0, 1], the part that was generated. place: f32[N, H, W,
      2], where each pixel was fetched, (row, column) in pixels. fetched: u8[N, H, W, 3], the donors' pixels from there,
      in the light of the structure image. trust: f32[N, H, W] in [0, 1], their share in what was generated.

    Raises:
      UserError: the run has no generator, or one of another design.
    """
    if not self.networks.generator.fetches:
      raise UserError('only a generator of design correspondence fetches pixels; this run has generator.design=adain')
    function = self._batched(_trace, self.require_generator(), self.reid, self.reid_stats)
    result: dict[str, np.ndarray] = function(structure_from, appearance_from, label='tracing')
    return result

  def structure_codes(self, images: ImageSequence) -> Codes:
    """Encodes the structure of images: a pytree of f[N, ...]."""
    return self._batched(_encode_structure, self.require_generator())(images, label='encoding structures')

  def appearance_codes(self, images: ImageSequence) -> Codes:
    """Encodes the appearance of images: a pytree of f[N, ...]."""
    generator = self.require_generator() if self.networks.generator.fetches else None
    encode = self._batched(_encode_appearance, generator, self.reid, self.reid_stats)
    return encode(images, label='encoding appearances')

  def join_donors(self, codes: Codes, weight: np.ndarray, *, compete: bool) -> Codes:
    """Makes N appearance codes, each from the S codes of `codes`.

    Args:
      codes: from `appearance_codes`, of S images.
      weight: f32[N, S], the shares of the images, at least 0; their sum is above 0 for each N.
      compete: as in `Networks.join_donors`.

    Returns:
      Codes with the leading axis N.
    """
    repeated = jax.tree.map(lambda x: np.broadcast_to(x, (len(weight), *x.shape)), codes)
    joined = self.networks.join_donors(repeated, jnp.asarray(weight, jnp.float32), compete=compete)
    return jax.device_get(joined)

  def decode(self, structure_codes: Codes, appearance_codes: Codes) -> np.ndarray:
    """Generates images from codes.

    Args:
      structure_codes: as from `structure_codes`; the leaves may be read lazily (`ReorderedImages`).
      appearance_codes: as from `appearance_codes`, for the same number N of images.

    Returns:
      u8[N, H, W, 3].
    """
    decoded = self._batched(_decode, self.require_generator())(structure_codes, appearance_codes, label='generating')
    return np.asarray(decoded)

  def activation(self, images: ImageSequence) -> np.ndarray:
    """Computes the re-id backbone's activation at each pixel, as `functions.activation`: f32[N, H, W]."""
    return np.asarray(self._batched(_activation, self.reid, self.reid_stats)(images, label='activation'))

  def digest(self) -> str:
    """Returns the SHA-256 checksum of all parameters and statistics that it uses."""
    return _digest((self.generator, self.reid, self.reid_stats))

  def embedder_digest(self) -> str:
    """Returns the SHA-256 checksum of the parameters and statistics that embeddings depend on."""
    return _digest((self.reid, self.reid_stats))

  def require_generator(self) -> Params:
    """Returns `generator`.

    Raises:
      UserError: the run has none.
    """
    if self.generator is None:
      raise UserError('this run was trained with joint=False: it has no generator to generate images with')
    return self.generator

  def _batched(self, function: Any, *parameters: Params | None) -> BatchedFunction:
    bound = functools.partial(function, self.networks, *parameters)
    return BatchedFunction(bound, batch_size=self.batch_size, mesh=self.mesh)


def _digest(parameters: Any) -> str:
  digest = hashlib.sha256()
  for leaf in jax.tree.leaves(parameters):
    digest.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
  return digest.hexdigest()


@dataclasses.dataclass(frozen=True, eq=False)
class TeacherPredictor:
  """A trained teacher, applied to images of the generator's size.

  Attributes:
    network: from `make_teacher_network`.
    teacher: its parameters and running statistics.
    mesh: the devices of this process; the parameters are on each of them.
    batch_size: images per call of the network.
  """

  network: TeacherNetwork
  teacher: Teacher
  mesh: jax.sharding.Mesh
  batch_size: int

  def embed(self, images: ImageSequence, *, label: str = 'embedding by the teacher') -> np.ndarray:
    """Embeds u8[N, H, W, 3] as `functions.teacher_embedding` does: f32[N, D]."""
    return np.concatenate(list(self.embed_batches(images, label=label)))

  def embed_batches(self, images: ImageSequence, *, label: str = 'embedding by the teacher') -> Iterator[np.ndarray]:
    """Like `embed`, but yields f32[n, D] batch by batch, in order and in bounded memory."""
    function = functools.partial(_embed_teacher, self.network, self.teacher)
    return BatchedFunction(function, batch_size=self.batch_size, mesh=self.mesh).batches(images, label=label)
