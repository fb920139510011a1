"""Statistics of features over batches, with a network that is easy to compute: the mean colour."""

import functools

import jax
import numpy as np
import pytest

from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.inference import batching
from dgnet_jax.reports.feature_spaces import FeatureSpace, compare
from dgnet_jax.sharding import make_mesh
from dgnet_jax.utils import progress
from tests.data.folders import write_image

SIZE_HW = (20, 9)


def space_of(function):
  return FeatureSpace(
    title='mean colour',
    source='no file',
    resizing='bicubic',
    read=functools.partial(ImageFiles, image_size_hw=SIZE_HW),
    features=batching.BatchedFunction(jax.jit(function), batch_size=8, mesh=make_mesh()).batches,
  )


@pytest.fixture
def sets(tmp_path):
  image_sets = []
  for start, count in ((0, 13), (50, 21)):
    folder = tmp_path / str(start)
    folder.mkdir()
    for i in range(count):
      write_image(folder / f'{i:02d}.png', seed=start + i)
    image_sets.append(read_image_set(str(folder)))
  return image_sets


def colour(pixels):
  return pixels.astype(np.float32).mean((1, 2))


def test_statistics_do_not_depend_on_batches_and_padding(sets, monkeypatch, lines):
  monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', -1.0)
  lines.clear()  # of reading the sets
  gaussian = space_of(colour).gaussian(sets[1])
  expected = np.stack([ImageFiles(sets[1].paths, SIZE_HW)[i : i + 1][0].mean((0, 1)) for i in range(21)])
  assert gaussian.count == 21
  np.testing.assert_allclose(gaussian.mean, expected.mean(0), rtol=1e-5)
  np.testing.assert_allclose(gaussian.covariance, np.cov(expected, rowvar=False), rtol=1e-4)
  assert lines[0].startswith(f'mean colour: features of {sets[1].title}: 8/21') and 'images/s' in lines[1]


def test_compare_describes_the_distance(sets, lines):
  row = compare({'colour': space_of(colour)}, *sets)['colour']
  assert row.pop('distance') > 0 and not any('singular' in line for line in lines)
  assert row == {
    'dimensions': 3,
    'num_real': 13,
    'num_generated': 21,
    'title': 'mean colour',
    'source': 'no file',
    'resizing': 'bicubic',
  }


def test_compare_reports_sets_with_too_few_images(sets, lines):
  compare({'stripes': space_of(lambda pixels: pixels.astype(np.float32).mean((2, 3)))}, *sets)
  (message,) = [line for line in lines if 'singular' in line]
  assert message.startswith(f'{sets[0].title}: 13 images in 20 dimensions')  # the other set has 21


def test_features_that_are_not_finite_are_reported(sets):
  with pytest.raises(UserError, match='mean colour: features of .* not finite; no file may be damaged'):
    space_of(lambda pixels: colour(pixels) / 0).gaussian(sets[0])
