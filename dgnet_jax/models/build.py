"""Networks from a config, as plain functions of parameters.

Nothing above this floor knows of Linen: a network here is a function from (parameters, images) to arrays, and accepts
any leading axes.
"""

from collections.abc import Callable
import dataclasses
import functools
from typing import cast

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from dgnet_jax.config.schema import Config
from dgnet_jax.models import factories
from dgnet_jax.models.appearance_encoder import AppearanceEncoder, TeacherCnn
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Critic, PatchDiscriminator, halve
from dgnet_jax.models.edges import to_edges
from dgnet_jax.models.layers import BatchNormMode
from dgnet_jax.models.structure_encoder import StructureEncoder, to_gray
from dgnet_jax.pixels import enlarge
from dgnet_jax.types import AppearanceOutput, Array, Params

RELEASE_DOUBLING_HEIGHT = 128  # up to this height the release doubles what the re-id network sees (fact 21)


def _flatten(x: Array, inner: int) -> Array:
  """Joins all axes but the last `inner`."""
  return x.reshape(-1, *x.shape[-inner:])


def _output(module: nn.Module, params: Params, *inputs: Array) -> Array:
  """The one array that a network without BatchNorm makes."""
  return cast(Array, module.apply({'params': params}, *inputs))


def input_scale(configured: int, image_size_hw: tuple[int, int]) -> int:
  """Enlargement of the re-id networks' input; 0 asks for the release's rule (fact 21)."""
  return configured or (2 if image_size_hw[0] <= RELEASE_DOUBLING_HEIGHT else 1)


@dataclasses.dataclass(frozen=True)
class Networks:
  """The four networks of DG-Net.

  Generator parameters are {'structure_encoder', 'decoder'}; the discriminator's {'scale_0', 'scale_1', ...}; the re-id
  network's {'backbone', 'primary_head', 'fine_head'} (or the heads of its style), with BatchNorm statistics of the same
  form.
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
    """Fresh parameters of the structure encoder and the decoder."""
    encoder_key, decoder_key = jax.random.split(key)
    height, width = self.image_size_hw
    gray = jnp.zeros((1, height, width, 1))
    encoder = jax.jit(self.structure_encoder.init)(encoder_key, gray)['params']
    code = jax.eval_shape(self.structure_encoder.apply, {'params': encoder}, gray)
    appearance = jnp.zeros((1, self.code_size))
    decoder = jax.jit(self.decoder.init)(decoder_key, jnp.zeros(code.shape), appearance)['params']
    return {'structure_encoder': encoder, 'decoder': decoder}

  def init_discriminator(self, key: Array) -> Params:
    """Fresh parameters, one network per scale."""
    image = jnp.zeros((1, *self.image_size_hw, 3))
    keys = jax.random.split(key, len(self.discriminators))
    return {f'scale_{i}': jax.jit(d.init)(keys[i], image)['params'] for i, d in enumerate(self.discriminators)}

  def init_reid(self, key: Array) -> tuple[Params, Params]:
    """Fresh (params, batch_stats) of the appearance encoder."""
    height, width = self.image_size_hw
    image = jnp.zeros((1, height * self.reid_scale, width * self.reid_scale, 3))
    init = functools.partial(self.appearance_encoder.init, mode=BatchNormMode(), deterministic=True)
    variables = jax.jit(init)(key, image)
    return variables['params'], variables['batch_stats']

  @property
  def trains_through_code(self) -> bool:
    """Whether what the generator makes of an appearance code teaches the re-id network (release fact 16)."""
    return self.appearance_encoder.style != 'AB' or not self.appearance_encoder.detach_code

  @property
  def scores_need_batch(self) -> bool:
    """Whether the discriminator's score of an image depends on the other images of its call."""
    return any(isinstance(d, PatchDiscriminator) and d.norm == 'batch' for d in self.discriminators)

  @property
  def code_size(self) -> int:
    """Length of an appearance code."""
    reid = self.appearance_encoder
    return reid.num_parts * 4 * reid.width * 2 ** (len(reid.stage_sizes) - 1)

  def encode_structure(self, params: Params, image: Array, noise_key: Array | None = None) -> Array:
    """Structure codes f[..., h, w, C] of images f[..., H, W, 3], which are turned grey or to edges first.

    Args:
      params: of the generator.
      image: normalised.
      noise_key: of the noise on edges; None leaves it out.
    """
    flat = _flatten(image, 3)
    if self.structure_input == 'gray':
      seen = to_gray(flat)
    else:
      seen = to_edges(flat)
      if noise_key is not None:
        seen += self.edge_noise * jax.random.normal(noise_key, seen.shape, seen.dtype)
    code = _output(self.structure_encoder, params['structure_encoder'], seen)
    return code.reshape(*image.shape[:-3], *code.shape[1:])

  def decode(self, params: Params, structure_code: Array, appearance_code: Array) -> Array:
    """Images f[..., H, W, 3] from codes f[..., h, w, C] and f[..., F] with equal leading axes."""
    if structure_code.shape[:-3] != appearance_code.shape[:-1]:
      raise ValueError(f'leading axes differ: {structure_code.shape=} {appearance_code.shape=}')
    image = _output(self.decoder, params['decoder'], _flatten(structure_code, 3), _flatten(appearance_code, 1))
    return image.reshape(*structure_code.shape[:-3], *image.shape[1:])

  def encode_appearance(self, params: Params, batch_stats: Params, image: Array) -> AppearanceOutput:
    """At test time: running statistics, no dropout. Images f[..., H, W, 3] at generator size."""
    variables = {'params': params, 'batch_stats': batch_stats}
    flat = _flatten(enlarge(image, self.reid_scale), 3)
    output = self.appearance_encoder.apply(variables, flat, mode=BatchNormMode(), deterministic=True)
    return jax.tree.map(lambda x: x.reshape(*image.shape[:-3], *x.shape[1:]), output)

  def last_map(self, params: Params, batch_stats: Params, image: Array) -> Array:
    """What the re-id backbone ends in, before pooling, at test time: f[..., h, w, C] of images f[..., H, W, 3]."""
    flat = _flatten(enlarge(image, self.reid_scale), 3)
    _, state = self.appearance_encoder.apply(
      {'params': params, 'batch_stats': batch_stats},
      flat,
      mode=BatchNormMode(),
      deterministic=True,
      capture_intermediates=lambda module, _: module.name == 'backbone',
      mutable=['intermediates'],
    )
    (features,) = state['intermediates']['backbone']['__call__']
    return features.reshape(*image.shape[:-3], *features.shape[1:])

  def encode_appearance_train(
    self, params: Params, batch_stats: Params, image: Array, dropout_key: Array | None = None
  ) -> tuple[AppearanceOutput, Params]:
    """In training: each of G groups normalised by its own batch statistics, as G calls of the release in order.

    Args:
      params: of the appearance encoder.
      batch_stats: running statistics, not used to normalise.
      image: f[B, G, rH, rW, 3], already at the re-id network's size (`reid_scale` times the generator's).
      dropout_key: None switches dropout off.

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
    return jax.tree.map(lambda x: x.reshape(*image.shape[:2], *x.shape[1:]), output), updated['batch_stats']

  def score_fns(self, params: Params) -> tuple[Callable[[Array], Array], ...]:
    """One function per scale, from images f[N, H, W, 3] at full size to a score map f[N, h, w]."""

    def at_scale(i: int, image: Array) -> Array:
      for _ in range(i):
        image = halve(image)
      return _output(self.discriminators[i], params[f'scale_{i}'], image)

    return tuple(functools.partial(at_scale, i) for i in range(len(self.discriminators)))

  def discriminate(self, params: Params, image: Array) -> tuple[Array, ...]:
    """Score maps f[..., h, w] of images f[..., H, W, 3], one per scale, the finest first."""
    scores = []
    flat = _flatten(image, 3)
    for i, network in enumerate(self.discriminators):
      flat = halve(flat) if i else flat
      score = _output(network, params[f'scale_{i}'], flat)
      scores.append(score.reshape(*image.shape[:-3], *score.shape[1:]))
    return tuple(scores)


@flax.struct.dataclass
class TeacherOutput:
  """logits: f[..., K]. feature: f[..., D], the head's bottleneck after its BatchNorm."""

  logits: Array
  feature: Array


