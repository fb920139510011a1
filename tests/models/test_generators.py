"""The correspondence generator: where it looks, what it may copy, and several donors."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.fetching import Fetch
from dgnet_jax.models.generators import CorrespondenceGenerator, StructureCode
from dgnet_jax.models.refinement import Refinement
from dgnet_jax.models.relighting import Relighting
from dgnet_jax.models.shape_encoder import Shape, ShapeEncoder, original_colours, recoloured

SIZE = 32, 16
CODE_SIZE = 6


def make_generator(stride=2, **options):
  return CorrespondenceGenerator(
    shape_encoder=ShapeEncoder(width=4, descriptor_size=5, attention_stride=stride, **options),
    relighting=Relighting(width=3, **options),
    fetch=Fetch(width=4, attention_stride=stride, **options),
    refinement=Refinement(width=6, num_blocks=1, style_width=4, attention_stride=stride, **options),
  )


def random_images(count, seed=0, size=SIZE):
  return jax.random.normal(jax.random.key(seed), (count, *size, 3))


@pytest.fixture(scope='module')
def generator():
  return make_generator()


@pytest.fixture(scope='module')
def params(generator):
  return generator.init(jax.random.key(0), SIZE, CODE_SIZE)


def appearance_of(generator, params, images, seed=5):
  codes = jax.random.normal(jax.random.key(seed), (len(images), CODE_SIZE))
  return generator.encode_appearance(generator.encode_structure(params, images, None), codes)


@pytest.mark.parametrize(('size', 'stride'), [((32, 16), 2), ((64, 32), 4), ((64, 64), 8)])
def test_shapes_at_every_resolution(size, stride):
  generator = make_generator(stride)
  params = generator.init(jax.random.key(0), size, CODE_SIZE)
  assert set(params) == {'shape_encoder', 'relighting', 'fetch', 'refinement'}
  structures, donors = random_images(2, 1, size), random_images(2, 2, size)
  structure, appearance = generator.encode_structure(params, structures, None), appearance_of(generator, params, donors)
  cells = size[0] // stride, size[1] // stride
  assert structure.shape.descriptors.shape[1:3] == cells
  # One map for the attention's stride and each finer one down to 2.
  assert [x.shape[1] for x in structure.shape.fine] == [size[0] // s for s in (8, 4, 2) if s <= stride]
  fetched = generator.fetched(params, structure, appearance)
  assert fetched.logits.shape == (2, cells[0] * cells[1], 1, *cells)
  assert fetched.place.shape == (2, 1, *size, 2) and fetched.pixels.shape == (2, *size, 3)
  np.testing.assert_allclose(fetched.attention.sum(-1), 1, atol=1e-5)
  image = generator.decode(params, structure, appearance)
  assert image.shape == (2, *size, 3) and np.isfinite(image).all()


def test_bfloat16_stays_close(generator, params):
  low = make_generator(dtype=jnp.dtype(jnp.bfloat16))
  structures, donors = random_images(2, 1), random_images(2, 2)

  def decode(generator):
    structure = generator.encode_structure(params, structures, None)
    return generator.decode(params, structure, appearance_of(generator, params, donors))

  image = decode(low)
  assert image.dtype == jnp.float32
  error = np.abs(np.asarray(image - decode(generator)))
  assert np.median(error) < 0.05


def test_perfect_descriptors_fetch_the_moved_pixels():
  """With descriptors that tell places apart, the structure's copy of the donor is fetched from where it is."""
  fetch = Fetch(width=4, attention_stride=2)
  donor = random_images(1, 3)
  cells = SIZE[0] // 2, SIZE[1] // 2
  places = jnp.eye(cells[0] * cells[1]).reshape(1, *cells, -1)
  shift = 3  # cells
  moved_places, moved = jnp.roll(places, shift, axis=1), jnp.roll(donor, 2 * shift, axis=1)
  generator = dataclasses.replace(make_generator(), fetch=fetch)

  def shape(descriptors):
    return Shape(descriptors, (descriptors,), jnp.zeros((1, *SIZE, 1)))

  donors = generator.encode_appearance(StructureCode(shape(places), donor), jnp.zeros((1, CODE_SIZE))).donors
  fetched = fetch.apply({'params': {'temperature': jnp.log(1000.0)}}, shape(moved_places), donors)
  rows = slice(2 * shift + 1, None)  # above, the copy wraps around, and places between two cells are far from both
  np.testing.assert_allclose(fetched.pixels[:, rows], moved[:, rows], atol=1e-4)
  expected = np.arange(SIZE[0])[rows] - 2 * shift
  np.testing.assert_allclose(fetched.place[0, 0, rows, 0, 0], expected, atol=1e-4)


