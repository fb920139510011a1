"""Rendered ground truth, its garments, and pattern fidelity on tops whose answer is known."""

import contextlib
import dataclasses

import jax
import numpy as np
import pytest

from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.synthetic import ground_truth
from dgnet_jax.data.synthetic.ground_truth import GroundTruthRenderer, with_cross_ground_truth
from dgnet_jax.data.synthetic.manifest import ImageDescription, image_descriptions
from dgnet_jax.data.synthetic.people import FILLED, PATTERNS
from dgnet_jax.evaluation.clothes_quality import colour_error, pattern_fidelity
from dgnet_jax.evaluation.image_quality import psnr
from dgnet_jax.sharding import batch_sharding, make_mesh
from tests.tiny_run import frozen, tiny_config


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """The config, the root and the image paths of twelve people with four images each."""
  config = tiny_config()
  config.data.image_size_hw = (64, 32)
  config.data.synthetic.update(num_test_identities=12, num_distractors=0, num_junk=0)
  data_config = frozen(config).data
  index = open_dataset(data_config, tmp_path_factory.mktemp('data'))
  return data_config, index.root, index.query.paths + index.gallery.paths


@pytest.fixture
def render_changed(data, monkeypatch):
  """Renders all images, after two functions have changed their appearances and structures."""
  data_config, root, paths = data
  original = image_descriptions(root)

  def render(change_appearance, change_structure=lambda structure: structure):
    changed = {
      path: ImageDescription(change_appearance(appearance), change_structure(structure))
      for path, (appearance, structure) in original.items()
    }
    monkeypatch.setattr(ground_truth, 'image_descriptions', lambda _: changed)
    everything = np.arange(len(paths))
    renderer = GroundTruthRenderer(data_config, root, paths)
    return renderer.with_garments(structure_from=everything, appearance_from=everything)

  return render


def with_values(**values):
  """Returns a function that replaces fields of an appearance or a structure."""
  return lambda part: dataclasses.replace(part, **values)


def with_checks(**values):
  """Returns a function that makes the top yellow and blue checks, and then replaces fields."""
  top = {'pattern': 'checks', 'top_colour': (230, 200, 40), 'top_second_colour': (40, 60, 180)}
  return with_values(**top | values)


def test_ground_truth_of_an_image_by_itself_is_the_image(data, render_changed):
  _, root, paths = data
  truth, images = render_changed(with_values()), ImageFiles(paths, (64, 32))[:]
  assert (psnr(truth.images, images) > 35).all()  # up to JPEG's error
  assert (colour_error(images, truth.images, truth.garments) < 1).all()
  fidelity = pattern_fidelity(images, truth.images, truth.plain, truth.light[:, :2], truth.body)
  appearances = [appearance for appearance, _ in image_descriptions(root).values()]
  assert 0 < truth.patterned.sum() < len(truth.patterned) and {appearance.pattern for appearance in appearances} <= set(
    PATTERNS
  )
  assert np.isnan(fidelity[~truth.patterned]).all() and (fidelity[~np.isnan(fidelity)] > 0.9).all()
  assert not np.isnan(fidelity[truth.patterned]).all()


def test_ground_truth_keeps_the_structure_and_changes_the_person(data):
  other = 12  # a query of another appearance
  own, swapped, donor = GroundTruthRenderer(*data).images(
    structure_from=np.array([0, 0, other]), appearance_from=np.array([0, other, other])
  )
  background = (own == swapped).all(axis=-1)
  assert 0.2 < background.mean() < 1
  assert (own == donor).all(axis=-1).mean() < 0.2


def test_garments_are_the_pixels_that_other_colours_change(render_changed):
  yellow = render_changed(with_checks(pattern='plain'))

  def changes(**values):
    other = render_changed(with_checks(pattern='plain', **values))
    np.testing.assert_array_equal(yellow.garments, other.garments)
    change = np.abs(yellow.images.astype(int) - other.images).max(axis=-1)
    return change / change.max(axis=(1, 2), keepdims=True)

  top, bottom = np.moveaxis(yellow.garments, 1, 0)
  for mask, change in ((top, changes(top_colour=(40, 60, 180))), (bottom, changes(bottom_colour=(255, 0, 255)))):
    assert (mask.sum(axis=(1, 2)) > 30).all()
    assert change[mask].min() > 0.3 and change[~mask].max() < 0.85 and change[~mask].mean() < 0.02
  assert (top & bottom).mean() < 0.01


