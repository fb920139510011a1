"""Weights of FID's Inception-v3: pytorch-fid's pt_inception-2015-12-05-6726825d.pth, or .safetensors of the same names.

Names and shapes are those of torchvision's Inception3 with 1008 classes. Tried with random numbers only: the published
file was not at hand.
"""

import pathlib
from typing import Any

from flax.traverse_util import flatten_dict
import jax
import numpy as np

from dgnet_jax.interop.pretrained import read_weights
from dgnet_jax.interop.strict import load_strictly
from dgnet_jax.interop.torch_names import Entry
from dgnet_jax.models.inception import FEATURES, inception_form

NUM_CLASSES = 1008  # of the graph of 2015; torchvision's own weights, with which a distance is no FID, have 1000
CLASSIFIER = {'fc.weight': ('kernel', (FEATURES, NUM_CLASSES), 'linear'), 'fc.bias': ('bias', (NUM_CLASSES,), 'vector')}
NAMES = {'kernel': 'weight', 'scale': 'weight', 'bias': 'bias', 'mean': 'running_mean', 'var': 'running_var'}


def inception_entries() -> list[Entry]:
  """torchvision's Inception3 without its classifier and the auxiliary one; our modules have its names."""
  return [
    Entry('.'.join((*path[1:-1], NAMES[path[-1]])), path, 'conv' if path[-1] == 'kernel' else 'vector')
    for path in flatten_dict(inception_form())
  ]


def load_inception(path: str | pathlib.Path) -> dict[str, Any]:
  """Parameters and statistics of `models.inception.Inception`; nothing in the file is executed.

  The classifier is not needed; where it is there, it must be that of FID's network.

  Args:
    path: of a .pth or .safetensors file.

  Returns:
    {'params', 'batch_stats'}, f32.

  Raises:
    UserError: the file is missing or damaged, or some names are missing, unexpected or of another shape; names all.
  """
  state_dict, form, entries = read_weights(path), inception_form(), inception_entries()
  form['params'] = dict(form['params'], fc={})
  for name, (leaf, shape, kind) in CLASSIFIER.items():
    if name in state_dict:
      form['params']['fc'][leaf] = jax.ShapeDtypeStruct(shape, np.float32)
      entries.append(Entry(name, ('params', 'fc', leaf), kind))
  where = f"{path}, read as the weights of FID's Inception-v3,"
  variables = load_strictly(state_dict, entries, form, where=where, drop=None).variables
  variables['params'].pop('fc', None)
  return variables
