"""Rendered truths, the places of garments in them, and what pattern fidelity says of tops that can be drawn."""

import dataclasses

import numpy as np
import pytest

from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.synthetic import ground_truth
from dgnet_jax.data.synthetic.dataset import image_truth
from dgnet_jax.data.synthetic.ground_truth import render_truth, with_true_cross
from dgnet_jax.data.synthetic.people import PATTERNS, WHOLE
from dgnet_jax.evaluation.clothes_quality import colour_error, pattern_fidelity
from dgnet_jax.evaluation.image_quality import psnr
from tests.tiny_run import tiny_config


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """The config, the root and the images of twelve people, four each."""
  config = tiny_config()
  config.data.image_size_hw = (64, 32)
  config.data.synthetic.update(num_test_identities=12, num_distractors=0, num_junk=0)
  index = open_dataset(config, tmp_path_factory.mktemp('data'))
  return config, index.root, index.query.paths + index.gallery.paths


@pytest.fixture
def worn(data, monkeypatch):
  """Renders the truths of all images with other appearances and structures, to which two functions map theirs."""
  config, root, paths = data

  def rendered(dress, move=lambda structure: structure):
    known = {path: (dress(person), move(structure)) for path, (person, structure) in image_truth(root).items()}
    monkeypatch.setattr(ground_truth, 'image_truth', lambda _: known)
    return render_truth(config, root, paths, np.arange(len(paths)), np.arange(len(paths)))

  yield rendered
  monkeypatch.undo()


def changed(**values):
  return lambda person: dataclasses.replace(person, **values)


def checked(**values):
  """A person in yellow and blue checks."""
  return changed(**{'pattern': 'checks', 'top_colour': (230, 200, 40), 'top_second_colour': (40, 60, 180)} | values)


def test_truth_of_a_image_by_itself_is_the_image(data, worn):
  _, root, paths = data
  truth, images = worn(changed()), ImageFiles(paths, (64, 32))[:]
  assert (psnr(truth.images, images) > 35).all()  # but for JPEG's error
  assert (colour_error(images, truth.images, truth.garments) < 1).all()
  fidelity = pattern_fidelity(images, truth.images, truth.plain, truth.light[:, :2], truth.body)
  people = [person for person, _ in image_truth(root).values()]
  assert 0 < truth.patterned.sum() < len(truth.patterned) and {person.pattern for person in people} <= set(PATTERNS)
  assert np.isnan(fidelity[~truth.patterned]).all() and (fidelity[~np.isnan(fidelity)] > 0.9).all()
  assert not np.isnan(fidelity[truth.patterned]).all()


def test_truth_keeps_the_structure_and_changes_the_person(data):
  config, root, paths = data
  other = 12  # a query of another look
  own, swapped, donor = render_truth(config, root, paths, np.array([0, 0, other]), np.array([0, other, other])).images
  background = (own == swapped).all(axis=-1)
  assert 0.2 < background.mean() < 1
  assert (own == donor).all(axis=-1).mean() < 0.2


def test_garments_are_what_other_colours_change(worn):
  yellow = worn(checked(pattern='plain'))

  def changes(**values):
    other = worn(checked(pattern='plain', **values))
    np.testing.assert_array_equal(yellow.garments, other.garments)
    change = np.abs(yellow.images.astype(int) - other.images).max(axis=-1)
    return change / change.max(axis=(1, 2), keepdims=True)

  top, bottom = np.moveaxis(yellow.garments, 1, 0)
  for mask, change in ((top, changes(top_colour=(40, 60, 180))), (bottom, changes(bottom_colour=(255, 0, 255)))):
    assert (mask.sum(axis=(1, 2)) > 30).all()
    assert change[mask].min() > 0.3 and change[~mask].max() < 0.85 and change[~mask].mean() < 0.02
  assert (top & bottom).mean() < 0.01


def test_patterns_are_seen_on_the_body_of_the_top_alone(worn):
  truth = worn(checked())
  changes = np.abs(truth.images.astype(int) - truth.plain).max(axis=-1)
  assert truth.patterned.all() and (truth.body <= truth.garments[:, 0]).all()
  assert truth.body.sum() < 0.9 * truth.garments[:, 0].sum()
  assert 0.25 < (changes[truth.body] > 40).mean() < 0.75 and changes[~truth.body].mean() < 1
  plain = worn(checked(pattern='plain'))
  assert not plain.patterned.any()
  np.testing.assert_array_equal(plain.plain, plain.images)


def test_what_stands_before_a_garment_is_no_garment(worn):
  place = {'centre_x': 0.5, 'foot_y': 0.98, 'height': 0.9, 'occluder_x': 0.5}
  trousers = changed(bottom='trousers')
  whole = worn(trousers, changed(occluder='none', **place)).garments
  behind_bin = worn(trousers, changed(occluder='bin', **place)).garments
  hidden = np.s_[:, 1, 46:, 10:22]  # the lid is at 0.66 of 64 pixels, the bin 15 wide
  assert whole[hidden].any(axis=(1, 2)).all() and not behind_bin[hidden].any()
  assert (whole != behind_bin)[:, :, :40].mean() < 0.001


def test_fidelity_of_tops_that_can_be_drawn(worn):
  truth = worn(checked())

  def of(**values):
    images = worn(checked(**values)).images
    return pattern_fidelity(images, truth.images, truth.plain, truth.light[:, :2], truth.body)

  assert of() == pytest.approx(1)
  for colour in ((230, 200, 40), (204, 34, 40), (238, 238, 234), (34, 34, 40)):
    assert (np.abs(of(pattern='plain', top_colour=colour)) < 0.1).all()
  # Sleeves in the main colour, the body all in the second one or in the mean of both.
  for colour in ((40, 60, 180), (135, 130, 110)):
    assert (np.abs(of(pattern=WHOLE, top_second_colour=colour)) < 0.1).all()
  assert np.abs(of(pattern='dots')).mean() < 0.3
  swapped = of(top_colour=(40, 60, 180), top_second_colour=(230, 200, 40))
  assert (swapped < -0.7).all()


def test_true_cross_images_of_batches(tmp_path):
  config = tiny_config()
  index = open_dataset(config, tmp_path)
  source = make_source(index.train, config)
  given = with_true_cross(
    source.batches(3), source.sampler, config, index.root, index.train.paths, 3, lambda step: step == 4
  )
  first, second = next(given), next(given)
  assert first.cross_ground_truth is None
  assert second.cross_ground_truth.shape == second.image.shape and second.cross_ground_truth.dtype == np.uint8
  drawn = source.sampler.batch(4)['image']
  for stream in (0, 1):
    truth = render_truth(config, index.root, index.train.paths, drawn[:, 1 - stream], drawn[:, stream])
    np.testing.assert_array_equal(second.cross_ground_truth[:, stream], truth.images)
  np.testing.assert_array_equal(second.image, next(source.batches(4)).image)
