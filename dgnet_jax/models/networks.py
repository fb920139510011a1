"""The networks of DG-Net as plain functions of their parameters.

Only `models` knows about Linen. To other packages, a network is a function from parameters and images, with any leading
axes, to arrays.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from dgnet_jax.models.appearance_encoder import AppearanceEncoder
from dgnet_jax.models.batch_norm import BatchNormMode
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Critic, PatchDiscriminator
from dgnet_jax.models.edges import to_edges
from dgnet_jax.models.pooling import average_pool
from dgnet_jax.models.structure_encoder import StructureEncoder, to_gray
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

  Generator parameters are {'structure_encoder', 'decoder'}, discriminator parameters {'scale_0', 'scale_1', ...}, and
  re-id parameters {'backbone', 'primary_head', 'fine_head'} or the heads of another style. The re-id network's
  BatchNorm statistics have the same structure.

  Attributes:
    discriminators: one per image scale, finest first.
    image_size_hw: height and width of the generator's images, pixels.
    reid_scale: the re-id network's input is this many times larger.
    batch_norm_group: number of images that share BatchNorm statistics; 0 means all of a call.
    structure_input: gray or edge.
    edge_noise: standard deviation of the noise on edges.
  """

  structure_encoder: StructureEncoder
  decoder: Decoder
  discriminators: tuple[PatchDiscriminator | Critic, ...]
  appearance_encoder: AppearanceEncoder
  image_size_hw: tuple[int, int]
  reid_scale: int
  batch_norm_group: int
  structure_input: str = 'gray'
  edge_noise: float = 0.0

  def init_generator(self, key: Array) -> Params:
    """Initializes the parameters of the structure encoder and the decoder."""
    encoder_key, decoder_key = jax.random.split(key)
    height, width = self.image_size_hw
    gray = jnp.zeros((1, height, width, 1))
    encoder = jax.jit(self.structure_encoder.init)(encoder_key, gray)['params']
    code = jax.eval_shape(self.structure_encoder.apply, {'params': encoder}, gray)
    appearance = jnp.zeros((1, self.code_size))
    decoder = jax.jit(self.decoder.init)(decoder_key, jnp.zeros(code.shape), appearance)['params']
    return {'structure_encoder': encoder, 'decoder': decoder}

  def init_discriminator(self, key: Array) -> Params:
    """Initializes the parameters of the discriminators."""
    image = jnp.zeros((1, *self.image_size_hw, 3))
    keys = jax.random.split(key, len(self.discriminators))
    return {f'scale_{i}': jax.jit(d.init)(keys[i], image)['params'] for i, d in enumerate(self.discriminators)}

  def init_reid(self, key: Array) -> tuple[Params, Params]:
    """Initializes (params, batch_stats) of the appearance encoder."""
    height, width = self.image_size_hw
    image = jnp.zeros((1, height * self.reid_scale, width * self.reid_scale, 3))
    init = functools.partial(self.appearance_encoder.init, mode=BatchNormMode(), deterministic=True)
    variables = jax.jit(init)(key, image)
    return variables['params'], variables['batch_stats']

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
    channels: int = 4 * reid.width * 2 ** (len(reid.stage_sizes) - 1)
    return reid.num_parts * channels

  def encode_structure(self, params: Params, image: Array, noise_key: Array | None = None) -> Array:
    """Encodes the structure of images, which are converted to gray or to edges first.

    Args:
      params: parameters of the generator.
      image: f[..., H, W, 3], normalized.
      noise_key: random key of the noise on edges; None means no noise.

    Returns:
      Structure codes f[..., h, w, C].
    """
    flat = _flatten(image, 3)
    if self.structure_input == 'gray':
      encoder_input = to_gray(flat)
    else:
      encoder_input = to_edges(flat)
      if noise_key is not None:
        encoder_input += self.edge_noise * jax.random.normal(noise_key, encoder_input.shape, encoder_input.dtype)
    code = _apply(self.structure_encoder, params['structure_encoder'], encoder_input)
    return code.reshape(*image.shape[:-3], *code.shape[1:])

  def decode(self, params: Params, structure_code: Array, appearance_code: Array) -> Array:
    """Generates images.

    Args:
      params: parameters of the generator.
      structure_code: f[..., h, w, C].
      appearance_code: f[..., F], with the same leading axes.

    Returns:
      Images f[..., H, W, 3].

    Raises:
      ValueError: the leading axes differ.
    """
    if structure_code.shape[:-3] != appearance_code.shape[:-1]:
      raise ValueError(f'{structure_code.shape=} {appearance_code.shape=}: leading axes must be equal')
    image = _apply(self.decoder, params['decoder'], _flatten(structure_code, 3), _flatten(appearance_code, 1))
    return image.reshape(*structure_code.shape[:-3], *image.shape[1:])

  def encode_appearance(self, params: Params, batch_stats: Params, image: Array) -> AppearanceOutput:
    """Encodes the appearance of images f[..., H, W, 3] at test time: running statistics, no dropout."""
    variables = {'params': params, 'batch_stats': batch_stats}
    flat = _flatten(enlarge(image, self.reid_scale), 3)
    output = self.appearance_encoder.apply(variables, flat, mode=BatchNormMode(), deterministic=True)
    return _with_leading_axes(cast(AppearanceOutput, output), image.shape[:-3])

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

  def discriminate(self, params: Params, image: Array) -> tuple[Array, ...]:
    """Scores images f[..., H, W, 3]: one score map f[..., h, w] per scale, finest first."""
    scores = []
    flat = _flatten(image, 3)
    for i, network in enumerate(self.discriminators):
      flat = average_pool(flat, stride=2) if i else flat
      score = _apply(network, params[f'scale_{i}'], flat)
      scores.append(score.reshape(*image.shape[:-3], *score.shape[1:]))
    return tuple(scores)


def _with_leading_axes(output: AppearanceOutput, lead: tuple[int, ...]) -> AppearanceOutput:
  """Splits the first axis of every array into `lead`."""
  unflattened: AppearanceOutput = jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), output)
  return unflattened
