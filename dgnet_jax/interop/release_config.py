"""The release's config.yaml and a teacher's opts.yaml in our words, and back."""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

import yaml

from dgnet_jax.config import UserError
from dgnet_jax.config_rules import leaves

# Release key -> our fields; a number at the end picks from a tuple. Keys of the sections gen and dis have a dot.
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
  'dis.dim': ('discriminator.width',),
  'dis.num_scales': ('discriminator.num_scales',),
  'dis.n_res': ('discriminator.num_res_blocks',),
  'dis.LAMBDA': ('discriminator.r1_weight',),
  'ID_stride': ('reid.last_stride',),
  'pool': ('reid.pool',),
  'lr_g': ('optimizer.generator_learning_rate',),
  'lr_d': ('optimizer.discriminator_learning_rate',),
  'lr2': ('optimizer.reid_learning_rate',),
  'weight_decay': ('optimizer.weight_decay',),
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
  'train_bn': ('teaching.teacher_norm',),
  'log_iter': ('log.progress_every_steps',),
  'image_display_iter': ('log.pictures_every_steps',),
  'snapshot_save_iter': ('log.checkpoint_every_steps',),
}
WORDS = {'train_bn': {True: 'batch', False: 'running'}}
# Choices of the release of which one is known here.
FIXED: dict[str, Any] = {
  'ID_style': 'AB',
  'beta1': 0.0,
  'beta2': 0.999,
  'lr_policy': 'multistep',
  'single': 'gray',
  'teacher_style': 0,
  'vgg_w': 0,
  'input_dim_a': 1,
  'gen.activ': 'lrelu',
  'gen.dec': 'basic',
  'gen.dropout': 0,
  'gen.mlp_norm': 'none',
  'gen.n_downsample': 2,
  'gen.non_local': 0,
  'gen.pad_type': 'reflect',
  'gen.tanh': False,
  'dis.activ': 'lrelu',
  'dis.gan_type': 'lsgan',
  'dis.n_layer': 2,
  'dis.non_local': 0,
  'dis.norm': 'none',
  'dis.pad_type': 'reflect',
}
# Read by nothing in the release (fact 35), of its screen and folders, or told by the shapes.
WITHOUT_EFFECT = {
  *('use_decoder_again', 'sqrt', 'input_dim_b', 'new_size', 'norm_id', 'display_size', 'image_save_iter', 'apex'),
  *('data_root', 'teacher', 'gen.init', 'gen.id_dim', 'ID_class'),
}
TEACHER_FIELDS = {'stride': 'teacher.last_stride', 'droprate': 'teacher.dropout'}
TEACHER_FIXED = {'use_dense': False, 'PCB': False}


def read_yaml(path: str | pathlib.Path) -> dict[str, Any]:
  """The values of a YAML file by dotted key.

  Raises:
    UserError: it is no YAML of names and values.
  """
  try:
    values = yaml.safe_load(pathlib.Path(path).read_text())
  except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
    raise UserError(f'{path}: cannot be read as YAML: {error}') from error
  if not isinstance(values, dict):
    raise UserError(f'{path}: no names and values in it')
  flat: dict[str, Any] = {}
  for key, value in values.items():
    flat |= {f'{key}.{name}': item for name, item in value.items()} if isinstance(value, dict) else {str(key): value}
  return flat


def our_fields(release: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
  """Fields of our config from a config.yaml.

  Args:
    release: of `read_yaml`.
    where: the file, for messages.

  Returns:
    Values by dotted field, not yet checked for type and range; and lines on what has no counterpart.

  Raises:
    UserError: the file asks for what is not known here; names every key.
  """
  wrong = [
    f'{key}: {release[key]} (here: {value})' for key, value in FIXED.items() if key in release and release[key] != value
  ]
  if wrong:
    raise UserError('\n  '.join([f'{where} asks for what is not known here:', *wrong]))
  fields: dict[str, Any] = {}
  for key, names in FIELDS.items():
    if key in release:
      words = WORDS.get(key, {})
      value = next((ours for theirs, ours in words.items() if theirs is release[key]), release[key])
      fields |= dict.fromkeys(names, _number(value))
  unknown = sorted(release.keys() - FIELDS.keys() - FIXED.keys() - WITHOUT_EFFECT)
  useless = sorted(WITHOUT_EFFECT & release.keys())
  lines = [f'{where}: without a counterpart here: {", ".join(useless)}'] if useless else []
  return fields, lines + [f'{where}: {key} is not known, left out' for key in unknown]


def teacher_fields(opts: Mapping[str, Any], where: str) -> tuple[dict[str, Any], list[str]]:
  """Like `our_fields`, from a teacher's opts.yaml. What it says of the teacher's own training is done with."""
  wrong = [f'{key}: {opts[key]}' for key, value in TEACHER_FIXED.items() if opts.get(key, value) != value]
  if wrong:
    raise UserError('\n  '.join([f'{where} is of a teacher that is not known here:', *wrong]))
  fields = {field: _number(opts[key]) for key, field in TEACHER_FIELDS.items() if key in opts}
  left = sorted(opts.keys() - TEACHER_FIELDS.keys() - TEACHER_FIXED.keys())
  return fields, [f'{where}: of the training of the teacher, not needed: {", ".join(left)}'] if left else []


def _number(value: Any) -> Any:
  """YAML 1.1 takes 1e-4, without a dot, for a text."""
  try:
    return float(value) if isinstance(value, str) else value
  except ValueError:
    return value


def release_config(config: Any, num_identities: int, kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """The values of a config.yaml from our config.

  Args:
    config: ours.
    num_identities: the class count.
    kept: of an imported config.yaml, by dotted key; keys without a counterpart are taken from it.

  Returns:
    Nested values, and lines on fields that the release cannot tell apart.
  """
  ours = dict(leaves(config.to_dict()))
  values, lines = dict(kept) | FIXED | {'ID_class': num_identities}, []
  for key, names in FIELDS.items():
    found = [_pick(ours, name) for name in names]
    if any(value != found[0] for value in found):
      lines.append(f'{key}: the release has one value for {", ".join(names)}; {found[0]} is taken')
    back = {ours_word: theirs for theirs, ours_word in WORDS.get(key, {}).items()}
    values[key] = back.get(found[0], found[0])
  nested: dict[str, Any] = {}
  for key, value in values.items():
    section, _, name = key.rpartition('.')
    (nested.setdefault(section, {}) if section else nested)[name] = value
  return nested, lines


def _pick(ours: Mapping[str, Any], name: str) -> Any:
  field, _, index = name.rpartition('.')
  return ours[field][int(index)] if index.isdigit() else ours[name]


def with_indices(fields: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
  """Fields whose tuples were told item by item ('a.0', 'a.1') as whole tuples over the default ones."""
  whole: dict[str, Any] = {}
  for name, value in fields.items():
    field, _, index = name.rpartition('.')
    if index.isdigit():
      items = list(whole.get(field, defaults[field]))
      items[int(index)] = value
      whole[field] = tuple(items)
    else:
      whole[name] = value
  yield from whole.items()
