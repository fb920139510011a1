"""The two designs of the generator, as plain functions of their parameters.

Both make an image from a structure code and an appearance code, which are pytrees. To other packages they are opaque:
leaves have the same leading axes, and only the generator that made them knows the rest.
"""

import dataclasses
import functools
from typing import Any, Protocol, cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.edges import to_edges
from dgnet_jax.models.fetching import Donors, Fetch, Fetched
from dgnet_jax.models.initialization import initial_variables
from dgnet_jax.models.refinement import Refined, Refinement
from dgnet_jax.models.relighting import Relighting
from dgnet_jax.models.shape_encoder import Shape, ShapeEncoder, original_colours, recoloured
from dgnet_jax.models.structure_encoder import StructureEncoder, to_gray
from dgnet_jax.types import Array, Params, at_least_float32

Codes = Any  # a structure or appearance code
# Of the correspondence generator's mask.
MASK_SHARPNESS = 3.0  # factor of its logits
MASK_NOISE = 0.5  # factor of the logistic noise on them in training, which drives the mask to 0 or 1


class Generator(Protocol):
  """A design of the generator. Images are f[N, H, W, 3], normalized; all leaves of a code have the leading axis N.

  Attributes:
    fetches: True if the generator looks at the donor's image, so that structure codes of donors are needed, too.
  """

  @property
  def fetches(self) -> bool: ...

  def init(self, key: Array, image_size_hw: tuple[int, int], code_size: int) -> Params:
    """Initializes the parameters, for appearance codes of the re-id network f[N, code_size]."""
    ...

  def encode_structure(self, params: Params, image: Array, key: Array | None) -> Codes:
    """Encodes the structure of images; as `Networks.encode_structure`."""
    ...

  def encode_appearance(self, structure_code: Codes, appearance: Array) -> Codes:
    """Makes the generator's appearance code of images from their structure code and the re-id network's f[N, F]."""
    ...

  def join_donors(self, codes: Codes, weight: Array, *, compete: bool) -> Codes:
    """Makes one appearance code of several; as `Networks.join_donors`."""
    ...

  def comparable(self, structure_code: Codes) -> Array:
    """The part f[N, ...] of a structure code that must be the same for the same structure in other clothes."""
    ...

  def leading_shape(self, structure_code: Codes) -> tuple[int, ...]:
    """The leading axes of a structure code."""
    ...

  def decode(self, params: Params, structure_code: Codes, appearance_code: Codes) -> Array:
    """Generates images f[N, H, W, 3]."""
    ...


def _apply(module: nn.Module, params: Params, *inputs: Any) -> Any:
  return module.apply({'params': params}, *inputs)


@dataclasses.dataclass(frozen=True)
class AdainGenerator:
  """The release's generator: a structure map, and AdaIN parameters from the appearance code.

  Parameters are {'structure_encoder', 'decoder'}. A structure code is f[N, h, w, C], an appearance code that of the
  re-id network, f[N, F].

  Attributes:
    structure_encoder: gray image or edges -> structure code.
    decoder: structure code and appearance code -> image.
    structure_input: gray or edge.
    edge_noise: standard deviation of the noise on edges in training.
  """

  structure_encoder: StructureEncoder
  decoder: Decoder
  structure_input: str = 'gray'
  edge_noise: float = 0.0
  fetches = False

  def init(self, key: Array, image_size_hw: tuple[int, int], code_size: int) -> Params:
    encoder_key, decoder_key = jax.random.split(key)
    gray = jnp.zeros((1, *image_size_hw, 1))
    encoder = initial_variables(self.structure_encoder, encoder_key, gray)['params']
    code = jax.eval_shape(self.structure_encoder.apply, {'params': encoder}, gray)
    appearance = jnp.zeros((1, code_size))
    decoder = initial_variables(self.decoder, decoder_key, jnp.zeros(code.shape), appearance)['params']
    return {'structure_encoder': encoder, 'decoder': decoder}

  def encode_structure(self, params: Params, image: Array, key: Array | None) -> Array:
    if self.structure_input == 'gray':
      encoder_input = to_gray(image)
    else:
      encoder_input = to_edges(image)
      if key is not None:
        encoder_input += self.edge_noise * jax.random.normal(key, encoder_input.shape, encoder_input.dtype)
    return cast(Array, _apply(self.structure_encoder, params['structure_encoder'], encoder_input))

  def encode_appearance(self, structure_code: Codes, appearance: Array) -> Array:
    return appearance

  def join_donors(self, codes: Array, weight: Array, *, compete: bool) -> Array:
    return (codes * weight[..., None]).sum(-2) / weight.sum(-1, keepdims=True)

  def comparable(self, structure_code: Array) -> Array:
    return structure_code

  def leading_shape(self, structure_code: Array) -> tuple[int, ...]:
    return structure_code.shape[:-3]

  def decode(self, params: Params, structure_code: Array, appearance_code: Array) -> Array:
    return cast(Array, _apply(self.decoder, params['decoder'], structure_code, appearance_code))


