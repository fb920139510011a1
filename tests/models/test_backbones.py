"""The geometry of every backbone: the size of its map, how far its cells are apart, and where they look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.backbones import map_size, num_channels
from dgnet_jax.models.backbones import cells, make_backbone
from dgnet_jax.models.batch_norm import BatchNormMode

SIZES = [
  ('resnet', (1,)),
  ('resnet', (1, 1)),
  ('resnet_ibn_a', (1, 2, 1)),
  ('resnet', (1, 1, 1, 1)),
  ('osnet', (1, 1, 1)),
]


@pytest.mark.parametrize('last_stride', [1, 2])
@pytest.mark.parametrize(('kind', 'stage_sizes'), SIZES)
@pytest.mark.parametrize('image_size_hw', [(128, 64), (68, 36)])
def test_map_has_the_size_that_the_rules_of_a_config_compute(kind, stage_sizes, last_stride, image_size_hw):
  def run(image):
    network = make_backbone(kind, stage_sizes, 4, last_stride, None)
    return network.init_with_output(jax.random.key(0), image, BatchNormMode())[0]

  features = jax.eval_shape(run, jnp.zeros((1, *image_size_hw, 3)))
  height, width = (map_size(kind, stage_sizes, last_stride, pixels) for pixels in image_size_hw)
  assert features.shape == (1, height, width, num_channels(kind, stage_sizes, 4))
  if image_size_hw == (128, 64):
    assert height == 128 // cells(kind, stage_sizes, last_stride)[0]


@pytest.mark.parametrize(('kind', 'stage_sizes', 'cell'), [('resnet', (1, 1), (7, 8)), ('osnet', (1, 1, 1), (4, 3))])
def test_cells_look_where_they_should(kind, stage_sizes, cell):
  """With equal weights, a cell's gradient is symmetric around the pixel that it looks at."""
  network, mode, size = make_backbone(kind, stage_sizes, 1, 1, None), BatchNormMode(), 128
  shapes = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, mode), jnp.zeros((1, size, size, 3)))
  variables = jax.tree.map(lambda x: jnp.full(x.shape, 0.01 if x.ndim > 1 else 1.0), shapes)
  variables = jax.tree.map_with_path(lambda path, x: 0 * x if path[-1].key == 'mean' else x, variables)
  stride, first = cells(kind, stage_sizes, 1)
  place = first + stride * np.array(cell)
  rows, columns = np.mgrid[:size, :size]
  hill = 2 * size - np.abs(rows - place[0]) - np.abs(columns - place[1])  # so that maxima of windows are symmetric, too

  @jax.jit
  @jax.grad
  def reach(image):
    return network.apply(variables, image, mode)[(0, *cell)].sum()

  weight = np.asarray(reach(jnp.float32(np.stack([hill] * 3, axis=-1))[None]))[0].sum(-1)
  center = [(weight * position).sum() / weight.sum() for position in (rows, columns)]
  assert weight.sum() > 0
  np.testing.assert_allclose(center, place, atol=0.6)
