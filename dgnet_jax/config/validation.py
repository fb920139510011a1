"""What a configuration must satisfy. Every function returns problems as lines '<field>: <what is wrong>'."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import difflib
import math
import re
from typing import Any

from dgnet_jax.data.layouts import BOXES, LAYOUTS, NUM_SYNTHETIC_CAMERAS, SPLITS

CHOICES = {
  'compute_dtype': ('float32', 'bfloat16'),
  'data.layout': tuple(LAYOUTS),
  'data.boxes': BOXES,
  'data.loader': ('tfdata', 'threads', 'memory'),
  'structure_encoder.input': ('gray', 'edge'),
  'generator.activation': ('leaky_relu', 'relu', 'prelu', 'selu', 'tanh'),
  'generator.padding': ('reflect', 'zero'),
  'decoder.mlp_norm': ('none', 'instance'),
  'decoder.block': ('basic', 'series', 'parallel'),
  'decoder.non_local': (0, 1),
  'discriminator.gan_type': ('lsgan', 'nsgan', 'wgan'),
  'discriminator.norm': ('none', 'instance', 'layer', 'batch'),
  'discriminator.activation': ('leaky_relu', 'relu', 'prelu', 'selu', 'tanh'),
  'discriminator.padding': ('reflect', 'zero'),
  'discriminator.non_local': (0, 1, 2),
  'optimizer.schedule': ('multistep', 'step', 'constant'),
  'reid.style': ('AB', 'normal', 'PCB'),
  'reid.last_stride': (1, 2),
  'reid.pool': ('max', 'avg'),
  'reid.input_scale': (0, 1, 2),
  'evaluation.protocol': ('release', 'standard'),
  'teaching.label_style': ('soft', 'argmax', 'appearance', 'uniform', 'donors'),
  'teaching.images': ('generated', 'ground_truth'),
  'teaching.teacher_norm': ('batch', 'running'),
  'generation.plan': ('sheets', 'images', 'identities'),
  'generation.appearance_split': SPLITS,
  'generation.structure_split': SPLITS,
  'generation.format': ('jpeg', 'png'),
  'teacher.last_stride': (1, 2),
  'teacher.pool': ('avg', 'max'),
}
# What the release names, and why it is no choice here.
REFUSED = {
  ('decoder.block', 'slim'): 'the release crashes on it, with AdaIN parameters for twice the channels',
  ('decoder.mlp_norm', 'batch'): 'the release crashes on it',
  ('decoder.mlp_norm', 'layer'): 'the release crashes on it',
  ('discriminator.norm', 'spectral'): 'the release crashes on it, for want of a definition',
}
# Numbers are at least 0; these may not be 0 either.
POSITIVE = {
  *('num_steps', 'data.image_size_hw', 'data.prefetch_batches', 'data.decode_threads'),
  'data.synthetic.image_size_hw',
  *('structure_encoder.width', 'structure_encoder.dilations', 'decoder.num_res_blocks', 'decoder.mlp_width'),
  *('discriminator.width', 'discriminator.num_scales'),
  *('reid.stage_sizes', 'reid.width', 'reid.num_parts', 'reid.head_width'),
  *('optimizer.generator_learning_rate', 'optimizer.discriminator_learning_rate', 'optimizer.reid_learning_rate'),
  *('optimizer.decay_steps', 'optimizer.gan_decay', 'optimizer.reid_decay'),
  *('teacher.stage_sizes', 'teacher.width', 'teacher.head_width', 'teacher.num_epochs', 'teacher.learning_rate'),
  *('log.progress_every_steps', 'log.images_every_steps', 'log.checkpoint_every_steps', 'log.keep_checkpoints'),
  *('generation.per_appearance', 'generation.jpeg_quality'),
  *('evaluation.reranking.k1', 'evaluation.reranking.k2'),
  *('evaluation.batch_size', 'evaluation.num_swaps', 'evaluation.num_ranked_queries'),
}
CRITIC_PIXELS = 64  # six halvings, the last of at least 2 pixels for reflect padding
# The variance of BatchNorm needs two examples, identification and cross images two people, a positive two images, the
# covariance of generated images two of them.
AT_LEAST_TWO = {
  *('batch_size', 'teacher.batch_size', 'evaluation.num_ground_truth_pairs'),
  *('data.synthetic.num_train_identities', 'data.synthetic.num_test_identities', 'data.synthetic.images_per_identity'),
}


def leaves(config: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Every field that is not a section, with its dotted name."""
  for name, value in config.items():
    if hasattr(value, 'items'):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield prefix + name, value


