"""Statistics of features over batches, with a network that can be computed by hand."""

import jax
import numpy as np
import pytest

from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.inference import functions
from dgnet_jax.reports.feature_spaces import FeatureSpace, compare
from dgnet_jax.sharding import make_mesh
from tests.data.folders import write_image

SIZE_HW = (20, 9)


def space_of(function):
  def read(images):
    return ImageFiles(images.paths, SIZE_HW)

  return FeatureSpace('mean colour', 'nowhere', 'not at all', read, jax.jit(function), make_mesh(), 8)


@pytest.fixture
def sets(tmp_path):
  made = []
  for start, count in ((0, 13), (50, 21)):
    folder = tmp_path / str(start)
    folder.mkdir()
    for i in range(count):
      write_image(folder / f'{i:02d}.png', seed=start + i)
    made.append(read_image_set(str(folder)))
  return made


def colour(pixels):
  return pixels.astype(np.float32).mean((1, 2))


def test_batches_and_their_padding_leave_no_trace(sets, monkeypatch, lines):
  monkeypatch.setattr(functions, 'PROGRESS_SECONDS', -1.0)
  lines.clear()
  found = space_of(colour).gaussian(sets[1])
  expected = np.stack([ImageFiles(sets[1].paths, SIZE_HW)[i : i + 1][0].mean((0, 1)) for i in range(21)])
  assert found.count == 21
  np.testing.assert_allclose(found.mean, expected.mean(0), rtol=1e-5)
  np.testing.assert_allclose(found.covariance, np.cov(expected, rowvar=False), rtol=1e-4)
  assert lines[1].startswith(f'mean colour: features of {sets[1].title}: 8/21') and 'images/s' in lines[1]


def test_compare(sets, lines):
  lines.clear()
  row = compare({'colour': space_of(colour)}, *sets)['colour']
  assert row.pop('distance') > 0 and not any('warning' in line for line in lines)
  assert row == {
    'dimensions': 3,
    'num_real': 13,
    'num_generated': 21,
    'title': 'mean colour',
    'source': 'nowhere',
    'resizing': 'not at all',
  }


def test_features_that_are_not_finite_are_told(sets):
  with pytest.raises(UserError, match='mean colour: features of .* not finite; nowhere may be damaged'):
    space_of(lambda pixels: colour(pixels) / 0).gaussian(sets[0])
