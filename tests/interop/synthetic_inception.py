"""A state dict of FID's Inception-v3 with random numbers."""

import numpy as np

from dgnet_jax.interop.inception import inception_entries
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.models.inception import variable_shapes
from tests.interop.synthetic_release import random_state_dict


def file_shapes():
  """The shapes in the published file by name."""
  ours = torch_shapes(variable_shapes(), inception_entries())
  counters = {name.replace('running_mean', 'num_batches_tracked'): () for name in ours if 'running_mean' in name}
  return ours | counters | {'fc.weight': (1008, 2048), 'fc.bias': (1008,)}


def synthetic_inception(seed=0):
  """Random arrays; kernels are scaled so that activations neither grow nor vanish from layer to layer."""
  state_dict = random_state_dict(file_shapes(), seed)
  for name, array in state_dict.items():
    if name.endswith('conv.weight'):
      state_dict[name] = array * np.float32(10 * np.sqrt(2 / np.prod(array.shape[1:])))
    elif name.endswith('bn.weight'):
      state_dict[name] = 1 + array
  return state_dict
