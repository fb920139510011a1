"""Reads safetensors files, whoever wrote them: nothing in them is executed, and their sizes are checked first."""

import pathlib

import numpy as np
import safetensors
import safetensors.numpy

from dgnet_jax.errors import UserError
from dgnet_jax.interop.strict import MAX_ARRAYS, MAX_NAME
from dgnet_jax.interop.torch_file import MAX_FILE_BYTES
from dgnet_jax.interop.torch_pickle import MAX_AXES
from dgnet_jax.utils.bounded_files import open_regular, parse_json
from dgnet_jax.utils.text import printable, shortened

MAX_HEADER_BYTES = 16 * 2**20  # names and shapes; those of ResNet-50 take 40 kB
MAX_REASON = 200  # characters of an error of the library, which may name an array


def read_safetensors(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
  """Returns the arrays of a file by name, and its metadata.

  Raises:
    UserError: the file is missing or damaged, or something else.
  """
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    metadata = _checked_metadata(path)
    return safetensors.numpy.load_file(path), metadata
  except (safetensors.SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
    reason = printable(shortened(str(error), MAX_REASON))
    raise UserError(f'{path}: damaged, or not a safetensors file ({reason}); download or copy it again') from error


def _checked_metadata(path: pathlib.Path) -> dict[str, str]:
  """Returns the metadata; raises OSError, ValueError or another error for a file that is, or has shapes, too large."""
  with open_regular(path, MAX_FILE_BYTES) as file:
    size = int.from_bytes(file.read(8), 'little')
    if size > MAX_HEADER_BYTES:
      raise ValueError(f'a header of {size} bytes')
    entries = parse_json(file.read(size).decode())
  metadata = entries.pop('__metadata__', {})
  if len(entries) > MAX_ARRAYS or any(len(name) > MAX_NAME for name in entries):
    raise ValueError(f'more than {MAX_ARRAYS} arrays, or a name of more than {MAX_NAME} characters')
  for entry in entries.values():
    shape = entry['shape']
    if len(shape) > MAX_AXES or not all(type(axis) is int and 0 <= axis <= MAX_FILE_BYTES for axis in shape):
      raise ValueError(f'an array of {len(shape)} axes, or of axes that are too long')
  return {str(name): str(text) for name, text in metadata.items()}
