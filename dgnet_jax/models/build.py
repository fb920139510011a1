"""Builds the networks of a config."""

from collections.abc import Mapping
import dataclasses
from typing import Any

import jax.numpy as jnp

from dgnet_jax.config.network_schema import CorrespondenceConfig, DiscriminatorConfig, ReidConfig, TeacherConfig
from dgnet_jax.config.schema import Config
from dgnet_jax.models.appearance_encoder import AppearanceEncoder
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Critic, PatchDiscriminator
from dgnet_jax.models.fetching import Fetch
from dgnet_jax.models.generators import AdainGenerator, CorrespondenceGenerator, Generator
from dgnet_jax.models.networks import Networks
from dgnet_jax.models.refinement import Refinement
from dgnet_jax.models.relighting import Relighting
from dgnet_jax.models.shape_encoder import ShapeEncoder
from dgnet_jax.models.structure_encoder import StructureEncoder
from dgnet_jax.models.teacher import TeacherCnn, TeacherNetwork

RELEASE_DOUBLING_HEIGHT = 128  # up to this height the release doubles the re-id network's input (release fact 21)


def make_networks(config: Config, num_identities: int) -> Networks:
  """Builds the networks of a config, for data with `num_identities` identities."""
  image_size_hw, dtype = config.data.image_size_hw, _layer_dtype(config.compute_dtype)
  return Networks(
    generator=_make_generator(config, dtype),
    discriminators=_make_discriminators(config.discriminator, dtype),
    appearance_encoder=_make_appearance_encoder(config.reid, num_identities, dtype),
    image_size_hw=image_size_hw,
    reid_scale=_input_scale(config.reid.input_scale, image_size_hw),
    batch_norm_group=config.reid.batch_norm_group,
  )


def make_teacher_network(config: Config, num_identities: int) -> TeacherNetwork:
  """Builds the teacher of a config, for data with `num_identities` identities; it shares the re-id's input size."""
  image_size_hw = config.data.image_size_hw
  network = _make_teacher_cnn(config.teacher, num_identities, _layer_dtype(config.compute_dtype))
  return TeacherNetwork(network, image_size_hw, _input_scale(config.reid.input_scale, image_size_hw))


def _input_scale(configured: int, image_size_hw: tuple[int, int]) -> int:
  """Returns the upsampling factor of the re-id networks' input; 0 selects the release's rule (release fact 21)."""
  return configured or (2 if image_size_hw[0] <= RELEASE_DOUBLING_HEIGHT else 1)


def _layer_dtype(compute_dtype: str) -> jnp.dtype | None:
  """Returns the `dtype` of layers for `config.compute_dtype`; None means the dtype of their input and parameters."""
  return jnp.dtype(jnp.bfloat16) if compute_dtype == 'bfloat16' else None


def _make_generator(config: Config, dtype: jnp.dtype | None) -> Generator:
  common: dict[str, Any] = dataclasses.asdict(config.generator) | {'dtype': dtype}
  if common.pop('design') == 'correspondence':
    common.pop('non_local_residual')
    return _make_correspondence_generator(config.correspondence, common)
  encoder = config.structure_encoder
  return AdainGenerator(
    structure_encoder=StructureEncoder(
      width=encoder.width,
      num_res_blocks=encoder.num_res_blocks,
      dilations=encoder.dilations,
      tanh=encoder.tanh,
      **common,
    ),
    decoder=Decoder(**dataclasses.asdict(config.decoder), **common),
    structure_input=encoder.input,
    edge_noise=encoder.edge_noise,
  )


def _make_correspondence_generator(config: CorrespondenceConfig, common: Mapping[str, Any]) -> CorrespondenceGenerator:
  options, common = common, {**common, 'attention_stride': config.attention_stride}
  # In bfloat16 the gradient through the matches would be off by a third (docs/precision.md).
  exact = common | {'dtype': None}
  return CorrespondenceGenerator(
    shape_encoder=ShapeEncoder(width=config.shape_width, descriptor_size=config.descriptor_size, **exact),
    relighting=Relighting(width=config.relighting_width, **options),
    fetch=Fetch(width=config.shape_width, **common),
    refinement=Refinement(
      width=config.refinement_width, num_blocks=config.num_res_blocks, style_width=config.style_width, **common
    ),
  )


def _make_discriminators(
  config: DiscriminatorConfig, dtype: jnp.dtype | None
) -> tuple[PatchDiscriminator | Critic, ...]:
  """Returns one network per image scale, or the critic of wgan."""
  if config.gan_type == 'wgan':
    return (Critic(config.width, config.activation, config.padding, dtype),)
  network = PatchDiscriminator(
    width=config.width,
    num_res_blocks=config.num_res_blocks,
    norm=config.norm,
    activation=config.activation,
    padding=config.padding,
    non_local=config.non_local,
    dtype=dtype,
  )
  return (network,) * config.num_scales


def _make_appearance_encoder(config: ReidConfig, num_identities: int, dtype: jnp.dtype | None) -> AppearanceEncoder:
  return AppearanceEncoder(
    stage_sizes=config.stage_sizes,
    width=config.width,
    last_stride=config.last_stride,
    pool=config.pool,
    num_parts=config.num_parts,
    head_width=config.head_width,
    num_identities=num_identities,
    primary_dropout=config.primary_dropout,
    fine_dropout=config.fine_dropout,
    style=config.style,
    normalize_code=config.normalize_code,
    detach_code=config.detach_code,
    backbone=config.backbone,
    neck=config.neck,
    dtype=dtype,
  )


def _make_teacher_cnn(config: TeacherConfig, num_identities: int, dtype: jnp.dtype | None) -> TeacherCnn:
  return TeacherCnn(
    stage_sizes=config.stage_sizes,
    width=config.width,
    last_stride=config.last_stride,
    pool=config.pool,
    head_width=config.head_width,
    num_identities=num_identities,
    dropout=config.dropout,
    backbone=config.backbone,
    neck=config.neck,
    dtype=dtype,
  )
