"""The Linen modules of a config."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from dgnet_jax.config.schema import Config
from dgnet_jax.models.appearance_encoder import AppearanceEncoder, TeacherCnn
from dgnet_jax.models.decoder import Decoder
from dgnet_jax.models.discriminator import Critic, PatchDiscriminator
from dgnet_jax.models.structure_encoder import StructureEncoder


def _compute_dtype(config: Config) -> Any:
  return jnp.bfloat16 if config.compute_dtype == 'bfloat16' else None


def _generator_form(config: Config) -> dict[str, Any]:
  """What structure encoder and decoder share."""
  return dataclasses.asdict(config.generator) | {'dtype': _compute_dtype(config)}


def make_structure_encoder(config: Config) -> StructureEncoder:
  settings = config.structure_encoder
  return StructureEncoder(
    settings.width,
    settings.num_res_blocks,
    tuple(settings.dilations),
    tanh=settings.tanh,
    **_generator_form(config),
  )


def make_decoder(config: Config) -> Decoder:
  settings = config.decoder
  return Decoder(
    settings.num_res_blocks,
    settings.mlp_width,
    block=settings.block,
    mlp_norm=settings.mlp_norm,
    non_local=settings.non_local,
    **_generator_form(config),
  )


def make_discriminators(config: Config) -> tuple[PatchDiscriminator | Critic, ...]:
  """One network per image scale, or the critic of wgan."""
  settings, dtype = config.discriminator, _compute_dtype(config)
  if settings.gan_type == 'wgan':
    return (Critic(settings.width, settings.activation, settings.padding, dtype),)
  network = PatchDiscriminator(
    settings.width,
    settings.num_res_blocks,
    settings.norm,
    settings.activation,
    settings.padding,
    settings.non_local,
    dtype,
  )
  return (network,) * settings.num_scales


def make_appearance_encoder(config: Config, num_identities: int) -> AppearanceEncoder:
  settings = config.reid
  return AppearanceEncoder(
    tuple(settings.stage_sizes),
    settings.width,
    settings.last_stride,
    settings.pool,
    settings.num_parts,
    settings.head_width,
    num_identities,
    settings.primary_dropout,
    settings.fine_dropout,
    settings.style,
    settings.normalize_code,
    settings.detach_code,
    _compute_dtype(config),
  )


def make_teacher_cnn(config: Config, num_identities: int) -> TeacherCnn:
  settings = config.teacher
  return TeacherCnn(
    tuple(settings.stage_sizes),
    settings.width,
    settings.last_stride,
    settings.pool,
    settings.head_width,
    num_identities,
    settings.dropout,
    _compute_dtype(config),
  )