def test_mask_decides_what_is_copied(generator, params):
  structures = random_images(2, 1)
  structure = generator.encode_structure(params, structures, None)
  appearance = appearance_of(generator, params, random_images(2, 2))

  def decode(logits):
    shape = structure.shape.replace(mask=jnp.full_like(structure.shape.mask, logits))
    return generator.decode(params, structure.replace(shape=shape), appearance)

  np.testing.assert_allclose(decode(-100.0), structures, atol=1e-5)
  # Nothing of the structure image's colours is left where everything is generated.
  masked = structure.replace(shape=structure.shape.replace(mask=jnp.full_like(structure.shape.mask, 100.0)))
  other = masked.replace(image=random_images(2, 9))
  np.testing.assert_allclose(
    generator.decode(params, masked, appearance), generator.decode(params, other, appearance), atol=1e-5
  )


def test_recolouring_is_random_in_training_and_absent_in_use(generator, params):
  images = random_images(2)
  first, second = (recoloured(images, jax.random.key(i)) for i in range(2))
  assert np.abs(first).max() <= 1 and not np.allclose(first, second, atol=0.1)
  # Each image has its own colours, and equal pixels stay equal.
  same = recoloured(jnp.broadcast_to(images[:1], images.shape), jax.random.key(0))
  assert not np.allclose(same[0], same[1], atol=0.1)
  assert np.ptp(recoloured(jnp.ones((1, 4, 4, 3)), jax.random.key(0)), axis=(1, 2)).max() < 1e-6
  clean = generator.encode_structure(params, images, None)
  np.testing.assert_array_equal(clean.shape.mask, generator.encode_structure(params, images, None).shape.mask)
  varied = generator.encode_structure(params, images, jax.random.key(0))
  assert not np.allclose(clean.shape.descriptors, varied.shape.descriptors, atol=1e-2)
  assert np.abs(original_colours(images)).max() <= 1


def joined_donors(generator, codes, weight, *, compete):
  stacked = jax.tree.map(lambda *x: jnp.stack(x, axis=1), *codes)
  return generator.join_donors(stacked, jnp.asarray(weight), compete=compete)


@pytest.fixture(scope='module')
def donor_codes(generator, params):
  return [appearance_of(generator, params, random_images(2, seed), seed) for seed in (2, 3)]


@pytest.fixture(scope='module')
def structure(generator, params):
  return generator.encode_structure(params, random_images(2, 1), None)


@pytest.mark.parametrize('compete', [True, False])
@pytest.mark.parametrize('chosen', [0, 1])
def test_a_donor_with_all_the_weight_is_alone(generator, params, donor_codes, structure, compete, chosen):
  weight = np.zeros((2, 2), np.float32)
  weight[:, chosen] = 1
  joined = joined_donors(generator, donor_codes, weight, compete=compete)
  assert joined.donors.image.shape == (2, 2, *SIZE, 3)
  np.testing.assert_allclose(
    generator.decode(params, structure, joined), generator.decode(params, structure, donor_codes[chosen]), atol=1e-4
  )


def test_the_same_donor_twice_changes_nothing(generator, params, donor_codes, structure):
  joined = joined_donors(generator, [donor_codes[0], donor_codes[0]], np.full((2, 2), 0.5, np.float32), compete=True)
  np.testing.assert_allclose(
    generator.decode(params, structure, joined), generator.decode(params, structure, donor_codes[0]), atol=1e-4
  )


def test_the_better_match_wins_only_if_donors_compete(generator, params, donor_codes, structure):
  # The structure image itself as a donor matches better than a stranger.
  exact = generator.encode_appearance(structure, donor_codes[0].style[:, 0])
  weight = np.full((2, 2), 0.5, np.float32)
  compete, fixed = (
    generator.fetched(params, structure, joined_donors(generator, [exact, donor_codes[1]], weight, compete=c)).share
    for c in (True, False)
  )
  np.testing.assert_allclose(fixed, 0.5, atol=1e-6)
  np.testing.assert_allclose(compete.sum(-1), 1, atol=1e-5)
  assert compete[..., 0].mean() > 0.5