def test_patterns_are_visible_only_on_the_body_of_the_top(render_changed):
  truth = render_changed(with_checks())
  changes = np.abs(truth.images.astype(int) - truth.plain).max(axis=-1)
  assert truth.patterned.all() and (truth.body <= truth.garments[:, 0]).all()
  assert truth.body.sum() < 0.9 * truth.garments[:, 0].sum()
  assert 0.25 < (changes[truth.body] > 40).mean() < 0.75 and changes[~truth.body].mean() < 1
  plain = render_changed(with_checks(pattern='plain'))
  assert not plain.patterned.any()
  np.testing.assert_array_equal(plain.plain, plain.images)


def test_occluded_garment_is_not_visible(render_changed):
  place = {'centre_x': 0.5, 'foot_y': 0.98, 'height': 0.9, 'occluder_x': 0.5}
  trousers = with_values(bottom='trousers')
  visible = render_changed(trousers, with_values(occluder='none', **place)).garments
  behind_bin = render_changed(trousers, with_values(occluder='bin', **place)).garments
  hidden = np.s_[:, 1, 46:, 10:22]  # the bin's lid is at 0.66 of 64 pixels; it is 15 wide
  assert visible[hidden].any(axis=(1, 2)).all() and not behind_bin[hidden].any()
  assert (visible != behind_bin)[:, :, :40].mean() < 0.001


def test_pattern_fidelity_of_known_tops(render_changed):
  truth = render_changed(with_checks())

  def fidelity(**values):
    images = render_changed(with_checks(**values)).images
    return pattern_fidelity(images, truth.images, truth.plain, truth.light[:, :2], truth.body)

  assert fidelity() == pytest.approx(1)
  for colour in ((230, 200, 40), (204, 34, 40), (238, 238, 234), (34, 34, 40)):
    assert (np.abs(fidelity(pattern='plain', top_colour=colour)) < 0.1).all()
  # Sleeves in the main colour, the body entirely in the second one or in the mean of both.
  for colour in ((40, 60, 180), (135, 130, 110)):
    assert (np.abs(fidelity(pattern=FILLED, top_second_colour=colour)) < 0.1).all()
  assert np.abs(fidelity(pattern='dots')).mean() < 0.3
  swapped = fidelity(top_colour=(40, 60, 180), top_second_colour=(230, 200, 40))
  assert (swapped < -0.7).all()


def test_cross_ground_truth_is_added_to_the_needed_batches(tmp_path):
  config = frozen(tiny_config())
  index = open_dataset(config.data, tmp_path)
  source = make_source(index.train, config)
  renderer = GroundTruthRenderer(config.data, index.root, index.train.paths)
  batches = with_cross_ground_truth(
    source.batches(3), source.sampler, renderer, start_step=3, is_needed=lambda step: step == 4
  )
  first, second = next(batches), next(batches)
  assert first.cross_ground_truth is None
  assert second.cross_ground_truth.shape == second.image.shape and second.cross_ground_truth.dtype == np.uint8
  drawn = source.sampler.batch(4)['image']
  for stream in (0, 1):
    rendered = renderer.with_garments(structure_from=drawn[:, 1 - stream], appearance_from=drawn[:, stream])
    np.testing.assert_array_equal(second.cross_ground_truth[:, stream], rendered.images)
  np.testing.assert_array_equal(second.image, next(source.batches(4)).image)


def test_cross_ground_truth_joins_batches_that_are_on_devices_already(tmp_path):
  config, mesh, batches = tiny_config(), make_mesh(), {}
  config.batch_size = 8  # over the tests' eight devices
  for config.data.loader in ('memory', 'device'):
    index = open_dataset(frozen(config).data, tmp_path)
    source = make_source(index.train, frozen(config))
    renderer = GroundTruthRenderer(frozen(config).data, index.root, index.train.paths)
    added = with_cross_ground_truth(source.batches(0), source.sampler, renderer, start_step=0, is_needed=bool)
    with contextlib.closing(device_batches(added, mesh)) as fed:
      batches[config.data.loader] = [next(fed), next(fed)]
  jax.tree.map(np.testing.assert_array_equal, batches['memory'], batches['device'])
  assert [batch.cross_ground_truth is None for batch in batches['device']] == [True, False]
  assert all(leaf.sharding == batch_sharding(mesh) for leaf in jax.tree.leaves(batches['device']))
