"""The backbone's geometry: how far its cells are apart, and where they look."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.batch_norm import BatchNormMode
from dgnet_jax.models.resnet import ResNet


@pytest.mark.parametrize('last_stride', [1, 2])
@pytest.mark.parametrize('stage_sizes', [(1,), (1, 1), (1, 2, 1), (1, 1, 1, 1)])
def test_stride_is_that_of_the_features(stage_sizes, last_stride):
  def run(image):
    return ResNet(stage_sizes, 2, last_stride).init_with_output(jax.random.key(0), image, BatchNormMode())[0]

  features = jax.eval_shape(run, jnp.zeros((1, 128, 64, 3)))
  stride = ResNet.stride(stage_sizes, last_stride)
  assert features.shape[1:3] == (128 // stride, 64 // stride)


def test_cells_look_at_multiples_of_the_stride():
  """With equal weights, a cell's gradient is symmetric around the pixel that it looks at."""
  network, mode, (row, column) = ResNet((1, 1), 1, 1), BatchNormMode(), (7, 8)
  shapes = jax.eval_shape(lambda image: network.init(jax.random.key(0), image, mode), jnp.zeros((1, 64, 64, 3)))
  variables = jax.tree.map(lambda x: jnp.ones(x.shape), shapes)
  y, x = np.mgrid[:64, :64]
  place = np.multiply(ResNet.stride((1, 1), 1), (row, column))
  hill = 200 - np.abs(y - place[0]) - np.abs(x - place[1])  # so that the maxima of windows are symmetric, too

  @jax.jit
  @jax.grad
  def reach(image):
    return network.apply(variables, image, mode)[0, row, column].sum()

  weight = np.asarray(reach(jnp.float32(np.stack([hill] * 3, axis=-1))[None]))[0].sum(-1)
  center = [(weight * position).sum() / weight.sum() for position in (y, x)]
  np.testing.assert_allclose(center, place, atol=0.6)
