"""Which values the fields of a configuration may have together."""

import functools

from dgnet_jax.config.backbones import map_size, num_channels, problem_with_sizes
from dgnet_jax.config.combinations import rule
from dgnet_jax.config.schema import Config

CRITIC_PIXELS = 64  # six halvings, after the last of which reflect padding needs 2 pixels


@rule('joint', 'reid.style', 'reid.detach_code')
def _can_train_without_generator(config: Config) -> str:
  if config.joint or (config.reid.style == 'AB' and config.reid.detach_code):
    return ''
  return 'False needs reid.style AB and reid.detach_code: otherwise the generator trains the code'


@rule('optimizer.generator_steps', 'reid.style', 'reid.detach_code')
def _generator_can_stop(config: Config) -> str:
  if not config.optimizer.generator_steps or (config.reid.style == 'AB' and config.reid.detach_code):
    return ''
  return 'must be 0 unless reid.style is AB with reid.detach_code: otherwise the generator trains the code'


@rule('optimizer.gan_schedule', 'optimizer.generator_steps')
def _cosine_has_an_end(config: Config) -> str:
  if config.optimizer.gan_schedule != 'cosine' or config.optimizer.generator_steps:
    return ''
  return 'cosine needs optimizer.generator_steps, the step at which it ends'


@rule('optimizer.reid_warmup_steps', 'num_steps')
def _warmup_ends(config: Config) -> str:
  warmup = config.optimizer.reid_warmup_steps
  return '' if warmup < config.num_steps else f'{warmup} must be below num_steps ({config.num_steps})'


@rule('optimizer.muon_multiplier', 'generator.design')
def _adam_trains_adain(config: Config) -> str:
  if not config.optimizer.muon_multiplier or config.generator.design == 'correspondence':
    return ''
  return "must be 0 with generator.design adain, whose optimizer is the release's"


@rule('teaching.images', 'data.layout', 'joint')
def _ground_truth_is_available(config: Config) -> str:
  if config.teaching.images == 'generated' or (config.data.layout == 'synthetic' and not config.joint):
    return ''
  return 'ground_truth needs data.layout synthetic, which can render it, and joint False, which generates no images'


@rule('data.image_size_hw')
def _image_size_divides(config: Config) -> str:
  height, width = config.data.image_size_hw
  return f'{(height, width)} must be multiples of 4: the generator halves twice' if height % 4 or width % 4 else ''


@rule('structure_encoder.dilations', 'generator.design', 'data.image_size_hw')
def _dilations_fit(config: Config) -> str:
  if config.generator.design != 'adain':
    return ''
  largest, quarter = max(config.structure_encoder.dilations), min(config.data.image_size_hw) // 4
  if largest < quarter:
    return ''
  return f'{largest} must be below a quarter of height and width, here {quarter}, for reflect padding'


@rule(
  'generator.design',
  'structure_encoder.input',
  'generator.non_local_residual',
  'correspondence.attention_stride',
  'correspondence.refinement_width',
  'data.image_size_hw',
)
def _correspondence_fits(config: Config) -> str:
  if config.generator.design != 'correspondence':
    return ''
  if config.structure_encoder.input != 'gray':
    return 'correspondence sees colour images and recolours them itself: leave structure_encoder.input at gray'
  if config.generator.non_local_residual:
    return 'correspondence has no non-local blocks: leave generator.non_local_residual at False'
  stride, size = config.correspondence.attention_stride, config.data.image_size_hw
  if stride < 2 or stride & (stride - 1):
    return f'correspondence.attention_stride={stride} must be a power of 2 from 2'
  if config.correspondence.refinement_width < 3:
    return f'correspondence.refinement_width={config.correspondence.refinement_width} must be at least 3'
  if any(pixels % (4 * stride) or pixels < 8 * stride for pixels in size):
    return (
      f'correspondence needs a height and a width that are multiples of {4 * stride} from {8 * stride} for '
      f'correspondence.attention_stride={stride}, not {size}'
    )
  return ''


