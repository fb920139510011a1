"""The manifest of a rendered data set: its settings, and the appearance and structure of every image."""

from collections.abc import Mapping
import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.data.synthetic.people import Appearance, Structure, appearance_from_json, structure_from_json
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_json

MANIFEST = 'truth.json'
FORMAT = 3  # of the manifest and the drawings; a folder of another format is not reused
# Names in manifests of format 3 that were written before these were renamed.
OLD_NAMES = {'photos': 'images', 'photos_per_identity': 'images_per_identity'}


class ImageDescription(NamedTuple):
  """What an image shows; `render(*description)` reproduces it."""

  appearance: Appearance
  structure: Structure


def write_manifest(root: pathlib.Path, settings: Mapping[str, Any], images: Mapping[str, ImageDescription]) -> None:
  """Writes the settings, each appearance once, and the appearance and structure of every file."""
  numbers = {look: index for index, look in enumerate(dict.fromkeys(look for look, _ in images.values()))}
  manifest = {
    'format': FORMAT,
    'settings': settings,
    'looks': [dataclasses.asdict(look) for look in numbers],
    'images': {
      path: {'look': numbers[look], 'structure': dataclasses.asdict(structure)}
      for path, (look, structure) in images.items()
    },
  }
  (root / MANIFEST).write_text(json.dumps(manifest), encoding='utf-8')


def _renamed(values: Mapping[str, Any]) -> dict[str, Any]:
  return {OLD_NAMES.get(name, name): value for name, value in values.items()}


def read_manifest(root: pathlib.Path) -> dict[str, Any]:
  """Reads a manifest; its format and settings exist, everything else is unchecked.

  Raises:
    UserError: the manifest is missing or damaged.
  """
  path = root / MANIFEST
  try:
    manifest = read_json(path)
  except FileNotFoundError as error:
    raise UserError(f'{root}: not a folder of built-in pedestrians ({MANIFEST} is missing)') from error
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: cannot be read ({error}); delete the folder {root} to render it again') from error
  if not isinstance(manifest, dict) or 'format' not in manifest or not isinstance(manifest.get('settings'), dict):
    raise UserError(f'{path}: not a manifest of built-in pedestrians; delete the folder {root} to render it again')
  return _renamed(manifest) | {'settings': _renamed(manifest['settings'])}


def image_descriptions(root: str | pathlib.Path) -> Mapping[str, ImageDescription]:
  """Reads what every image of a rendered data set shows.

  Args:
    root: folder written by `write_dataset`.

  Returns:
    A description for each path relative to `root`, with forward slashes. Rendering it reproduces the file up to JPEG's
    error.

  Raises:
    UserError: the manifest is missing or damaged.
  """
  root = pathlib.Path(root)
  manifest = read_manifest(root)
  try:
    looks = [appearance_from_json(values) for values in manifest['looks']]
    return {
      path: ImageDescription(looks[image['look']], structure_from_json(image['structure']))
      for path, image in manifest['images'].items()
    }
  except (TypeError, KeyError, IndexError, AttributeError, ValueError) as error:
    message = f'{root / MANIFEST}: not of this version ({error}); delete the folder {root} to render it again'
    raise UserError(message) from error
