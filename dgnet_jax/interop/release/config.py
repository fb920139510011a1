"""Converts the release's settings (config.yaml, and a teacher's opts.yaml) to our fields and back."""

from collections.abc import Mapping
import pathlib
from typing import Any

import yaml

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.ranges import CHOICES
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, nested
from dgnet_jax.errors import UserError
from dgnet_jax.utils.bounded_files import read_text

MAX_YAML_BYTES = 2**16  # the release's configs have 4,000
MAX_YAML_DEPTH = 8  # the release's configs have two levels
MAX_YAML_SCALAR = 1000  # characters

# Our fields by the release's key; a number at the end is an index into a tuple. Keys of the sections gen and dis have a
# dot.
FIELDS: dict[str, tuple[str, ...]] = {
  'batch_size': ('batch_size',),
  'max_iter': ('num_steps',),
  'crop_image_height': ('data.image_size_hw.0',),
  'crop_image_width': ('data.image_size_hw.1',),
  'num_workers': ('data.decode_threads',),
  'erasing_p': ('augment.random_erasing_prob',),
  'gen.dim': ('structure_encoder.width',),
  'gen.n_res': ('structure_encoder.num_res_blocks', 'decoder.num_res_blocks'),
  'gen.mlp_dim': ('decoder.mlp_width',),
  'gen.mlp_norm': ('decoder.mlp_norm',),
  'gen.dec': ('decoder.block',),
  'gen.non_local': ('decoder.non_local',),
  'gen.activ': ('generator.activation',),
  'gen.pad_type': ('generator.padding',),
  'gen.tanh': ('structure_encoder.tanh',),
  'single': ('structure_encoder.input',),
  'dis.gan_type': ('discriminator.gan_type',),
  'dis.dim': ('discriminator.width',),
  'dis.num_scales': ('discriminator.num_scales',),
  'dis.n_res': ('discriminator.num_res_blocks',),
  'dis.norm': ('discriminator.norm',),
  'dis.activ': ('discriminator.activation',),
  'dis.pad_type': ('discriminator.padding',),
  'dis.non_local': ('discriminator.non_local',),
  'dis.LAMBDA': ('discriminator.r1_weight',),
  'ID_style': ('reid.style',),
  'norm_id': ('reid.normalize_code',),
  'ID_stride': ('reid.last_stride',),
  'pool': ('reid.pool',),
  'lr_g': ('optimizer.generator_learning_rate',),
  'lr_d': ('optimizer.discriminator_learning_rate',),
  'lr2': ('optimizer.reid_learning_rate',),
  'beta1': ('optimizer.adam_betas.0',),
  'beta2': ('optimizer.adam_betas.1',),
  'weight_decay': ('optimizer.weight_decay',),
  'lr_policy': ('optimizer.schedule',),
  'step_size': ('optimizer.decay_steps',),
  'gamma': ('optimizer.gan_decay',),
  'gamma2': ('optimizer.reid_decay',),
  'gan_w': ('weights.adversarial',),
  'recon_x_w': ('weights.self_reconstruction',),
  'recon_xp_w': ('weights.positive_reconstruction',),
  'recon_id_w': ('weights.cross_identity',),
  'id_w': ('weights.identity',),
  'pid_w': ('weights.positive_identity',),
  'recon_s_w': ('ramps.structure_code.initial',),
  'recon_f_w': ('ramps.appearance_code.initial',),
  'recon_x_cyc_w': ('ramps.cycle.initial',),
  'teacher_w': ('ramps.teaching.initial',),
  'max_w': ('ramps.structure_code.maximum', 'ramps.appearance_code.maximum'),
  'max_cyc_w': ('ramps.cycle.maximum',),
  'max_teacher_w': ('ramps.teaching.maximum',),
  'warm_iter': tuple(f'ramps.{ramp}.start_step' for ramp in ('structure_code', 'appearance_code', 'cycle')),
  'warm_teacher_iter': ('ramps.teaching.start_step',),
  'warm_scale': tuple(f'ramps.{ramp}.per_step' for ramp in ('structure_code', 'appearance_code', 'cycle', 'teaching')),
  'use_encoder_again': ('structure_encoder_update_prob',),
  'T_w': ('teaching.primary',),
  'B_w': ('teaching.fine_grained',),
  'teacher_style': ('teaching.label_style',),
  'train_bn': ('teaching.teacher_norm',),
  'log_iter': ('log.progress_every_steps',),
  'image_display_iter': ('log.images_every_steps',),
  'snapshot_save_iter': ('log.checkpoint_every_steps',),
}
# The release's values and ours by the release's key, where they differ.
_NORMS = {'in': 'instance', 'bn': 'batch', 'ln': 'layer', 'sn': 'spectral'}
_ACTIVATIONS = {'lrelu': 'leaky_relu'}
VALUES: dict[str, dict[Any, Any]] = {
  'train_bn': {True: 'batch', False: 'running'},
  'teacher_style': dict(enumerate(CHOICES['teaching.label_style'])),
  'gen.activ': _ACTIVATIONS,
  'dis.activ': _ACTIVATIONS,
  'gen.mlp_norm': _NORMS,
  'dis.norm': _NORMS,
}
# What a re-id style of the release implies regardless of the other settings (facts 16 and 33, and its list of bugs).
STYLES: dict[str, dict[str, Any]] = {
  'AB': {'reid.normalize_code': False},
  'normal': {'reid.last_stride': 2},
  'PCB': {
    'reid.normalize_code': False,
    'reid.last_stride': 1,
    'reid.pool': 'avg',
    'ramps.teaching.initial': 0.0,
    'ramps.teaching.maximum': 0.0,
  },
}
# Settings of the release of which only one value is supported.
FIXED: dict[str, Any] = {
  'vgg_w': 0,
  'input_dim_a': 1,
  'gen.dropout': 0,
  'gen.n_downsample': 2,
  'dis.n_layer': 2,
}
# Fields that change what is trained but have no setting in the release.
OURS_ALONE = {
  'generator.design': 'the release has one design, adain',
  'optimizer.generator_steps': 'the release trains the generator in all steps',
  'optimizer.gan_schedule': 'the release has one schedule',
  'optimizer.reid_schedule': 'the release has one schedule',
  'optimizer.reid_warmup_steps': 'the release has no warm-up of the rates',
  'data.images_per_identity': 'the release draws shuffled images',
  'weights.triplet': 'the release has no metric losses',
  'weights.circle': 'the release has no metric losses',
  'reid.label_smoothing': 'the release does not smooth labels',
  'generator.non_local_residual': 'the release has no name for non-local blocks within residual blocks',
  'reid.detach_code': 'the release always detaches the code',
  'teaching.fine_on_real': 'the release has one weight, B_w, for real and for cross images',
  'teaching.teacher_dropout': 'the release leaves it on by accident after its first image dump',
  'reid.batch_norm_group': 'the release normalizes over all images of a call',
  'structure_encoder.dilations': 'the release has 3, 6, 9',
  'reid.num_parts': 'the release has 4',
}
# The parts of a re-id network or a teacher that the release has.
RELEASE_PARTS = {'backbone': ('resnet',), 'pool': ('max', 'avg'), 'neck': ('release',)}
# Settings that nothing in the release reads (fact 35), that concern its display and folders, or that the shapes of the
# arrays determine.
WITHOUT_EFFECT = {
  *('use_decoder_again', 'sqrt', 'input_dim_b', 'new_size', 'display_size', 'image_save_iter', 'apex'),
  *('data_root', 'teacher', 'gen.init', 'gen.id_dim', 'ID_class'),
}
TEACHER_FIELDS = {'stride': 'teacher.last_stride', 'droprate': 'teacher.dropout'}
TEACHER_FIXED = {'use_dense': False, 'PCB': False}