@flax.struct.dataclass
class StructureCode:
  """Structure code of the correspondence generator.

  Attributes:
    shape: what is where; its mask holds logits.
    image: f[N, H, W, 3], the structure image, for the background.
  """

  shape: Shape
  image: Array


@flax.struct.dataclass
class AppearanceCode:
  """Appearance code of the correspondence generator.

  Attributes:
    donors: S images of each person, with their descriptors.
    style: f[N, S, F], the re-id network's codes of these images.
  """

  donors: Donors
  style: Array


@flax.struct.dataclass
class Trace:
  """Where the pixels of N images come from.

  Attributes:
    image: f[N, H, W, 3], the result.
    mask: f[N, H, W, 1] in [0, 1], the part that was generated; the rest is the structure image.
    place: f[N, S, H, W, 2], where each pixel was fetched in each of S donors, (row, column) in pixels.
    fetched: f[N, H, W, 3], the donor's pixels from there, in the light of the structure image.
    trust: f[N, H, W, 1] in [0, 1], share of the fetched pixels in what was generated.
  """

  image: Array
  mask: Array
  place: Array
  fetched: Array
  trust: Array


@dataclasses.dataclass(frozen=True)
class CorrespondenceGenerator:
  """Fetches the donor's pixels. Parameters are {'shape_encoder', 'relighting', 'fetch', 'refinement'}."""

  shape_encoder: ShapeEncoder
  relighting: Relighting
  fetch: Fetch
  refinement: Refinement
  fetches = True

  def init(self, key: Array, image_size_hw: tuple[int, int], code_size: int) -> Params:
    keys = jax.random.split(key, 4)
    image = jnp.zeros((1, *image_size_hw, 3))
    encoder = initial_variables(self.shape_encoder, keys[0], image)['params']

    def codes(encoder: Params) -> tuple[StructureCode, AppearanceCode]:
      structure = self.encode_structure({'shape_encoder': encoder}, image, None)
      return structure, self.encode_appearance(structure, jnp.zeros((1, code_size)))

    structure, appearance = jax.eval_shape(codes, encoder)
    zeros = functools.partial(jax.tree.map, lambda x: jnp.zeros(x.shape, x.dtype))
    structure, appearance = zeros(structure), zeros(appearance)
    fetch = initial_variables(self.fetch, keys[1], structure.shape, appearance.donors)['params']
    fetched = zeros(jax.eval_shape(functools.partial(_apply, self.fetch), fetch, structure.shape, appearance.donors))
    inputs = structure.shape, structure.shape.mask, image, appearance.donors, fetched, jnp.zeros((1, code_size))
    refinement = initial_variables(self.refinement, keys[2], *inputs)['params']
    relighting = initial_variables(self.relighting, keys[3], image, appearance.donors.image)['params']
    return {'shape_encoder': encoder, 'relighting': relighting, 'fetch': fetch, 'refinement': refinement}

  def encode_structure(self, params: Params, image: Array, key: Array | None) -> StructureCode:
    if key is None:
      return StructureCode(_apply(self.shape_encoder, params['shape_encoder'], original_colours(image)), image)
    colour_key, noise_key = jax.random.split(key)
    shape = _apply(self.shape_encoder, params['shape_encoder'], recoloured(image, colour_key))
    noise = jax.random.logistic(noise_key, shape.mask.shape, shape.mask.dtype)
    return StructureCode(shape.replace(mask=shape.mask + MASK_NOISE * noise), image)

  def encode_appearance(self, structure_code: StructureCode, appearance: Array) -> AppearanceCode:
    # `len` would fail for the symbolic batch size of an exported program.
    shape, count, dtype = structure_code.shape, appearance.shape[0], at_least_float32(appearance).dtype
    donors = Donors(
      image=structure_code.image[:, None],
      descriptors=shape.descriptors[:, None],
      fine=tuple(x[:, None] for x in shape.fine),
      weight=jnp.ones((count, 1), dtype),
      competition=jnp.ones((count,), dtype),
    )
    return AppearanceCode(donors, appearance[:, None])

  def join_donors(self, codes: AppearanceCode, weight: Array, *, compete: bool) -> AppearanceCode:
    def joined(x: Array) -> Array:
      return x.reshape(*weight.shape[:-1], -1, *x.shape[weight.ndim + 1 :])

    donors = codes.donors
    shares = joined(donors.weight * weight[..., None])
    competition = jnp.full(weight.shape[:-1], float(compete), weight.dtype)
    joined_donors = Donors(
      joined(donors.image), joined(donors.descriptors), tuple(map(joined, donors.fine)), shares, competition
    )
    return AppearanceCode(joined_donors, joined(codes.style))

  def comparable(self, structure_code: StructureCode) -> Array:
    return structure_code.shape.descriptors

  def leading_shape(self, structure_code: StructureCode) -> tuple[int, ...]:
    return structure_code.image.shape[:-3]

  def mask(self, structure_code: StructureCode) -> Array:
    """The part to be generated, f[..., H, W, 1] in [0, 1]."""
    return jax.nn.sigmoid(MASK_SHARPNESS * structure_code.shape.mask).astype(structure_code.image.dtype)

  def relit(self, params: Params, structure_code: StructureCode, appearance_code: AppearanceCode) -> AppearanceCode:
    """Shows the donors in the light of the structures."""
    # What the structure wears must not colour the donor, nor should the mask learn to let it.
    background = structure_code.image * (1 - jax.lax.stop_gradient(self.mask(structure_code)))
    donors = appearance_code.donors
    image = _apply(self.relighting, params['relighting'], background, donors.image)
    return AppearanceCode(dataclasses.replace(donors, image=image), appearance_code.style)

  def fetched(self, params: Params, structure_code: StructureCode, appearance_code: AppearanceCode) -> Fetched:
    """Fetches the donors' pixels for N structures."""
    return cast(Fetched, _apply(self.fetch, params['fetch'], structure_code.shape, appearance_code.donors))

  def refined(
    self, params: Params, structure_code: StructureCode, appearance_code: AppearanceCode, fetched: Fetched
  ) -> Refined:
    """Makes N images of what was fetched for them."""
    donors = appearance_code.donors
    total = donors.weight.sum(-1, keepdims=True)  # 0 in the rows that fill up a batch
    weight = donors.weight / jnp.where(total > 0, total, 1)
    style = (appearance_code.style * weight[..., None]).sum(-2)
    return cast(
      Refined,
      _apply(
        self.refinement,
        params['refinement'],
        structure_code.shape,
        self.mask(structure_code),
        structure_code.image,
        donors,
        fetched,
        style,
      ),
    )

  def decode(self, params: Params, structure_code: StructureCode, appearance_code: AppearanceCode) -> Array:
    return self.trace(params, structure_code, appearance_code).image

  def trace(self, params: Params, structure_code: StructureCode, appearance_code: AppearanceCode) -> Trace:
    """Like `decode`, with where the pixels come from."""
    appearance_code = self.relit(params, structure_code, appearance_code)
    fetched = self.fetched(params, structure_code, appearance_code)
    refined = self.refined(params, structure_code, appearance_code, fetched)
    return Trace(refined.image, self.mask(structure_code), fetched.place, fetched.pixels, refined.trust)
