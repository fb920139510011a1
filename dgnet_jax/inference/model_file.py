"""A trained model in one file: safetensors, with the config in its metadata. The package comes with one."""

from collections.abc import Mapping
import json
import math
import pathlib
from typing import Any

from flax import traverse_util
import jax
import numpy as np
import safetensors.numpy

from dgnet_jax.config.loading import complete_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import shown
from dgnet_jax.errors import UserError
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.interop.safetensors_file import read_safetensors
from dgnet_jax.models.build import make_networks
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.types import Array
from dgnet_jax.utils.atomic_files import atomic_file
from dgnet_jax.utils.bounded_files import parse_json
from dgnet_jax.utils.text import printable, shortened

SUFFIX = '.safetensors'
KEY = 'dgnet_jax.model'  # of the description in the metadata
FORMAT = 1  # of the description
MAX_IDENTITIES = 10_000_000  # of a file that others may have made
MAX_PIXELS = 2**22  # of an image
MAX_SHOWN = 3  # arrays that a message names
MAX_REASON = 200  # characters of what is wrong with a description


def flat_parameters(predictor: Predictor) -> dict[str, np.ndarray]:
  """Returns parameters and statistics by flat names: generator/... if there is a generator, reid/..., reid_stats/..."""
  parameters = {'generator': predictor.generator, 'reid': predictor.reid, 'reid_stats': predictor.reid_stats}
  present = {name: tree for name, tree in parameters.items() if tree is not None}
  flat = traverse_util.flatten_dict(jax.device_get(present), sep='/')  # type: ignore[no-untyped-call]
  return {name: np.asarray(array, order='C') for name, array in flat.items()}  # also of no dimensions


def write_model(predictor: Predictor, config: Config, path: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Writes a model file.

  Args:
    predictor: the trained networks.
    config: of the run.
    path: the file; replaced if it exists.
    about: what else to store, as JSON: where the model is from, and what it was measured to do.
  """
  description = {
    'format': FORMAT,
    'step': predictor.step,
    'num_identities': predictor.num_identities,
    'config': config.to_dict(),
    'about': about,
  }
  with atomic_file(path) as temporary:
    temporary.write_bytes(safetensors.numpy.save(flat_parameters(predictor), {KEY: json.dumps(description)}))


def read_description(metadata: Mapping[str, str], path: pathlib.Path) -> dict[str, Any]:
  """Returns format, step, num_identities, config and about of a model file.

  Raises:
    UserError: the file is no model file, of a later version, or damaged.
  """
  if KEY not in metadata:
    raise UserError(f'{path}: not a model of dgnet_jax; `dgnet export RUN --out=FILE{SUFFIX}` writes one')
  try:
    description: dict[str, Any] = parse_json(metadata[KEY])
    if description['format'] != FORMAT:
      raise UserError(f'{path}: of format {shown(description["format"])}; this version reads format {FORMAT}')
    for name, most in (('step', 2**31), ('num_identities', MAX_IDENTITIES)):
      if type(description[name]) is not int or not 0 <= description[name] <= most:
        raise ValueError(f'{name} is {shown(description[name])}')
    if not isinstance(description['config'], dict) or not isinstance(description['about'], dict):
      raise ValueError('config or about is no table')
  except (ValueError, KeyError, TypeError) as error:
    reason = printable(shortened(str(error), MAX_REASON))
    raise UserError(f'{path}: the description of the model is damaged ({reason}); copy the file again') from error
  return description


def read_about(path: pathlib.Path) -> dict[str, Any]:
  """Returns what a model file says about where it is from; raises UserError as `read_model`."""
  about: dict[str, Any] = read_description(read_safetensors(path)[1], path)['about']
  return about


def read_model(path: pathlib.Path, *, batch_size: int) -> tuple[Predictor, Config]:
  """Reads a model file.

  Args:
    path: the file.
    batch_size: images per call of a network.

  Raises:
    UserError: the file is missing or damaged, of a later version, or its arrays are not those of its config.
  """
  arrays, metadata = read_safetensors(path)
  description = read_description(metadata, path)
  config = _config_of(description, len(arrays), path)
  networks = make_networks(config, description['num_identities'])

  def parameters(key: Array) -> dict[str, Any]:
    reid, reid_stats = networks.init_reid(key)
    generator = networks.init_generator(key) if any(name.startswith('generator/') for name in arrays) else {}
    return {'generator': generator, 'reid': reid, 'reid_stats': reid_stats}

  shapes = jax.eval_shape(parameters, jax.random.key(0))
  _check_arrays(arrays, traverse_util.flatten_dict(shapes, sep='/'), path)  # type: ignore[no-untyped-call]
  mesh = make_mesh(jax.local_devices())
  tree = traverse_util.unflatten_dict(arrays, sep='/')  # type: ignore[no-untyped-call]
  state = jax.device_put(tree, replicated(mesh))
  predictor = Predictor(
    networks=networks,
    generator=state.get('generator'),
    reid=state['reid'],
    reid_stats=state['reid_stats'],
    mesh=mesh,
    batch_size=batch_size,
    num_identities=description['num_identities'],
    step=description['step'],
  )
  return predictor, config


def _config_of(description: Mapping[str, Any], num_arrays: int, path: pathlib.Path) -> Config:
  """Returns the config of a model file.

  Raises:
    UserError: it is not valid, or its networks would have more blocks than the file has arrays, or images of more than
      `MAX_PIXELS`: to build them would take for ever, only to find that the arrays do not fit.
  """
  try:
    config = complete_config(description['config'])
  except UserError as error:
    raise UserError(f'{path}: {error}') from error
  blocks = {
    'reid.stage_sizes': sum(config.reid.stage_sizes) + len(config.reid.stage_sizes),
    'reid.num_parts': config.reid.num_parts,
    'structure_encoder.num_res_blocks': config.structure_encoder.num_res_blocks,
    'structure_encoder.dilations': len(config.structure_encoder.dilations),
    'decoder.num_res_blocks': config.decoder.num_res_blocks,
    'correspondence.num_res_blocks': config.correspondence.num_res_blocks,
  }
  for name, count in blocks.items():
    if count > num_arrays:
      raise UserError(f'{path}: {name} asks for more than the {num_arrays} arrays in the file; export the model again')
  if math.prod(config.data.image_size_hw) > MAX_PIXELS:
    raise UserError(f'{path}: images of {config.data.image_size_hw} are more than {MAX_PIXELS:,} pixels')
  return config


def _check_arrays(arrays: Mapping[str, np.ndarray], expected: Mapping[str, Any], path: pathlib.Path) -> None:
  """Raises UserError unless the arrays have the names, shapes and dtypes of the networks, and are finite."""
  found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
  wanted = {name: (leaf.shape, np.dtype(leaf.dtype)) for name, leaf in expected.items() if hasattr(leaf, 'shape')}
  wrong = sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
  wrong = wrong or sorted(name for name, array in arrays.items() if not np.isfinite(array).all())
  if wrong:
    named = ', '.join(printable(shortened(name)) for name in wrong[:MAX_SHOWN])
    named += f' and {len(wrong) - MAX_SHOWN} more' if len(wrong) > MAX_SHOWN else ''
    raise UserError(f'{path}: arrays that are not those of its config, or not finite: {named}; export the model again')
