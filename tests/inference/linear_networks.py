"""Stand-ins for the networks whose outputs can be computed by hand."""

import dataclasses
import types

import jax
import numpy as np

from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.models.teacher import TeacherOutput
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.types import AppearanceOutput

HEIGHT, WIDTH = 8, 4


@dataclasses.dataclass(frozen=True, eq=False)
class LinearNetworks:
  """Replaces `Networks`: every code and every feature is a linear map of the image.

  `traces` gets the shape of each traced call of the appearance encoder.
  """

  traces: list = dataclasses.field(default_factory=list)
  image_size_hw = (HEIGHT, WIDTH)
  generator = types.SimpleNamespace(fetches=False)
  reid_scale = 1
  reid_cells = 1, 0

  def encode_structure(self, params, image):
    return image.mean(-1, keepdims=True) * params['structure']

  def encode_appearance(self, params, batch_stats, image):
    self.traces.append(image.shape)
    flat = image.reshape(*image.shape[:-3], -1)
    code = image.mean((-3, -2)) + batch_stats['mean']
    features = flat @ params['primary'], flat @ params['fine']
    return AppearanceOutput(code, code, code, *features, *features)

  def appearance_code(self, params, image, appearance):
    return appearance

  def join_donors(self, codes, weight, *, compete):
    def mean(x):
      return (x * weight.reshape(*weight.shape, *[1] * (x.ndim - weight.ndim))).sum(1)

    return jax.tree.map(mean, codes)

  def decode(self, params, structure_code, appearance_code):
    return structure_code + params['appearance'] * appearance_code[..., None, None, :]

  def feature_map(self, params, batch_stats, image):
    return image + batch_stats['mean']


class NestedCodes(LinearNetworks):
  """Like `LinearNetworks`, with codes that are dictionaries of two arrays."""

  def encode_structure(self, params, image):
    structure = super().encode_structure(params, image)
    return {'map': structure, 'offset': structure.mean((-3, -2, -1))}

  def encode_appearance(self, params, batch_stats, image):
    output = super().encode_appearance(params, batch_stats, image)
    return output.replace(code={'color': output.code, 'scale': output.code.mean(-1)})

  def decode(self, params, structure_code, appearance_code):
    image = super().decode(params, structure_code['map'], appearance_code['color'])
    return image + (structure_code['offset'] * appearance_code['scale'])[..., None, None, None]


@dataclasses.dataclass(frozen=True, eq=False)
class LinearTeacher:
  """Replaces `TeacherNetwork`."""

  reid_scale = 2

  def apply(self, params, batch_stats, image):
    feature = image.reshape(*image.shape[:-3], -1) @ params['feature'] + batch_stats['mean']
    return TeacherOutput(feature, feature, feature), batch_stats


def linear_parameters():
  """Parameters of the generator and of the appearance encoder, and its statistics."""
  rng = np.random.default_rng(0)
  reid = {name: np.float32(rng.normal(size=(HEIGHT * WIDTH * 3, 5))) for name in ('primary', 'fine')}
  generator = {'structure': np.float32(2), 'appearance': np.float32(3)}
  return generator, reid, {'mean': np.float32([0.1, 0.2, 0.3])}


def linear_predictor(batch_size=4, devices=None, networks=None, **changes):
  """A predictor with `LinearNetworks`, on one device unless `devices` are given."""
  mesh = make_mesh(devices or jax.local_devices()[:1])
  generator, reid, reid_stats = jax.device_put(linear_parameters(), replicated(mesh))
  return dataclasses.replace(
    Predictor(networks or LinearNetworks(), generator, reid, reid_stats, mesh, batch_size, num_identities=9, step=7),
    **changes,
  )


def random_images(count, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (count, HEIGHT, WIDTH, 3), dtype=np.uint8)


def unit(x):
  return x / np.linalg.norm(x, axis=-1, keepdims=True)
