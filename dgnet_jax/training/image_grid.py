"""The image grid of a training run: images generated from a few training pairs."""

import functools

import jax
import numpy as np

from dgnet_jax.data.index import Split
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.data.sampling import PairSampler
from dgnet_jax.models.generators import Codes
from dgnet_jax.models.networks import Networks
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.plots.sheets import image_grid
from dgnet_jax.sharding import local_copy
from dgnet_jax.types import Array, Params, TrainState
from dgnet_jax.utils.xla_options import jit_network

MAX_PAIRS = 8  # columns of the grid


def reconstruct(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  image: Array,
  positive: Array,
) -> dict[str, Array]:
  """Reconstructs pairs of images and swaps their appearances, with the networks in test mode.

  Args:
    networks: from `make_networks`.
    generator_params: parameters of the generator.
    reid_params: parameters of the appearance encoder.
    reid_stats: its running statistics.
    image: f[B, 2, H, W, 3], normalized; axis 1 holds the two identities of a pair.
    positive: f[B, 2, H, W, 3], other images of the same identities.

  Returns:
    f[B, 2, H, W, 3] each, indexed by the structure donor: self_reconstruction, positive_reconstruction (appearance of
    the positive), cross (appearance of the other identity), cycle_reconstruction (from the codes of the cross images).
  """
  encode_structure = functools.partial(networks.encode_structure, generator_params)
  decode = functools.partial(networks.decode, generator_params)

  def encode_appearance(x: Array) -> Codes:
    return networks.appearance_code(generator_params, x, networks.encode_appearance(reid_params, reid_stats, x).code)

  structure_code, appearance_code = encode_structure(image), encode_appearance(image)

  def swapped(code: Codes) -> Codes:
    return jax.tree.map(lambda x: x[:, ::-1], code)

  cross = decode(structure_code, swapped(appearance_code))
  return {
    'self_reconstruction': decode(structure_code, appearance_code),
    'positive_reconstruction': decode(structure_code, encode_appearance(positive)),
    'cross': cross,
    'cycle_reconstruction': decode(encode_structure(cross), swapped(encode_appearance(cross))),
  }


class ImageGrid:
  """Draws the same training pairs each time: originals, reconstructions, cross images and cycle reconstructions."""

  def __init__(self, networks: Networks, split: Split, sampler: PairSampler) -> None:
    """Takes the pairs from the first batch of all processes, so that their number does not matter.

    Args:
      networks: from `make_networks`.
      split: the training images.
      sampler: draws the training batches.
    """
    drawn = sampler.global_batch(0)

    def read(name: str) -> np.ndarray:
      indices = drawn[name][:MAX_PAIRS]
      images = ImageFiles([split.paths[i] for i in indices.ravel()], networks.image_size_hw)[:]
      return normalize(images.reshape(*indices.shape, *images.shape[1:]))

    self._image, self._positive = read('image'), read('positive')
    self._reconstruct = jit_network(functools.partial(reconstruct, networks))

  def draw(self, state: TrainState) -> np.ndarray:
    """Returns the grid u8[height, width, 3] for the networks of `state`."""
    networks = state.generator.params, state.reid.params, state.reid.batch_stats
    generated = self._reconstruct(*local_copy(networks), image=self._image, positive=self._positive)
    rows = {'original': self._image, 'positive': self._positive} | dict(generated)
    pixels = {name: denormalize(np.asarray(image[:, 0])) for name, image in rows.items()}
    pixels['appearance of cross'] = denormalize(np.asarray(self._image[:, 1]))
    return image_grid(pixels)
