"""The release's config.yaml and a teacher's opts.yaml in our words, and back."""

from collections.abc import Iterator, Mapping
import pathlib
from typing import Any

import yaml

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import CHOICES, leaves
from dgnet_jax.errors import UserError

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
  'teacher_style': ('teaching.label_style',),
  'train_bn': ('teaching.teacher_norm',),
  'log_iter': ('log.progress_every_steps',),
  'image_display_iter': ('log.images_every_steps',),
  'snapshot_save_iter': ('log.checkpoint_every_steps',),
}
# The release's words and ours, where they differ.
_NORMS = {'in': 'instance', 'bn': 'batch', 'ln': 'layer', 'sn': 'spectral'}
_ACTIVATIONS = {'lrelu': 'leaky_relu'}
WORDS: dict[str, dict[Any, Any]] = {
  'train_bn': {True: 'batch', False: 'running'},
  'teacher_style': dict(enumerate(CHOICES['teaching.label_style'])),
  'gen.activ': _ACTIVATIONS,
  'dis.activ': _ACTIVATIONS,
  'gen.mlp_norm': _NORMS,
  'dis.norm': _NORMS,
}
# What a re-id style of the release does whatever its yaml says (facts 16 and 33, and its list of bugs).
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
# Choices of the release of which one is known here.
FIXED: dict[str, Any] = {
  'beta1': 0.0,
  'beta2': 0.999,
  'lr_policy': 'multistep',
  'vgg_w': 0,
  'input_dim_a': 1,
  'gen.dropout': 0,
  'gen.n_downsample': 2,
  'dis.n_layer': 2,
}
# Changes what is trained, and the release's settings have no word for it.
OURS_ALONE = {
  'generator.non_local_residual': 'the release has no name for non-local blocks within residual blocks',
  'reid.detach_code': 'the release always detaches the code',
  'teaching.fine_on_real': 'the release has one weight, B_w, for real and for cross images',
  'teaching.teacher_dropout': 'the release leaves it on by accident after its first image dump',
  'reid.batch_norm_group': 'the release normalises over all of a call',
  'structure_encoder.dilations': 'the release has 3, 6, 9',
  'reid.num_parts': 'the release has 4',
}
# Read by nothing in the release (fact 35), of its screen and folders, or told by the shapes.
WITHOUT_EFFECT = {
  *('use_decoder_again', 'sqrt', 'input_dim_b', 'new_size', 'display_size', 'image_save_iter', 'apex'),
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
  return flat(values)


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
  """Values of the release's settings by dotted key."""
  made: dict[str, Any] = {}
  for key, value in values.items():
    made |= {f'{key}.{name}': item for name, item in value.items()} if isinstance(value, dict) else {str(key): value}
  return made


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
      fields |= dict.fromkeys(names, _number(_word(WORDS.get(key, {}), release[key])))
  fields |= _style_fields(fields)
  unknown = sorted(release.keys() - FIELDS.keys() - FIXED.keys() - WITHOUT_EFFECT)
  useless = sorted(WITHOUT_EFFECT & release.keys())
  lines = [f'{where}: without a counterpart here: {", ".join(useless)}'] if useless else []
  if fields.get('reid.style') == 'PCB':
    lines.append(f'{where}: in training the release drops all that its PCB heads get; see reid.primary_dropout')
  return fields, lines + [f'{where}: {key} is not known, left out' for key in unknown]


def _word(words: Mapping[Any, Any], word: Any) -> Any:
  """The counterpart of a word, or itself; 1 is not True here."""
  return next((other for one, other in words.items() if type(one) is type(word) and one == word), word)


def _style_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
  """What the re-id style decides; without one, nothing."""
  style = fields.get('reid.style')
  return STYLES.get(style, {}) if isinstance(style, str) else {}


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


def release_config(config: Config, num_identities: int, kept: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
  """The values of a config.yaml from our config.

  Args:
    config: ours.
    num_identities: the class count.
    kept: of an imported config.yaml, by dotted key; keys without a counterpart are taken from it.

  Returns:
    Nested values, and lines on fields that the release cannot tell apart.
  """
  ours, default = dict(leaves(config.to_dict())), dict(leaves(default_config().to_dict()))
  values: dict[str, Any] = dict(kept) | FIXED | {'ID_class': num_identities}
  lines = [f'{name} = {ours[name]!r}: {why}' for name, why in OURS_ALONE.items() if ours[name] != default[name]]
  for key, names in FIELDS.items():
    found = [_pick(ours, name) for name in names]
    if any(value != found[0] for value in found):
      lines.append(f'{key}: the release has one value for {", ".join(names)}; {found[0]} is taken')
    values[key] = _word({ours_word: theirs for theirs, ours_word in WORDS.get(key, {}).items()}, found[0])
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
