"""Reads the weights of FID's Inception-v3: pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or .safetensors.

Names and shapes are those of torchvision's Inception3 with 1008 classes. Tested with random weights only, because the
published file was not available.
"""

import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.interop.pretrained import read_weights
from dgnet_jax.interop.strict import load_strictly
from dgnet_jax.interop.torch_names import Entry
from dgnet_jax.models.inception import FEATURES, variable_shapes

NUM_CLASSES = 1008  # of the graph of 2015; torchvision's own weights, which do not give FID, have 1000
CLASSIFIER = {'fc.weight': ('kernel', (FEATURES, NUM_CLASSES), 'linear'), 'fc.bias': ('bias', (NUM_CLASSES,), 'vector')}
NAMES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def inception_entries() -> list[Entry]:
  """Returns the arrays of torchvision's Inception3 without its classifiers; our modules have its names."""
  paths = [tuple(key.key for key in path) for path, _ in jax.tree.leaves_with_path(variable_shapes())]
  return [
    Entry('.'.join((*path[1:-1], NAMES[path[-1]])), path, 'conv' if path[-1] == 'kernel' else 'vector')
    for path in paths
  ]


def load_inception(path: str | pathlib.Path) -> dict[str, Any]:
  """Loads the variables of `models.inception.Inception`. Nothing in the file is executed.

  The classifier is not needed, but if the file has one, it must be that of FID's network.

  Args:
    path: a .pth or .safetensors file.

  Returns:
    {'params', 'batch_stats'}, f32.

  Raises:
    UserError: the file is missing or damaged, or arrays are missing, unexpected or of another shape. The message lists
      all of them.
  """
  state_dict, template, entries = read_weights(path), variable_shapes(), inception_entries()
  classifier: dict[str, np.ndarray] = {}
  for name, (leaf, shape, kind) in CLASSIFIER.items():
    if name in state_dict:
      classifier[leaf] = np.empty(shape, np.float32)
      entries.append(Entry(name, ('params', 'fc', leaf), kind))
  template['params'] = dict(template['params'], fc=classifier)
  source = f"{path}, read as the weights of FID's Inception-v3,"
  variables = load_strictly(state_dict, entries, template, source=source, drop=None).variables
  variables['params'].pop('fc', None)
  return variables
