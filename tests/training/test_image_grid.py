"""The image grid of a training run."""

import numpy as np

from dgnet_jax.inference import functions
from dgnet_jax.pixels import normalize
from dgnet_jax.training.image_grid import reconstruct
from tests.inference.linear_networks import HEIGHT, WIDTH, LinearNetworks, linear_parameters, random_images


def test_reconstructions_take_each_code_from_its_donor():
  networks, (generator, reid, stats) = LinearNetworks(), linear_parameters()
  image, positive = (np.asarray(normalize(random_images(6, seed))).reshape(3, 2, HEIGHT, WIDTH, 3) for seed in (0, 1))
  images = reconstruct(networks, generator, reid, stats, image=image, positive=positive)

  def swap(structure_from, appearance_from):
    return functions.swap(
      networks, generator, reid, stats, structure_from=structure_from, appearance_from=appearance_from
    )

  cross = np.stack([swap(image[:, 0], image[:, 1]), swap(image[:, 1], image[:, 0])], axis=1)
  cycle = np.stack([swap(cross[:, 0], cross[:, 1]), swap(cross[:, 1], cross[:, 0])], axis=1)
  expected = {
    'self_reconstruction': swap(image, image),
    'positive_reconstruction': swap(image, positive),
    'cross': cross,
    'cycle_reconstruction': cycle,
  }
  assert list(images) == list(expected)
  for name, value in expected.items():
    np.testing.assert_allclose(images[name], value, rtol=1e-4, atol=1e-4, err_msg=name)
