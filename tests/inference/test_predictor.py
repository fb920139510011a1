"""Predictors: pixels in, pixels and embeddings out."""

import dataclasses

import jax
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.inference import functions
from dgnet_jax.inference.predictor import TeacherPredictor
from dgnet_jax.pixels import IMAGENET_MEAN, IMAGENET_STD, denormalize, normalize
from dgnet_jax.sharding import make_mesh
from dgnet_jax.types import Teacher
from tests.inference.linear_networks import (
  HEIGHT,
  WIDTH,
  LinearNetworks,
  LinearTeacher,
  NestedCodes,
  linear_parameters,
  linear_predictor,
  random_images,
  unit,
)

GENERATOR, REID, REID_STATS = linear_parameters()


def swapped_by_numpy(structures, appearances):
  image = functions.swap(
    LinearNetworks(),
    GENERATOR,
    REID,
    REID_STATS,
    structure_from=normalize(structures),
    appearance_from=normalize(appearances),
  )
  return denormalize(np.asarray(image))


def test_embed_equals_the_function():
  images = random_images(7)
  expected = functions.embedding(LinearNetworks(), REID, REID_STATS, normalize(images))
  predictor = linear_predictor()
  np.testing.assert_allclose(predictor.embed(images), expected, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(np.concatenate([*predictor.embed_batches(images)]), predictor.embed(images))


def test_sets_of_any_size_share_one_compilation():
  networks = LinearNetworks()
  for count in (9, 4, 6):
    linear_predictor(networks=networks).embed(random_images(count))
  assert networks.traces == [(4, 2, HEIGHT, WIDTH, 3)]


def test_results_do_not_depend_on_the_number_of_devices():
  images = random_images(11)
  one, eight = linear_predictor(), linear_predictor(devices=jax.local_devices())
  np.testing.assert_allclose(eight.embed(images), one.embed(images), rtol=1e-4, atol=1e-5)
  swaps = [each.swap(structure_from=images, appearance_from=images[::-1]) for each in (one, eight)]
  np.testing.assert_allclose(swaps[0].astype(int), swaps[1], atol=1)


def test_swap_returns_pixels_in_the_order_of_the_pairs():
  structures, appearances = random_images(10), random_images(10, seed=1)
  predictor = linear_predictor()
  swapped = predictor.swap(structure_from=structures, appearance_from=appearances)
  assert swapped.dtype == np.uint8
  np.testing.assert_allclose(swapped.astype(int), swapped_by_numpy(structures, appearances), atol=1)
  batches = predictor.swap_batches(structure_from=structures, appearance_from=appearances)
  np.testing.assert_array_equal(np.concatenate([*batches]), swapped)


def test_denormalizing_inside_jit_differs_from_numpy_next_to_halves_only():
  """Float32 against NumPy's float64: its error of 1e-5 of a level changes the rounding that close to a half only."""
  levels = np.linspace(-5, 260, 1_000_001)
  image = np.float32((levels[:, None] / 255 - IMAGENET_MEAN) / IMAGENET_STD)
  by_numpy, inside_jit = denormalize(image), np.asarray(jax.jit(denormalize)(image))
  assert inside_jit.dtype == np.uint8
  different = by_numpy != inside_jit
  exact = (image.astype(np.float64) * IMAGENET_STD + IMAGENET_MEAN) * 255
  assert (np.abs(exact % 1 - 0.5)[different] < 3e-5).all()
  assert np.abs(by_numpy.astype(int) - inside_jit).max() <= 1


@pytest.mark.parametrize('networks', [LinearNetworks(), NestedCodes()], ids=['arrays', 'pytrees'])
def test_decoded_codes_equal_the_swap(networks):
  predictor = linear_predictor(networks=networks)
  structures, appearances = random_images(6), random_images(6, seed=1)
  codes = predictor.structure_codes(structures), predictor.appearance_codes(appearances)
  assert {type(leaf) for leaf in jax.tree.leaves(codes)} == {np.ndarray}
  assert {len(leaf) for leaf in jax.tree.leaves(codes)} == {6}
  swapped = predictor.swap(structure_from=structures, appearance_from=appearances)
  np.testing.assert_allclose(predictor.decode(*codes).astype(int), swapped, atol=1)


def test_activation_equals_the_function():
  images = random_images(5)
  expected = functions.activation(LinearNetworks(), REID, REID_STATS, normalize(images))
  np.testing.assert_allclose(linear_predictor().activation(images), expected, rtol=1e-5)


def test_without_a_generator_methods_that_need_one_raise_at_the_call():
  predictor = dataclasses.replace(linear_predictor(), generator=None)
  images = random_images(2)
  assert len(predictor.embed(images)) == len(predictor.appearance_codes(images)) == 2
  for call in (
    lambda: predictor.swap_batches(structure_from=images, appearance_from=images),
    lambda: predictor.structure_codes(images),
    lambda: predictor.decode(images, images),
  ):
    with pytest.raises(UserError, match='joint=False'):
      call()


def test_teacher_embeds_both_mirror_views_of_the_enlarged_image():
  params = {'feature': np.float32(np.random.default_rng(0).normal(size=(4 * HEIGHT * WIDTH * 3, 5)))}
  teacher = Teacher(params, {'mean': np.float32(0.5)})
  predictor = TeacherPredictor(LinearTeacher(), teacher, make_mesh(jax.local_devices()[:1]), batch_size=4)
  images = random_images(7)
  enlarged = np.asarray(normalize(images)).repeat(2, axis=1).repeat(2, axis=2)
  views = [unit(view.reshape(7, -1) @ params['feature'] + 0.5) for view in (enlarged, enlarged[:, :, ::-1])]
  np.testing.assert_allclose(predictor.embed(images), unit(views[0] + views[1]), rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(np.concatenate([*predictor.embed_batches(images)]), predictor.embed(images))