def read_yaml(path: str | pathlib.Path) -> dict[str, Any]:
  """Reads a YAML file of settings.

  Returns:
    The values by dotted key.

  Raises:
    UserError: the file cannot be read, or is not a YAML mapping.
  """
  try:
    text = read_text(path, MAX_YAML_BYTES)
    _check_yaml(text)
    values = yaml.safe_load(text)
  # PyYAML raises ValueErrors and others for values that look like numbers or dates but are none.
  except (OSError, ValueError, KeyError, IndexError, OverflowError, TypeError, yaml.YAMLError) as error:
    raise UserError(f'{path}: cannot be read as YAML: {error}') from error
  if not isinstance(values, dict):
    raise UserError(f'{path}: not a YAML mapping of names to values')
  return flatten(values)


def _check_yaml(text: str) -> None:
  """Raises ValueError for YAML that could grow when it is read: by references, deep nesting or long numbers."""
  depth = 0
  for event in yaml.parse(text, Loader=yaml.SafeLoader):
    depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    if depth > MAX_YAML_DEPTH:
      raise ValueError(f'nested more than {MAX_YAML_DEPTH} levels deep')
    if isinstance(event, yaml.AliasEvent):
      raise ValueError('references (*name), which no config of the release has')
    if isinstance(event, yaml.ScalarEvent) and len(event.value) > MAX_YAML_SCALAR:
      raise ValueError(f'a value of more than {MAX_YAML_SCALAR} characters')