def suggestion(name: str, known: Sequence[str]) -> str:
  """'; did you mean ...?' for a misspelt or misplaced field, '' when nothing is near."""
  last = name.rsplit('.', 1)[-1]
  near = [field for field in known if field.rsplit('.', 1)[-1] == last]
  near = near or difflib.get_close_matches(name, known, n=2, cutoff=0.75)
  if not near:
    ends = {field.rsplit('.', 1)[-1]: field for field in known}
    near = [ends[end] for end in difflib.get_close_matches(last, list(ends), n=2, cutoff=0.75)]
  return f'; did you mean {" or ".join(near[:3])}?' if near else ''


def is_like(value: Any, reference: Any) -> bool:
  """Whether `value` may stand where the default has `reference`; whole numbers may stand for floats."""
  if isinstance(reference, tuple):
    return isinstance(value, tuple | list) and all(is_like(item, reference[0]) for item in value)
  if isinstance(reference, float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  return type(value) is type(reference)


def type_name(reference: Any) -> str:
  """What a field takes, in words."""
  if isinstance(reference, tuple):
    return f'{"numbers" if isinstance(reference[0], float) else "whole numbers"} like {",".join(map(str, reference))}'
  return {int: 'a whole number', float: 'a number', bool: 'True or False', str: 'a text'}[type(reference)]


def problems(config: Mapping[str, Any], default: Mapping[str, Any]) -> list[str]:
  """All that is wrong with `config`, whose fields must be those of `default`."""
  found = _shape_problems(dict(leaves(config)), dict(leaves(default)))
  for name, value in leaves(config):
    if name not in found:
      problem = _range_problem(name, value)
      found |= {name: problem} if problem else {}
  # A combination that reads a wrong field would crash, or report it twice.
  for fields, rule in COMBINATIONS:
    if not any(wrong == field or wrong.startswith(f'{field}.') for wrong in found for field in fields):
      problem = rule(config)
      found |= {fields[0]: problem} if problem else {}
  return [f'{name}: {problem}' for name, problem in found.items()]


def _shape_problems(given: Mapping[str, Any], known: Mapping[str, Any]) -> dict[str, str]:
  """Unknown, missing and wrongly typed fields."""
  found = {name: f'no such field{suggestion(name, list(known))}' for name in given if name not in known}
  found |= {name: 'missing' for name in known if name not in given}
  for name, reference in known.items():
    if name in given and not is_like(given[name], reference):
      found[name] = f'{given[name]!r} is not {type_name(reference)}'
    elif name in given and name.endswith('_hw') and len(given[name]) != 2:
      found[name] = f'{given[name]!r} is not (height, width)'
  return found


def _range_problem(name: str, value: Any) -> str:
  """What is wrong with one well-typed value by itself, or ''."""
  if name in CHOICES and value not in CHOICES[name]:
    reason = REFUSED.get((name, value))
    return f'{value!r} is none of {", ".join(map(str, CHOICES[name]))}{f": {reason}" if reason else ""}'
  if isinstance(value, bool | str):
    return ''
  numbers = value if isinstance(value, tuple | list) else (value,)
  if not numbers:
    return 'is empty'
  if not all(math.isfinite(x) for x in numbers):
    return f'{value} is not finite'
  least = 2 if name in AT_LEAST_TWO else 0
  if min(numbers) < least or (name in POSITIVE and min(numbers) == 0):
    return f'{value} must be {"above 0" if name in POSITIVE else f"at least {least}"}'
  if name.endswith('_prob') and value > 1:
    return f'{value} is no probability (0 to 1)'
  if name.endswith(('dropout', 'momentum')) and value >= 1:
    return f'{value} must be below 1'
  return ''


def _quarters(config: Any) -> str:
  size = tuple(config.data.image_size_hw)
  return f'{size} must be multiples of 4: the generator halves twice' if size[0] % 4 or size[1] % 4 else ''


def _dilations_fit(config: Any) -> str:
  largest, quarter = max(config.structure_encoder.dilations), min(config.data.image_size_hw) // 4
  if largest < quarter:
    return ''
  return f'{largest} must be below a quarter of height and width, here {quarter}, for reflect padding'


def _smallest_scale_fits(config: Any) -> str:
  scales = config.discriminator.num_scales
  if config.discriminator.gan_type == 'wgan':
    return ''
  # Halved between scales and twice within one, rounding up; a 3x3 reflect padding needs two pixels.
  if -(-min(config.data.image_size_hw) // 2 ** (scales + 1)) >= 2:
    return ''
  return f'{scales} leave less than a 2x2 map of images of {tuple(config.data.image_size_hw)}'


def _critic_fits(config: Any) -> str:
  size = tuple(config.data.image_size_hw)
  if config.discriminator.gan_type != 'wgan' or min(size) >= CRITIC_PIXELS:
    return ''
  return f'wgan halves images six times: {size} must be at least {CRITIC_PIXELS} high and wide'


def _code_length_matters(config: Any) -> str:
  if config.reid.normalize_code and config.reid.style != 'normal':
    return f'only style normal has a code of length 1; the release ignores norm_id in style {config.reid.style}'
  return ''


def _teacher_has_a_pupil(config: Any) -> str:
  ramp = config.ramps.teaching
  if config.reid.style == 'PCB' and (ramp.initial or ramp.maximum):
    return 'PCB has no head that a teacher teaches (the release adds 0): set ramps.teaching.initial and .maximum to 0'
  return ''


def _blocks_divide_code(config: Any) -> str:
  reid, blocks = config.reid, config.decoder.num_res_blocks
  code_size = reid.num_parts * 4 * reid.width * 2 ** (len(reid.stage_sizes) - 1)
  if code_size % blocks == 0:
    return ''
  return f'{blocks} must divide the appearance code: num_parts x 4 x width x 2 per later stage of reid = {code_size}'


def _stripes_fit(config: Any) -> str:
  reid, height = config.reid, config.data.image_size_hw[0]
  rows = height * (reid.input_scale or (2 if height <= 128 else 1))  # release fact 21
  later = len(reid.stage_sizes) - 1
  for stride in [2, 2] + [2] * max(later - 1, 0) + [reid.last_stride] * min(later, 1):
    rows = -(-rows // stride)
  return f'{reid.num_parts} stripes do not fit a last map of {rows} rows' if rows < reid.num_parts else ''


def _groups_fill_batch(config: Any) -> str:
  group, batch = config.reid.batch_norm_group, config.batch_size
  if group != 1 and (group == 0 or group >= batch or batch % group == 0):
    return ''
  return f'{group} must be 0, at least batch_size ({batch}), or divide it and be above 1'


def _teacher_epochs_in_order(config: Any) -> str:
  teacher = config.teacher
  if teacher.warmup_epochs < min(teacher.decay_epoch, teacher.num_epochs):
    return ''
  return (
    f'{teacher.warmup_epochs} must be below decay_epoch ({teacher.decay_epoch}) and num_epochs ({teacher.num_epochs})'
  )


def _ramps_rise(config: Any) -> str:
  falling = [name for name, ramp in config.ramps.items() if ramp.initial > ramp.maximum]
  return f'initial is above maximum in {", ".join(falling)}' if falling else ''


def _teacher_backbone_fits(config: Any) -> str:
  reid, teacher = config.reid, config.teacher
  if reid.pretrained != 'teacher' or (reid.stage_sizes, reid.width) == (teacher.stage_sizes, teacher.width):
    return ''
  return 'teacher needs the same stage_sizes and width in reid and teacher'


def _camera_pattern_fits(config: Any) -> str:
  pattern, layout = config.data.camera_pattern, config.data.layout
  if not pattern:
    return ''
  try:
    groups = re.compile(pattern).groupindex
  except re.error as error:
    return f'{pattern!r} is no regular expression ({error})'
  if 'camera' not in groups:
    return f'{pattern!r} has no group named camera, like cam(?P<camera>\\d+)'
  return (
    ''
    if layout == 'folders'
    else f"only layout folders reads it; leave it '' for {layout}, whose own names tell the camera"
  )


def _records_without_tensorflow(config: Any) -> str:
  if config.data.layout != 'tfds' or config.data.loader != 'tfdata':
    return ''
  return 'tfdata reads files; for the records of layout tfds take threads or memory'


def _remote_is_prepared(config: Any) -> str:
  if '://' not in config.data.root or config.data.layout == 'tfds':
    return ''
  return 'only prepared data sets (data.layout=tfds) are read from object storage'


def _neighbours_in_order(config: Any) -> str:
  settings = config.evaluation.reranking
  return '' if settings.k2 <= settings.k1 else f'{settings.k2} must be at most k1 ({settings.k1})'


def _weight_is_a_share(config: Any) -> str:
  weight = config.evaluation.reranking.weight
  return '' if weight <= 1 else f'{weight} is no share (0 to 1)'


def _root_named(config: Any) -> str:
  if config.data.root or config.data.layout == 'synthetic':
    return ''
  return 'name the folder of the data set: --config.data.root=FOLDER'


def _cameras_in_order(config: Any) -> str:
  cameras = tuple(config.data.synthetic.cameras_per_identity)
  if len(cameras) == 2 and 2 <= cameras[0] <= cameras[1] <= NUM_SYNTHETIC_CAMERAS:
    return ''
  return f'{cameras} is not the fewest and the most cameras of a person, from 2 to {NUM_SYNTHETIC_CAMERAS}'


def _jpeg_quality_fits(config: Any) -> str:
  quality = config.generation.jpeg_quality
  return f'{quality} must be at most 100' if quality > 100 else ''


def _one_size(config: Any) -> str:
  if not config.generation.num_images or config.generation.per_appearance == 1:
    return ''
  return f'leave it 0, or per_appearance ({config.generation.per_appearance}) 1: both say how many'


def _truth_is_known(config: Any) -> str:
  if config.teaching.images == 'generated' or (config.data.layout == 'synthetic' and not config.joint):
    return ''
  return 'truth needs data.layout synthetic, whose truth can be rendered, and joint False: nothing is generated then'


def _real_images_suffice(config: Any) -> str:
  if config.joint or (config.reid.style == 'AB' and config.reid.detach_code):
    return ''
  return 'False needs reid.style AB and reid.detach_code: elsewhere the generator trains the code'


def _adam_betas_in_range(config: Any) -> str:
  betas = tuple(config.optimizer.adam_betas)
  return '' if len(betas) == 2 and max(betas) < 1 else f'{betas} must be two numbers in [0, 1)'


# Fields that a rule reads (the first is the one to blame), and the rule.
COMBINATIONS: tuple[tuple[tuple[str, ...], Callable[[Any], str]], ...] = (
  (('joint', 'reid.style', 'reid.detach_code'), _real_images_suffice),
  (('teaching.images', 'data.layout', 'joint'), _truth_is_known),
  (('data.image_size_hw',), _quarters),
  (('structure_encoder.dilations', 'data.image_size_hw'), _dilations_fit),
  (('discriminator.num_scales', 'discriminator.gan_type', 'data.image_size_hw'), _smallest_scale_fits),
  (('discriminator.gan_type', 'data.image_size_hw'), _critic_fits),
  (('reid.normalize_code', 'reid.style'), _code_length_matters),
  (('reid.style', 'ramps.teaching'), _teacher_has_a_pupil),
  (('decoder.num_res_blocks', 'reid.num_parts', 'reid.width', 'reid.stage_sizes'), _blocks_divide_code),
  (('reid.num_parts', 'reid.stage_sizes', 'reid.last_stride', 'reid.input_scale', 'data.image_size_hw'), _stripes_fit),
  (('reid.batch_norm_group', 'batch_size'), _groups_fill_batch),
  (('teacher.warmup_epochs', 'teacher.decay_epoch', 'teacher.num_epochs'), _teacher_epochs_in_order),
  (('ramps',), _ramps_rise),
  (('optimizer.adam_betas',), _adam_betas_in_range),
  (
    ('reid.pretrained', 'reid.stage_sizes', 'reid.width', 'teacher.stage_sizes', 'teacher.width'),
    _teacher_backbone_fits,
  ),
  (('data.camera_pattern', 'data.layout'), _camera_pattern_fits),
  (('evaluation.reranking.k2', 'evaluation.reranking.k1'), _neighbours_in_order),
  (('evaluation.reranking.weight',), _weight_is_a_share),
  (('data.loader', 'data.layout'), _records_without_tensorflow),
  (('data.root', 'data.layout'), _remote_is_prepared),
  (('data.root', 'data.layout'), _root_named),
  (('data.synthetic.cameras_per_identity',), _cameras_in_order),
  (('generation.jpeg_quality',), _jpeg_quality_fits),
  (('generation.num_images', 'generation.per_appearance'), _one_size),
)
