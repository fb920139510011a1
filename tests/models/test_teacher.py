"""The teacher's two normalisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.models.teacher import TeacherCnn, TeacherNetwork


@pytest.fixture(scope='module')
def teacher():
  cnn = TeacherCnn(stage_sizes=(1,), width=2, last_stride=1, pool='avg', head_width=3, num_identities=4, dropout=0.5)
  network = TeacherNetwork(cnn, image_size_hw=(16, 8), reid_scale=1)
  return network, *network.init(jax.random.key(0))


def _image(*lead):
  return jnp.asarray(np.random.default_rng(0).normal(2.0, 3.0, size=(*lead, 16, 8, 3)), jnp.float32)


def test_running_norm_leaves_the_statistics_unchanged(teacher):
  network, params, batch_stats = teacher
  output, updated = network.apply(params, batch_stats, _image(2, 3))
  assert output.logits.shape == (2, 3, 4) and output.feature.shape == (2, 3, 3)
  jax.tree.map(np.testing.assert_array_equal, updated, batch_stats)


def test_batch_norm_updates_the_statistics(teacher):
  network, params, batch_stats = teacher
  output, updated = network.apply(params, batch_stats, _image(4, 2), norm='batch')
  assert output.logits.shape == (4, 2, 4)
  assert all(
    (new != old).any() for new, old in zip(jax.tree.leaves(updated), jax.tree.leaves(batch_stats), strict=True)
  )


def test_unknown_norm_is_an_error(teacher):
  network, params, batch_stats = teacher
  with pytest.raises(ValueError, match=r"norm='eval'.*'running', 'batch'"):
    network.apply(params, batch_stats, _image(4, 2), norm='eval')