@dataclasses.dataclass(frozen=True)
class TeacherNetwork:
  """The plain re-id CNN whose soft labels teach the primary head."""

  network: TeacherCnn
  image_size_hw: tuple[int, int]
  reid_scale: int

  def init(self, key: Array) -> tuple[Params, Params]:
    """Fresh (params, batch_stats); params are {'backbone', 'head'}."""
    height, width = self.image_size_hw
    image = jnp.zeros((1, height * self.reid_scale, width * self.reid_scale, 3))
    variables = jax.jit(functools.partial(self.network.init, mode=BatchNormMode(), deterministic=True))(key, image)
    return variables['params'], variables['batch_stats']

  def apply(
    self, params: Params, batch_stats: Params, image: Array, *, norm: str = 'running', dropout_key: Array | None = None
  ) -> tuple[TeacherOutput, Params]:
    """Logits and feature of images at the re-id networks' size.

    Args:
      params: of the teacher.
      batch_stats: running statistics.
      image: f[..., rH, rW, 3]; with norm 'batch' f[B, G, rH, rW, 3], each of the G a BatchNorm call of its own.
      norm: running, or batch (statistics of each group of the batch; the running ones are updated).
      dropout_key: None switches dropout off.

    Returns:
      TeacherOutput with the image's leading axes, and the new running statistics (unchanged with norm 'running').
    """
    mode = BatchNormMode(running=norm == 'running', calls=image.shape[1] if norm == 'batch' else 1)
    (logits, feature), updated = self.network.apply(
      {'params': params, 'batch_stats': batch_stats},
      _flatten(image, 3),
      mode=mode,
      deterministic=dropout_key is None,
      rngs=None if dropout_key is None else {'dropout': dropout_key},
      mutable=['batch_stats'],
    )
    lead = image.shape[:-3]
    output = TeacherOutput(logits.reshape(*lead, -1), feature.reshape(*lead, -1))
    return output, updated.get('batch_stats', batch_stats)


def make_networks(config: Config, num_identities: int) -> Networks:
  """The networks of a config for data with `num_identities` people."""
  image_size_hw = config.data.image_size_hw
  return Networks(
    factories.make_structure_encoder(config),
    factories.make_decoder(config),
    factories.make_discriminators(config),
    factories.make_appearance_encoder(config, num_identities),
    image_size_hw,
    input_scale(config.reid.input_scale, image_size_hw),
    config.reid.batch_norm_group,
    config.structure_encoder.input,
    config.structure_encoder.edge_noise,
  )


def make_teacher_network(config: Config, num_identities: int) -> TeacherNetwork:
  """The teacher of a config for data with `num_identities` people; it sees what the re-id network sees."""
  image_size_hw = config.data.image_size_hw
  network = factories.make_teacher_cnn(config, num_identities)
  return TeacherNetwork(network, image_size_hw, input_scale(config.reid.input_scale, image_size_hw))