def flatten(settings: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the release's nested settings by dotted key."""
  flat: dict[str, Any] = {}
  for key, value in settings.items():
    flat |= {f'{key}.{name}': item for name, item in value.items()} if isinstance(value, dict) else {str(key): value}
  return flat


def config_fields(settings: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
  """Converts the settings of a config.yaml.

  Args:
    settings: values by dotted key.
    source: the file, for messages.

  Returns:
    The values of our fields by dotted name, neither type-checked nor range-checked, and notes on settings that were
    ignored.

  Raises:
    UserError: some settings are not supported. The message lists all of them.
  """
  unsupported = [
    f'{key}: {settings[key]} (supported: {value})'
    for key, value in FIXED.items()
    if key in settings and settings[key] != value
  ]
  if unsupported:
    raise UserError('\n  '.join([f'{source}: settings that are not supported:', *unsupported]))
  fields: dict[str, Any] = {}
  for key, names in FIELDS.items():
    if key in settings:
      fields |= dict.fromkeys(names, _number(_translated(VALUES.get(key, {}), settings[key])))
  style = fields.get('reid.style')
  fields |= STYLES.get(style, {}) if isinstance(style, str) else {}
  notes = []
  if ignored := sorted(WITHOUT_EFFECT & settings.keys()):
    notes.append(f'{source}: settings that have no effect here: {", ".join(ignored)}')
  if unknown := sorted(settings.keys() - FIELDS.keys() - FIXED.keys() - WITHOUT_EFFECT):
    notes.append(f'{source}: unknown settings ignored: {", ".join(unknown)}')
  if style == 'PCB':
    notes.append(
      f'{source}: the release trains PCB with dropout 1, so that its heads learn nothing; see reid.primary_dropout'
    )
  return _with_complete_tuples(fields), notes


def teacher_fields(options: Mapping[str, Any], source: str) -> tuple[dict[str, Any], list[str]]:
  """Converts a teacher's opts.yaml, like `config_fields`. Options of the teacher's own training are ignored."""
  unsupported = [f'{key}: {options[key]}' for key, value in TEACHER_FIXED.items() if options.get(key, value) != value]
  if unsupported:
    raise UserError('\n  '.join([f'{source}: teachers of this kind are not supported:', *unsupported]))
  fields = {field: _number(options[key]) for key, field in TEACHER_FIELDS.items() if key in options}
  ignored = sorted(options.keys() - TEACHER_FIELDS.keys() - TEACHER_FIXED.keys())
  return fields, [f"{source}: options of the teacher's training ignored: {', '.join(ignored)}"] if ignored else []


def release_settings(config: Config, num_identities: int, kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """Converts our config to the contents of a config.yaml.

  Args:
    config: the run's config.
    num_identities: number of classes.
    kept: settings of an imported config.yaml by dotted key, for those that have no field here.

  Returns:
    The nested settings, and notes on fields that the release cannot express.
  """
  fields, defaults = dict(leaves(config.to_dict())), dict(leaves(default_config()))
  notes = [
    f'{name} = {fields[name]!r}: {reason}' for name, reason in OURS_ALONE.items() if fields[name] != defaults[name]
  ]
  if config.optimizer.schedule == 'constant':
    notes.append('lr_policy: constant: the release crashes on it')
  settings: dict[str, Any] = dict(kept) | FIXED | {'ID_class': num_identities}
  for key, names in FIELDS.items():
    values = [_pick(fields, name) for name in names]
    if any(value != values[0] for value in values):
      notes.append(f'{key} = {values[0]!r}: the release has one setting for {", ".join(names)}; the first is used')
    settings[key] = _translated({ours: theirs for theirs, ours in VALUES.get(key, {}).items()}, values[0])
  return nested(settings), notes


def parts_not_in_release(network: Any, section: str) -> list[str]:
  """Returns what the release's networks cannot have, as lines '<field>: <why>'.

  Args:
    network: the fields of a section, as attributes.
    section: reid or teacher.
  """
  return [
    f'{section}.{name}: the release has no {getattr(network, name)}, only {" and ".join(parts)}'
    for name, parts in RELEASE_PARTS.items()
    if getattr(network, name) not in parts
  ]


def _translated(values: Mapping[Any, Any], value: Any) -> Any:
  """Returns the counterpart of a value, or the value itself. 1 does not count as True."""
  return next((other for one, other in values.items() if type(one) is type(value) and one == value), value)


def _number(value: Any) -> Any:
  """Returns the number in a string: YAML 1.1 reads 1e-4, which has no decimal point, as a string."""
  try:
    return float(value) if isinstance(value, str) else value
  except ValueError:
    return value


def _pick(fields: Mapping[str, Any], name: str) -> Any:
  """Returns a field, or one item of it if the name ends in an index."""
  field, _, index = name.rpartition('.')
  return fields[field][int(index)] if index.isdigit() else fields[name]


def _with_complete_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
  """Replaces items of tuples ('a.0', 'a.1') by the tuples; an item that is missing is that of the default."""
  defaults = dict(leaves(default_config()))
  merged: dict[str, Any] = {}
  for name, value in fields.items():
    field, _, index = name.rpartition('.')
    if index.isdigit():
      items = list(merged.get(field, defaults[field]))
      items[int(index)] = value
      merged[field] = tuple(items)
    else:
      merged[name] = value
  return merged
