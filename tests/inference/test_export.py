"""Exported programs: equal to the predictor, and lowered for each platform on its own."""

import dataclasses
import re

import jax
import numpy as np
import pytest

from dgnet_jax.inference.export import PLATFORMS, export_programs
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.inference.model_file import flat_parameters
from dgnet_jax.inference.scoring import scored
from dgnet_jax.sharding import make_mesh
from tests.tiny_run import correspondence_config, frozen, save_checkpoint

SHARES = np.float32([2 / 3, 1 / 3])
SPARE_COLUMN = re.compile(r'pad = \[\[0, 0\], \[0, 1\]\]')  # of a convolution that is padded for CPUs only


@pytest.fixture(scope='module')
def predictor(tiny_run):
  """On one device, with batches of 5."""
  config, workdir, _ = tiny_run
  predictor = load_predictor(config, workdir, batch_size=5)
  parameters = jax.device_get((predictor.generator, predictor.reid, predictor.reid_stats))
  generator, reid, reid_stats = jax.device_put(parameters)
  mesh = make_mesh(jax.local_devices()[:1])
  return dataclasses.replace(predictor, generator=generator, reid=reid, reid_stats=reid_stats, mesh=mesh)


@pytest.fixture(scope='module')
def weights(predictor):
  return flat_parameters(predictor)


def test_program_for_several_platforms_equals_the_predictor_on_cpu(predictor, weights):
  programs = export_programs(predictor, weights, SHARES, PLATFORMS)
  assert {program.platforms for program in programs.values()} == {PLATFORMS}
  first, second = np.random.default_rng(0).integers(0, 256, (2, 5, 32, 16, 3), np.uint8)
  embeddings = programs['embed'].call(weights, first)
  np.testing.assert_allclose(embeddings, scored(predictor.embed(first), SHARES), rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
  swapped = predictor.swap(structure_from=first, appearance_from=second).astype(int)
  # Where a value is close to a half, the two programs may round it to either side.
  np.testing.assert_allclose(programs['swap'].call(weights, first, second).astype(int), swapped, atol=1)
  assert swapped.std() > 0


def test_program_of_the_other_design_equals_the_predictor(tmp_path):
  config = frozen(correspondence_config())
  save_checkpoint(config, tmp_path, num_identities=4, step=1)
  predictor = load_predictor(config, tmp_path, batch_size=5)
  weights = flat_parameters(predictor)
  program = export_programs(predictor, weights, SHARES, ('cpu',))['swap']
  first, second = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 16, 3), np.uint8)
  expected = predictor.swap(structure_from=first, appearance_from=second).astype(int)
  np.testing.assert_allclose(program.call(weights, first, second).astype(int), expected, atol=1)


def test_program_works_for_any_batch_size(predictor, weights):
  program = export_programs(predictor, weights, SHARES, ('cpu',))['embed']
  images = np.random.default_rng(0).integers(0, 256, (5, 32, 16, 3), np.uint8)
  expected = scored(predictor.embed(images), SHARES)
  for count in (1, 3):
    np.testing.assert_allclose(program.call(weights, images[:count]), expected[:count], atol=1e-5)


@pytest.mark.parametrize(('platform', 'is_padded'), [('cpu', True), ('cuda', False), ('tpu', False)])
def test_convolutions_are_those_of_the_platform(predictor, weights, platform, is_padded):
  """The platform that the program is for counts, not the one that it is exported on."""
  program = export_programs(predictor, weights, SHARES, (platform,))['swap']
  assert bool(SPARE_COLUMN.search(program.mlir_module())) == is_padded
