"""Batches as pure functions of (seed, step)."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.errors import UserError

CLASSES = np.array([0, 2, 1, 0, 0, 2, 1, 0, 3, 2, 2], np.int32)  # identity 3 has a single image
EXPECTED = {
  'image': [[4, 10], [9, 3], [3, 6], [5, 0]],
  'positive': [[7, 5], [10, 0], [4, 2], [1, 7]],
  'single': [7, 8, 6, 4],
}  # of batch 7, seed 1
EXPECTED_IDENTITIES = {
  'image': [[7, 6], [4, 2], [9, 0], [5, 4]],
  'positive': [[4, 2], [7, 6], [5, 3], [1, 7]],
  'single': [2, 9, 5, 6],
}  # likewise, with two images of each identity


def assert_equal(a, b):
  assert a.keys() == b.keys()
  for name in a:
    np.testing.assert_array_equal(a[name], b[name])


@st.composite
def cases(draw):
  count = draw(st.integers(1, 6))
  classes = list(range(count)) + draw(st.lists(st.integers(0, count - 1), min_size=8, max_size=40))
  batch_size = 2 * draw(st.integers(1, 4))
  return np.array(draw(st.permutations(classes)), np.int32), batch_size, draw(st.integers(0, 2**63))


@given(cases(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_batch_is_valid_and_reproducible(case, step):
  classes, batch_size, seed = case
  batch = PairSampler(classes, batch_size, seed).batch(step)
  assert {name: x.shape for name, x in batch.items()} == dict.fromkeys(
    ('image', 'positive', 'identity'), (batch_size, 2)
  )
  np.testing.assert_array_equal(classes[batch['image']], batch['identity'])
  np.testing.assert_array_equal(classes[batch['positive']], batch['identity'])
  single = np.bincount(classes)[batch['identity']] == 1
  np.testing.assert_array_equal(batch['image'] == batch['positive'], single)
  assert batch['identity'].dtype == np.int32
  assert_equal(batch, PairSampler(classes, batch_size, seed).batch(step))


@given(cases(), st.integers(0, 10**6), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_positives_come_from_another_camera_if_there_is_one(case, step, random):
  classes, batch_size, seed = case
  cameras = np.array([random.randint(1, 3) for _ in classes])
  batch = PairSampler(classes, batch_size, seed, cameras=cameras).batch(step)
  np.testing.assert_array_equal(batch['image'], PairSampler(classes, batch_size, seed).batch(step)['image'])
  for image, positive in zip(batch['image'].ravel(), batch['positive'].ravel(), strict=True):
    others = np.flatnonzero(classes == classes[image])
    elsewhere = others[cameras[others] != cameras[image]]
    assert positive in (elsewhere if len(elsewhere) else others)
    assert positive != image or len(others) == 1


def test_every_image_of_the_other_cameras_is_drawn_equally_often():
  classes, cameras = np.array([0, 0, 0, 0, 0, 1, 1]), np.array([1, 2, 1, 3, 3, 1, 1])
  sampler, seen = PairSampler(classes, 7, 0, cameras=cameras), np.zeros((7, 7), int)
  for step in range(600):
    batch = sampler.batch(step)
    np.add.at(seen, (batch['image'].ravel(), batch['positive'].ravel()), 1)
  share = seen / 1200
  expected = np.zeros((7, 7))
  expected[[0, 2], 1] = expected[[0, 2], 3] = expected[[0, 2], 4] = 1 / 3  # not each other
  expected[1, [0, 2, 3, 4]] = 1 / 4
  expected[[3, 4], 0] = expected[[3, 4], 1] = expected[[3, 4], 2] = 1 / 3
  expected[5, 6] = expected[6, 5] = 1  # one camera only
  np.testing.assert_allclose(share, expected, atol=0.05)
  np.testing.assert_array_equal(seen > 0, expected > 0)


@pytest.mark.parametrize('sampler_class', [PairSampler, SingleSampler])
@given(cases(), st.integers(0, 50))
@settings(max_examples=30, deadline=None)
def test_processes_share_a_batch(sampler_class, case, step):
  classes, batch_size, seed = case
  complete = sampler_class(classes, batch_size, seed).batch(step)
  parts = [sampler_class(classes, batch_size, seed, process, 2).batch(step) for process in (0, 1)]
  assert_equal(complete, {name: np.concatenate([part[name] for part in parts]) for name in complete})


@given(cases(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_an_epoch_repeats_no_image_and_drops_the_remainder(case, epoch):
  classes, batch_size, seed = case
  sampler = PairSampler(classes, batch_size, seed)
  assert sampler.steps_per_epoch == len(classes) // batch_size
  steps = range(epoch * sampler.steps_per_epoch, (epoch + 1) * sampler.steps_per_epoch)
  images = np.concatenate([sampler.batch(step)['image'] for step in steps])
  for stream in (0, 1):
    assert len(np.unique(images[:, stream])) == len(images) == len(classes) // batch_size * batch_size


def test_streams_epochs_seeds_and_purposes_differ():
  classes = np.zeros(64, np.int32)
  first = PairSampler(classes, 64, 0).batch(0)['image']
  orders = [first[:, 0], first[:, 1], SingleSampler(classes, 64, 0).batch(0)['image']]
  orders += [*PairSampler(classes, 64, 0).batch(1)['image'].T, *PairSampler(classes, 64, 1).batch(0)['image'].T]
  assert len({tuple(order) for order in orders}) == len(orders)
  assert all(set(order) == set(range(64)) for order in orders)


def test_positives_are_uniform_over_the_other_images():
  sampler = PairSampler(CLASSES, 11, seed=5)
  counts = np.zeros((11, 11))
  steps = 3000
  for step in range(steps):
    batch = sampler.batch(step)
    np.add.at(counts, (batch['image'], batch['positive']), 1)
  same = CLASSES[:, None] == CLASSES[None]
  expected = np.where(same & ~np.eye(11, dtype=bool), 1 / np.maximum(same.sum(1, keepdims=True) - 1, 1), 0)
  expected[8, 8] = 1
  np.testing.assert_allclose(counts / (2 * steps), expected, atol=4 * 0.5 / np.sqrt(2 * steps))
  assert np.all(counts[expected == 0] == 0)


def test_batches_of_a_seed_never_change():
  # Runs resume by (seed, step) alone, so a different batch here would silently change every resumed run.
  batch = PairSampler(CLASSES, 4, seed=1).batch(7)
  np.testing.assert_array_equal(batch['image'], EXPECTED['image'])
  np.testing.assert_array_equal(batch['positive'], EXPECTED['positive'])
  np.testing.assert_array_equal(SingleSampler(CLASSES, 4, seed=1).batch(7)['image'], EXPECTED['single'])


def test_batches_of_identities_of_a_seed_never_change():
  batch = PairSampler(CLASSES, 4, seed=1, images_per_identity=2).batch(7)
  np.testing.assert_array_equal(batch['image'], EXPECTED_IDENTITIES['image'])
  np.testing.assert_array_equal(batch['positive'], EXPECTED_IDENTITIES['positive'])
  single = SingleSampler(CLASSES, 4, seed=1, images_per_identity=2).batch(7)
  np.testing.assert_array_equal(single['image'], EXPECTED_IDENTITIES['single'])


@st.composite
def identity_cases(draw):
  """Classes, identities per batch, images per identity and a seed."""
  classes, _, seed = draw(cases())
  return classes, draw(st.integers(1, len(np.unique(classes)))), draw(st.integers(2, 5)), seed


@given(identity_cases(), st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_batches_have_identities_with_as_many_images_each(case, step):
  classes, identities, images, seed = case
  count = np.bincount(classes)
  options = {'batch_size': identities * images, 'seed': seed, 'images_per_identity': images}
  pairs, single = PairSampler(classes, **options).batch(step), SingleSampler(classes, **options).batch(step)
  for image in (*pairs['image'].T, single['image']):
    shown, times = np.unique(classes[image], return_counts=True)
    assert len(shown) == identities and np.all(times == images)
    for identity in shown:  # repeats an image only if there are too few, and then all equally often
      _, repeated = np.unique(image[classes[image] == identity], return_counts=True)
      assert len(repeated) == min(images, count[identity]) and repeated.max() - repeated.min() <= 1
  np.testing.assert_array_equal(classes[pairs['positive']], pairs['identity'])
  np.testing.assert_array_equal(pairs['image'] == pairs['positive'], count[pairs['identity']] == 1)
  assert_equal(pairs, PairSampler(classes, **options).batch(step))
  halves = [SingleSampler(classes, **options, process_index=i, process_count=images).batch(step) for i in range(images)]
  np.testing.assert_array_equal(np.concatenate([half['image'] for half in halves]), single['image'])


@given(identity_cases(), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_round_shows_no_identity_twice(case, number):
  classes, identities, images, seed = case
  per_round = len(np.unique(classes)) // identities
  sampler = SingleSampler(classes, identities * images, seed, images_per_identity=images)
  shown = [np.unique(sampler.batch(number * per_round + step)['identity']) for step in range(per_round)]
  assert len(np.unique(shown)) == per_round * identities
  # An epoch is as many steps as with shuffled images, so that schedules do not depend on the order.
  if len(classes) >= identities * images:
    assert sampler.steps_per_epoch == len(classes) // (identities * images)


def test_identities_and_their_images_are_drawn_equally_often():
  sampler, steps = PairSampler(CLASSES, 6, seed=3, images_per_identity=3), 3000
  seen = np.zeros((2, len(CLASSES)))
  for step in range(steps):
    for stream, image in enumerate(sampler.batch(step)['image'].T):
      np.add.at(seen[stream], image, 1)
  # Half of the four identities in a batch, with three images.
  np.testing.assert_allclose(seen / steps, np.tile(1.5 / np.bincount(CLASSES)[CLASSES], (2, 1)), rtol=0.05)


def test_rows_streams_rounds_and_purposes_of_identities_differ():
  classes, options = np.repeat(np.arange(8, dtype=np.int32), 8), {'images_per_identity': 4}
  pairs, single = PairSampler(classes, 32, 0, **options), SingleSampler(classes, 32, 0, **options)
  orders = [*pairs.batch(0)['image'].T, *pairs.batch(1)['image'].T, single.batch(0)['image'], single.batch(2)['image']]
  orders += [*PairSampler(classes, 32, 1, **options).batch(0)['image'].T]
  assert len({tuple(order) for order in orders}) == len(orders)
  # Cross images are of many pairs of people, and not of the same pair four times.
  assert len({tuple(pair) for pair in pairs.batch(0)['identity']}) > 8


def test_fewer_identities_than_a_batch_is_an_error():
  for sampler in (
    PairSampler(CLASSES, 10, 0, images_per_identity=2),
    SingleSampler(CLASSES, 10, 0, images_per_identity=2),
  ):
    with pytest.raises(UserError, match='4 training identities are fewer than the 5 of a batch'):
      sampler.batch(0)


def test_fewer_images_than_a_batch_is_an_error():
  with pytest.raises(UserError, match='11 training images are fewer than a batch of 12'):
    PairSampler(CLASSES, 12, 0).batch(0)


def test_batch_size_must_be_divisible_by_the_processes():
  with pytest.raises(UserError, match='a batch of 4 is not divisible by 3 processes'):
    PairSampler(CLASSES, 4, 0, 0, 3)
