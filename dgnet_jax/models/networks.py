"""The networks of DG-Net as plain functions of their parameters.

Only `models` knows about Linen. To other packages, a network is a function from parameters and images, with any leading
axes, to arrays.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from dgnet_jax.config.backbones import num_channels
from dgnet_jax.models.appearance_encoder import AppearanceEncoder
from dgnet_jax.models.backbones import cells
from dgnet_jax.models.batch_norm import BatchNormMode
from dgnet_jax.models.discriminator import Critic, PatchDiscriminator
from dgnet_jax.models.generators import Codes, Generator
from dgnet_jax.models.initialization import initial_variables
from dgnet_jax.models.pooling import average_pool
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import AppearanceOutput, Array, Params


def _flatten(x: Array, num_inner: int) -> Array:
  """Joins all axes but the last `num_inner`."""
  return x.reshape(-1, *x.shape[-num_inner:])


def _apply(module: nn.Module, params: Params, *inputs: Array) -> Array:
  """Applies a network that has no BatchNorm and returns one array."""
  return cast(Array, module.apply({'params': params}, *inputs))


@dataclasses.dataclass(frozen=True)
class Networks:
  """The networks of DG-Net.

  Generator parameters are those of its design, discriminator parameters {'scale_0', 'scale_1', ...}, and re-id
  parameters {'backbone', 'primary_head', 'fine_head'} or the heads of another style, and 'pool' with pool gem. The
  re-id network's BatchNorm statistics have the same structure, without 'pool'.

  Attributes:
    discriminators: one per image scale, finest first.
    image_size_hw: height and width of the generator's images, pixels.
    reid_scale: the re-id network's input is this many times larger.
    batch_norm_group: number of images that share BatchNorm statistics; 0 means all of a call.
  """

  generator: Generator
  discriminators: tuple[PatchDiscriminator | Critic, ...]
  appearance_encoder: AppearanceEncoder
  image_size_hw: tuple[int, int]
  reid_scale: int
  batch_norm_group: int

  def init_generator(self, key: Array) -> Params:
    """Initializes the parameters of the generator."""
    return self.generator.init(key, self.image_size_hw, self.code_size)

  def init_discriminator(self, key: Array) -> Params:
    """Initializes the parameters of the discriminators."""
    image = jnp.zeros((1, *self.image_size_hw, 3))
    keys = jax.random.split(key, len(self.discriminators))
    return {f'scale_{i}': initial_variables(d, keys[i], image)['params'] for i, d in enumerate(self.discriminators)}

  def init_reid(self, key: Array) -> tuple[Params, Params]:
    """Initializes (params, batch_stats) of the appearance encoder."""
    height, width = self.image_size_hw
    image = jnp.zeros((1, height * self.reid_scale, width * self.reid_scale, 3))
    variables = initial_variables(self.appearance_encoder, key, image, mode=BatchNormMode(), deterministic=True)
    return variables['params'], variables['batch_stats']

  @property
  def num_identities(self) -> int:
    """Number of classes."""
    return self.appearance_encoder.num_identities

  def with_identities(self, num_identities: int) -> 'Networks':
    """Returns the same networks with classifiers of another size."""
    return dataclasses.replace(self, appearance_encoder=self.appearance_encoder.clone(num_identities=num_identities))

  def splitting_classifiers(self, mesh: Mesh) -> 'Networks':
    """Returns the same networks with the classifiers split over the axis 'model' of a mesh."""
    return dataclasses.replace(self, appearance_encoder=self.appearance_encoder.clone(split_over=mesh))

  @property
  def splits_classifiers(self) -> bool:
    """True if the classifiers, and so the logits, are split over devices."""
    return self.appearance_encoder.split_over is not None

  @property
  def trains_through_code(self) -> bool:
    """True if the generator's losses train the appearance encoder through its code (release fact 16)."""
    return self.appearance_encoder.style != 'AB' or not self.appearance_encoder.detach_code

  @property
  def scores_depend_on_batch(self) -> bool:
    """True if the discriminator's scores of an image depend on the other images of a call."""
    return any(isinstance(d, PatchDiscriminator) and d.norm == 'batch' for d in self.discriminators)

  @property
  def code_size(self) -> int:
    """Length of an appearance code."""
    reid = self.appearance_encoder
    return reid.num_parts * num_channels(reid.backbone, reid.stage_sizes, reid.width)

  @property
  def reid_cells(self) -> tuple[int, int]:
    """Pixels of the re-id network's input from one cell of `feature_map` to the next, and the pixel that cell 0 is
    centered at.
    """
    reid = self.appearance_encoder
    return cells(reid.backbone, reid.stage_sizes, reid.last_stride)

  def encode_structure(self, params: Params, image: Array, key: Array | None = None) -> Codes:
    """Encodes the structure of images.

    Args:
      params: parameters of the generator.
      image: f[..., H, W, 3], normalized.
      key: random key of the variations in training: noise on edges (design adain) or colours (correspondence); None
        means none.

    Returns:
      Structure codes with leading axes `...`.
    """
    return _with_leading_axes(self.generator.encode_structure(params, _flatten(image, 3), key), image.shape[:-3])

  def appearance_code(self, params: Params | None, image: Array, appearance: Array) -> Codes:
    """Makes the appearance codes that the generator decodes.

    Args:
      params: parameters of the generator; design adain does not read them.
      image: f[..., H, W, 3], normalized, of the appearance donors.
      appearance: f[..., F], the re-id network's codes of the same images.

    Returns:
      Appearance codes with leading axes `...`.
    """
    structure = self.encode_structure(params, image) if self.generator.fetches and params is not None else None
    return self.appearance_code_of(structure, appearance)

  def appearance_code_of(self, structure_code: Codes, appearance: Array) -> Codes:
    """Like `appearance_code`, but from the structure codes of the donors.

    Args:
      structure_code: of the donors, with leading axes `...`; design adain does not read them.
      appearance: f[..., F], the re-id network's codes of the same images.

    Returns:
      Appearance codes with leading axes `...`.
    """
    lead = appearance.shape[:-1]
    structure = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(lead) :]), structure_code)
    return _with_leading_axes(self.generator.encode_appearance(structure, _flatten(appearance, 1)), lead)

  def join_donors(self, codes: Codes, weight: Array, *, compete: bool) -> Codes:
    """Makes one appearance code of the codes of several images.

    Design adain averages the codes. Design correspondence keeps all images to fetch from.

    Args:
      codes: appearance codes with leading axes `..., S`, one donor each.
      weight: f[..., S], at least 0, not all 0: the shares of the images.
      compete: let images that match better have larger shares, pixel by pixel: for images of one person. Design adain
        ignores it.

    Returns:
      Appearance codes with leading axes `...`.
    """
    return self.generator.join_donors(codes, weight, compete=compete)

  def decode(self, params: Params, structure_code: Codes, appearance_code: Codes) -> Array:
    """Generates images.

    Args:
      params: parameters of the generator.
      structure_code: with leading axes `...`.
      appearance_code: with the same leading axes.

    Returns:
      Images f[..., H, W, 3].

    Raises:
      ValueError: the leading axes differ.
    """
    lead = self.generator.leading_shape(structure_code)
    if any(x.shape[: len(lead)] != lead for x in jax.tree.leaves(appearance_code)):
      raise ValueError(f'the leading axes of the codes differ: {lead}, {jax.tree.map(jnp.shape, appearance_code)}')
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[len(lead) :]), (structure_code, appearance_code))
    image = self.generator.decode(params, *flat)
    return image.reshape(*lead, *image.shape[1:])

  def encode_appearance(self, params: Params, batch_stats: Params, image: Array) -> AppearanceOutput:
    """Encodes the appearance of images f[..., H, W, 3] at test time: running statistics, no dropout."""
    variables = {'params': params, 'batch_stats': batch_stats}
    flat = _flatten(enlarge(image, self.reid_scale), 3)
    output = self.appearance_encoder.apply(variables, flat, mode=BatchNormMode(), deterministic=True)
    return cast(AppearanceOutput, _with_leading_axes(output, image.shape[:-3]))

  def feature_map(self, params: Params, batch_stats: Params, image: Array) -> Array:
    """Computes the re-id backbone's last feature map at test time: f[..., H, W, 3] -> f[..., h, w, C]."""
    flat = _flatten(enlarge(image, self.reid_scale), 3)
    _, state = self.appearance_encoder.apply(
      {'params': params, 'batch_stats': batch_stats},
      flat,
      mode=BatchNormMode(),
      deterministic=True,
      capture_intermediates=lambda module, _: module.name == 'backbone',
      mutable=['intermediates'],
    )
    features: Array
    (features,) = state['intermediates']['backbone']['__call__']
    return features.reshape(*image.shape[:-3], *features.shape[1:])

  def encode_appearance_train(
    self, params: Params, batch_stats: Params, image: Array, dropout_key: Array | None = None
  ) -> tuple[AppearanceOutput, Params]:
    """Encodes appearance in training: G groups, each normalized with its own batch statistics.

    Equals G calls of the release in order.

    Args:
      params: parameters of the appearance encoder.
      batch_stats: running statistics; updated, but not used to normalize.
      image: f[B, G, rH, rW, 3], already at the re-id network's input size (`reid_scale` times the generator's).
      dropout_key: random key of dropout; None disables it.

    Returns:
      Output with leading axes [B, G], and the running statistics after G updates.
    """
    mode = BatchNormMode(running=False, calls=image.shape[1], group=self.batch_norm_group)
    output, updated = self.appearance_encoder.apply(
      {'params': params, 'batch_stats': batch_stats},
      _flatten(image, 3),
      mode=mode,
      deterministic=dropout_key is None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
      mutable=['batch_stats'],
    )
    return _with_leading_axes(output, image.shape[:2]), updated['batch_stats']

  def score_fns(self, params: Params) -> tuple[Callable[[Array], Array], ...]:
    """Returns one function per scale, from images f[N, H, W, 3] at full size to a score map f[N, h, w]."""

    def at_scale(i: int, image: Array) -> Array:
      for _ in range(i):
        image = average_pool(image, stride=2)
      return _apply(self.discriminators[i], params[f'scale_{i}'], image)

    return tuple(functools.partial(at_scale, i) for i in range(len(self.discriminators)))

  def discriminator_features(self, params: Params, image: Array) -> tuple[Array, ...]:
    """Returns the outputs f[N, h, w, C] of all layers but the last, of every scale, for images f[N, H, W, 3]."""
    features: list[Array] = []
    for i, network in enumerate(self.discriminators):
      image = average_pool(image, stride=2) if i else image
      variables = {'params': params[f'scale_{i}']}
      _, state = network.apply(variables, image, capture_intermediates=_is_layer, mutable=['intermediates'])
      features += jax.tree.leaves(state['intermediates'])
    return tuple(features)

  def discriminate(self, params: Params, image: Array) -> tuple[Array, ...]:
    """Scores images f[..., H, W, 3]: one score map f[..., h, w] per scale, finest first."""
    scores = []
    flat = _flatten(image, 3)
    for i, network in enumerate(self.discriminators):
      flat = average_pool(flat, stride=2) if i else flat
      score = _apply(network, params[f'scale_{i}'], flat)
      scores.append(score.reshape(*image.shape[:-3], *score.shape[1:]))
    return tuple(scores)


def _is_layer(module: nn.Module, _: str) -> bool:
  """Returns True for the layers of a discriminator, but not for the one that makes the scores."""
  return len(module.path) == 1 and module.name != 'score'


def _with_leading_axes(tree: Any, lead: tuple[int, ...]) -> Any:
  """Splits the first axis of every array into `lead`."""
  return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), tree)