@rule('discriminator.num_scales', 'discriminator.gan_type', 'data.image_size_hw')
def _smallest_scale_fits(config: Config) -> str:
  scales = config.discriminator.num_scales
  if config.discriminator.gan_type == 'wgan':
    return ''
  # Halved between scales and twice within one, rounding up; a 3x3 reflect padding needs two pixels.
  if -(-min(config.data.image_size_hw) // 2 ** (scales + 1)) >= 2:
    return ''
  return f'{scales} leave less than a 2x2 map of images of {config.data.image_size_hw}'


@rule('discriminator.gan_type', 'data.image_size_hw')
def _images_fit_critic(config: Config) -> str:
  size = config.data.image_size_hw
  if config.discriminator.gan_type != 'wgan' or min(size) >= CRITIC_PIXELS:
    return ''
  return f'wgan halves images six times: {size} must be at least {CRITIC_PIXELS} high and wide'


@rule('reid.normalize_code', 'reid.style')
def _code_can_be_normalized(config: Config) -> str:
  if config.reid.normalize_code and config.reid.style != 'normal':
    return f'True needs style normal; the release ignores norm_id in style {config.reid.style}'
  return ''


@rule('reid.style', 'ramps.teaching')
def _teacher_has_a_student(config: Config) -> str:
  ramp = config.ramps.teaching
  if config.reid.style == 'PCB' and (ramp.initial or ramp.maximum):
    return 'PCB has no head that learns from a teacher: set ramps.teaching.initial and ramps.teaching.maximum to 0'
  return ''


def _backbone_fits(section: str, config: Config) -> str:
  network = getattr(config, section)
  pixels = min(config.data.image_size_hw) * _input_scale(config)
  sizes = network.backbone, network.stage_sizes, network.width, network.last_stride, pixels
  problem = problem_with_sizes(*sizes)
  return f'{problem} ({section}.*)' if problem else ''


for _section in ('reid', 'teacher'):
  _sizes = [f'{_section}.{field}' for field in ('backbone', 'stage_sizes', 'width', 'last_stride')]
  rule(*_sizes, 'reid.input_scale', 'data.image_size_hw')(functools.partial(_backbone_fits, _section))


def _input_scale(config: Config) -> int:
  return config.reid.input_scale or (2 if config.data.image_size_hw[0] <= 128 else 1)  # release fact 21


@rule(
  *('decoder.num_res_blocks', 'generator.design', 'reid.num_parts', 'reid.backbone', 'reid.width'),
  'reid.stage_sizes',
)
def _blocks_divide_code(config: Config) -> str:
  reid, blocks = config.reid, config.decoder.num_res_blocks
  code_size = reid.num_parts * num_channels(reid.backbone, reid.stage_sizes, reid.width)
  if code_size % blocks == 0 or config.generator.design != 'adain':
    return ''
  return f'{blocks} must divide the appearance code: reid.num_parts x channels of the last map = {code_size}'


@rule(
  *('reid.num_parts', 'reid.backbone', 'reid.stage_sizes', 'reid.last_stride', 'reid.input_scale'),
  'data.image_size_hw',
)
def _stripes_fit(config: Config) -> str:
  reid, height = config.reid, config.data.image_size_hw[0]
  rows = map_size(reid.backbone, reid.stage_sizes, reid.last_stride, height * _input_scale(config))
  return f'{reid.num_parts} stripes do not fit a last map of {rows} rows' if rows < reid.num_parts else ''


@rule('reid.batch_norm_group', 'batch_size')
def _groups_fill_batch(config: Config) -> str:
  group, batch = config.reid.batch_norm_group, config.batch_size
  if group != 1 and (group == 0 or group >= batch or batch % group == 0):
    return ''
  return f'{group} must be 0, at least batch_size ({batch}), or a divisor of it above 1'


@rule('micro_batches', 'reid.batch_norm_group', 'batch_size')
def _parts_hold_groups(config: Config) -> str:
  parts, group = config.micro_batches, config.reid.batch_norm_group
  if parts <= 1 or group and config.batch_size % (parts * group) == 0:
    return ''
  if not group:
    return f'{parts} needs a reid.batch_norm_group above 0: with 0 the whole batch shares its statistics'
  return f'{parts} parts of whole groups of {group} (reid.batch_norm_group) need a multiple of {parts * group} images'


@rule('micro_batches', 'discriminator.norm', 'discriminator.gan_type')
def _parts_do_not_share_statistics(config: Config) -> str:
  if config.micro_batches == 1 or config.discriminator.norm != 'batch' or config.discriminator.gan_type == 'wgan':
    return ''
  return 'must be 1 with discriminator.norm=batch, whose statistics are of the whole batch'


@rule('optimizer.adam_betas')
def _betas_are_valid(config: Config) -> str:
  betas = config.optimizer.adam_betas
  return '' if len(betas) == 2 and max(betas) < 1 else f'{betas} must be two numbers in [0, 1)'


@rule('teacher.images_per_identity', 'teacher.batch_size')
def _identities_fill_teacher_batch(config: Config) -> str:
  return _problem_with_identities(config.teacher.images_per_identity, 'teacher.batch_size', config.teacher.batch_size)


@rule('data.images_per_identity', 'batch_size')
def _identities_fill_batch(config: Config) -> str:
  return _problem_with_identities(config.data.images_per_identity, 'batch_size', config.batch_size)


def _problem_with_identities(images: int, field: str, batch: int) -> str:
  if images == 0 or (images >= 2 and batch % images == 0 and batch > images):
    return ''
  return f'{images} must be 0, or from 2 to half of {field} ({batch}) and a divisor of it'


def _metric_loss_fits(name: str, config: Config) -> str:
  weight = getattr(config.weights, name)
  if weight and config.micro_batches > 1:
    return 'needs micro_batches 1: it compares all images of the batch'
  if weight and config.reid.style == 'PCB':
    return 'must be 0 with reid.style PCB, whose embedding is one vector per part'
  return ''


def _teacher_metric_loss_fits(name: str, config: Config) -> str:
  if not getattr(config.teacher, name) or config.teacher.images_per_identity:
    return ''
  return 'needs teacher.images_per_identity, like 4: shuffled batches hardly show a person twice'


for _loss in ('triplet', 'circle'):
  rule(f'weights.{_loss}', 'micro_batches', 'reid.style')(functools.partial(_metric_loss_fits, _loss))
  rule(f'teacher.{_loss}', 'teacher.images_per_identity')(functools.partial(_teacher_metric_loss_fits, _loss))


@rule('teacher.warmup_epochs', 'teacher.decay_epoch', 'teacher.num_epochs', 'teacher.schedule')
def _teacher_epochs_are_ordered(config: Config) -> str:
  teacher = config.teacher
  if teacher.schedule == 'cosine':  # reads no decay_epoch
    in_time = teacher.warmup_epochs < teacher.num_epochs
    return '' if in_time else f'{teacher.warmup_epochs} must be below num_epochs ({teacher.num_epochs})'
  if teacher.warmup_epochs < min(teacher.decay_epoch, teacher.num_epochs):
    return ''
  return (
    f'{teacher.warmup_epochs} must be below decay_epoch ({teacher.decay_epoch}) and num_epochs ({teacher.num_epochs})'
  )


@rule('ramps')
def _ramps_rise(config: Config) -> str:
  falling = [name for name, ramp in config.ramps.by_name().items() if ramp.initial > ramp.maximum]
  return f'initial is above maximum in {", ".join(falling)}' if falling else ''


@rule(
  *('reid.pretrained', 'reid.backbone', 'reid.stage_sizes', 'reid.width'),
  *('teacher.backbone', 'teacher.stage_sizes', 'teacher.width'),
)
def _backbones_are_equal(config: Config) -> str:
  reid, teacher = config.reid, config.teacher
  sizes = [(section.backbone, section.stage_sizes, section.width) for section in (reid, teacher)]
  if reid.pretrained != 'teacher' or sizes[0] == sizes[1]:
    return ''
  return "'teacher' needs the same backbone, stage_sizes and width in reid and teacher"


@rule('evaluation.tracklets', 'data.layout')
def _tracks_are_known(config: Config) -> str:
  if not config.evaluation.tracklets or config.data.layout == 'mars':
    return ''
  return f'layout {config.data.layout} has no tracks; only mars has'


@rule('evaluation.reranking.k2', 'evaluation.reranking.k1')
def _neighbours_are_ordered(config: Config) -> str:
  reranking = config.evaluation.reranking
  return '' if reranking.k2 <= reranking.k1 else f'{reranking.k2} must be at most k1 ({reranking.k1})'


@rule('generation.num_images', 'generation.per_appearance')
def _number_of_images_is_unique(config: Config) -> str:
  if not config.generation.num_images or config.generation.per_appearance == 1:
    return ''
  return f'must be 0, or per_appearance ({config.generation.per_appearance}) 1: both set the number of images'
