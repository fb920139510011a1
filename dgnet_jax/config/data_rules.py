"""Which values the fields of the section `data` may have together."""

import re

from dgnet_jax.config.combinations import rule
from dgnet_jax.config.schema import Config
from dgnet_jax.data.layouts import NUM_SYNTHETIC_CAMERAS
from dgnet_jax.utils.paths import is_address


@rule('data.camera_pattern', 'data.layout')
def _camera_pattern_is_valid(config: Config) -> str:
  return _problem_with_pattern(config.data.camera_pattern, 'camera', r'cam(?P<camera>\d+)', config.data.layout)


@rule('data.identity_pattern', 'data.layout')
def _identity_pattern_is_valid(config: Config) -> str:
  return _problem_with_pattern(config.data.identity_pattern, 'identity', '^(?P<identity>[^_]+)_', config.data.layout)


def _problem_with_pattern(pattern: str, group: str, example: str, layout: str) -> str:
  if not pattern:
    return ''
  try:
    groups = re.compile(pattern).groupindex
  except re.error as error:
    return f'{pattern!r} is not a regular expression ({error})'
  if group not in groups:
    return f'{pattern!r} has no group named {group}, like {example}'
  return '' if layout == 'folders' else f"only layout folders reads it; leave it '' for {layout}, which has the {group}"


@rule('data.loader', 'data.layout')
def _loader_reads_records(config: Config) -> str:
  if config.data.layout != 'tfds' or config.data.loader != 'tfdata':
    return ''
  return 'tfdata reads files; use threads, memory or device for the records of layout tfds'


@rule('data.root', 'data.layout')
def _remote_data_is_a_folder(config: Config) -> str:
  if not is_address(config.data.root) or config.data.layout not in ('csv', 'synthetic'):
    return ''
  return f'layout {config.data.layout} is not read from object storage; copy it to this machine'


@rule('data.root', 'data.layout')
def _root_is_set(config: Config) -> str:
  if config.data.root or config.data.layout == 'synthetic':
    return ''
  return 'name the folder of the data set: --config.data.root=FOLDER'


@rule('evaluation.split', 'data.val_identities')
def _validation_split_exists(config: Config) -> str:
  if config.evaluation.split != 'validation' or config.data.val_identities:
    return ''
  return 'validation needs data.val_identities, the number of training identities that are held out'


@rule('data.synthetic.cameras_per_identity')
def _cameras_are_ordered(config: Config) -> str:
  cameras = config.data.synthetic.cameras_per_identity
  if len(cameras) == 2 and 2 <= cameras[0] <= cameras[1] <= NUM_SYNTHETIC_CAMERAS:
    return ''
  return f'{cameras} must be the fewest and the most cameras of an identity, from 2 to {NUM_SYNTHETIC_CAMERAS}'
