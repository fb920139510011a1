"""Validation of configurations: which values the fields may have, alone and together."""

import time

import pytest

from dgnet_jax.config import combinations, loading, ranges
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, nested, validate, with_fields
from dgnet_jax.errors import ConfigError


@pytest.fixture
def config():
  config = default_config()
  config.data.root = 'somewhere'
  return config


def problems_of(config):
  with pytest.raises(ConfigError) as caught:
    validate(config)
  return caught.value.problems


class TestValidate:
  @pytest.mark.parametrize('change', [{'x' * 10**5: 1}, {'optimizer': {'adam_betas': [0.5] * 10**5}}], ids=range(2))
  def test_long_names_and_lists_are_shortened(self, config, change):
    values = config.to_dict()
    for name, value in change.items():
      values[name] = values[name] | value if isinstance(value, dict) else value
    (problem,) = problems_of(values)
    assert len(problem) < 600 and problem.endswith('characters)')

  def test_many_unknown_fields_are_counted(self, config):
    values = config.to_dict() | {f'batch_sice{i}': None for i in range(50_000)}
    start = time.process_time()
    problems = problems_of(values)
    assert time.process_time() - start < 5
    assert len(problems) == 21 and problems[-1].endswith(': no such field, like 49979 more')

  @pytest.mark.parametrize(
    ('field', 'value', 'words'),
    [
      ('num_steps', 10**4000, '... (4001 characters) must be at most 2147483647'),
      ('num_steps', 10**5000, 'a number of more than 4,300 digits must be at most'),
      ('structure_encoder.dilations', (3, 10**4000), 'must be at most'),
      ('optimizer.adam_betas', (0.5, 10**400), 'must be finite'),
      ('data.root', 10**5000, 'a number of more than 4,300 digits is not a string'),
      ('data.layout', 'x' * 5000, 'x... (5002 characters) must be one of'),
    ],
    ids=range(6),
  )
  def test_long_values_are_shortened(self, config, field, value, words):
    loading.set_field(config, field, value)
    (problem,) = problems_of(config)
    assert words in problem and len(problem) < 500

  @pytest.mark.parametrize('value', [10**20, 10**4000, 10**5000, -(10**400)], ids=['20', '4000', '5000', 'negative'])
  def test_numbers_of_thousands_of_digits_are_refused_in_a_short_line(self, config, value):
    values = config.to_dict()
    values['seed'] = values['num_steps'] = values['weights']['identity'] = value
    values['data']['image_size_hw'] = (value, 64)
    values['reid']['pool'] = '9' * 4000
    problems = problems_of(values)
    assert len(problems) == (4 if value == 10**20 else 5) and all(len(problem) < 200 for problem in problems)

  def test_numbers_fit_the_types_of_jax(self, config):
    config.seed, config.num_steps = 2**32 - 1, 2**31 - 1
    validate(config)
    config.seed, config.num_steps, config.weights.identity = 2**32, 2**31, 1e39
    assert {problem.split(':')[0] for problem in problems_of(config)} == {'seed', 'num_steps', 'weights.identity'}

  def test_default_with_a_root_is_valid(self, config):
    validate(config)

  def test_all_problems_are_reported_at_once(self, config):
    config.data.rooot = 'x'
    config.batch_size = '8'
    config.augment.flip_prob = 1.5
    config.reid.pool = 'median'
    config.structure_encoder.dilations = (3, 32)
    config.log.keep_checkpoints = 0
    del config.seed
    fields = [problem.split(':')[0] for problem in problems_of(config)]
    assert sorted(fields) == sorted(
      [
        *('data.rooot', 'batch_size', 'augment.flip_prob', 'reid.pool', 'structure_encoder.dilations'),
        *('log.keep_checkpoints', 'seed'),
      ]
    )

  def test_similar_field_is_suggested(self, config):
    config.data.rooot = 'x'
    assert 'did you mean data.root?' in problems_of(config)[0]

  @pytest.mark.parametrize(
    ('field', 'value', 'words'),
    [
      ('data.image_size_hw', (64, 64, 3), 'height, width'),
      ('data.image_size_hw', (256, 126), 'multiples of 4'),
      ('data.image_size_hw', [1.5, 2.5], 'whole numbers'),
      ('structure_encoder.dilations', (3, 32), 'quarter'),
      ('structure_encoder.dilations', (), 'must not be empty'),
      ('num_steps', 2**31, 'must be at most 2147483647'),
      ('seed', 2**32, 'must be at most 4294967295'),
      ('discriminator.num_scales', 7, '2x2'),
      ('decoder.num_res_blocks', 3, 'divide the appearance code'),
      ('reid.num_parts', 17, 'stripes'),
      ('reid.batch_norm_group', 3, 'batch_size'),
      ('reid.batch_norm_group', 1, 'above 1'),
      ('batch_size', 1, 'at least 2'),
      ('batch_size', True, 'whole number'),
      ('teacher.warmup_epochs', 40, 'decay_epoch'),
      ('ramps.cycle.initial', 3.0, 'maximum'),
      ('optimizer.weight_decay', -1e-4, 'at least 0'),
      ('optimizer.reid_learning_rate', 0.0, 'above 0'),
      ('optimizer.reid_learning_rate', float('nan'), 'finite'),
      ('reid.primary_dropout', 1.0, 'below 1'),
      ('optimizer.adam_betas', (0.5,), 'two numbers in [0, 1)'),
      ('optimizer.adam_betas', (0.5, 0.9, 0.999), 'two numbers in [0, 1)'),
      ('optimizer.adam_betas', (0.5, 1.0), 'two numbers in [0, 1)'),
      ('optimizer.adam_betas', (-0.5, 0.999), 'at least 0'),
      ('optimizer.adam_betas', ('a', 'b'), 'is not numbers like 0.0,0.999'),
      ('optimizer.schedule', 'cosine', 'multistep, step, constant'),
      ('optimizer.gan_schedule', 'cosine', 'needs optimizer.generator_steps'),
      ('optimizer.muon_multiplier', 5.0, 'must be 0 with generator.design adain'),
      ('data.root', '', '--config.data.root'),
      ('data.layout', 'duke', 'must be one of csv, tfds, msmt17'),
      ('data.layout', 'tfds', 'tfdata reads files; use threads, memory or device'),
      ('data.boxes', 'drawn', 'must be one of detected, labeled'),
      ('data.camera_pattern', '(', 'not a regular expression'),
      ('data.camera_pattern', r'c(\d)', 'no group named camera'),
      ('data.camera_pattern', r'c(?P<camera>\d)', 'only layout folders'),
      ('data.identity_pattern', '(', 'not a regular expression'),
      ('data.identity_pattern', r'(?P<camera>\d)', 'no group named identity'),
      ('data.identity_pattern', r'(?P<identity>\d)_', 'only layout folders'),
      ('decoder.block', 'slim', 'the release crashes'),
      ('discriminator.norm', 'spectral', 'the release crashes'),
      ('teaching.label_style', 'warm', 'must be one of soft'),
      ('reid.normalize_code', True, 'needs style normal'),
      ('reid.style', 'PCB', 'ramps.teaching'),
      ('data', 3, 'no such field'),
      ('generation.plan', 'all', 'must be one of sheets'),
      ('generation.structure_split', 'test', 'must be one of train'),
      ('data.synthetic.cameras_per_identity', (5, 3), 'the fewest and the most cameras'),
      ('data.synthetic.cameras_per_identity', (1, 7), 'from 2 to 6'),
      ('augment.flip_prob', 1.5, 'in [0, 1]'),
      ('evaluation.reranking.weight', 1.5, 'in [0, 1]'),
      ('evaluation.reranking.k2', 21, 'at most k1'),
      ('optimizer.adam_betas', (0.5,), 'two numbers'),
      ('optimizer.adam_betas', (0.5, 1.0), 'in [0, 1)'),
      ('optimizer.adam_betas', ('a', 'b'), 'is not numbers like'),
      ('generation.jpeg_quality', 101, 'at most 100'),
      ('evaluation.ranked_table', 10_001, 'at most 10000'),
      ('generation.per_appearance', 0, 'above 0'),
      ('data.images_per_identity', 1, 'must be 0, or from 2 to half of batch_size (8) and a divisor of it'),
      ('data.images_per_identity', 3, 'a divisor of it'),
      ('teacher.images_per_identity', 32, 'half of teacher.batch_size (32)'),
      ('teacher.triplet', 1.0, 'needs teacher.images_per_identity'),
      ('teacher.circle', 1.0, 'needs teacher.images_per_identity'),
      ('teacher.label_smoothing', 1.0, 'below 1'),
      ('teacher.schedule', 'linear', 'must be one of step, cosine'),
      ('reid.circle_scale', 0.0, 'above 0'),
      ('reid.circle_margin', 1.0, 'below 1'),
      ('teacher.circle_margin', 1.5, 'below 1'),
      ('optimizer.reid_schedule', 'step', 'must be one of as_schedule, cosine'),
      ('optimizer.reid_warmup_steps', 100_000, 'below num_steps (100000)'),
    ],
  )
  def test_invalid_values_are_reported(self, config, field, value, words):
    loading.set_field(config, field, value)
    assert any(words in problem for problem in problems_of(config))

  @pytest.mark.parametrize('section', ['reid', 'teacher'])
  @pytest.mark.parametrize(
    ('fields', 'words'),
    [
      ({'backbone': 'osnet', 'last_stride': 1}, 'osnet has 3 stages: set stage_sizes to 2,2,2'),
      ({'backbone': 'osnet', 'stage_sizes': (2, 2, 2), 'last_stride': 2}, 'set last_stride to 1'),
      ({'backbone': 'resnet_ibn_a', 'width': 1}, 'set width to at least 2'),
      ({'backbone': 'resnet_ibn_b'}, 'must be one of resnet, resnet_ibn_a, osnet'),
      ({'neck': 'bn'}, 'must be one of release, bnneck'),
    ],
  )
  def test_backbones_have_their_sizes(self, config, section, fields, words):
    config[section].update(fields)
    problems = problems_of(config)
    assert any(problem.startswith(f'{section}.') and words in problem for problem in problems)

  def test_small_images_leave_no_map_of_osnet(self, config):
    config.reid.num_parts = 1
    config.teacher.update(backbone='osnet', stage_sizes=(2, 2, 2), last_stride=1)
    config.data.image_size_hw = (256, 12)
    config.structure_encoder.dilations = (1,)
    config.discriminator.num_scales = 1
    (problem,) = problems_of(config)
    assert 'teacher.backbone: osnet divides height and width by 16, and its input has 12 pixels' in problem
    config.data.image_size_hw = (256, 16)
    validate(config)

  def test_stripes_fit_the_map_of_osnet(self, config):
    config.reid.update(backbone='osnet', stage_sizes=(2, 2, 2), num_parts=16)
    validate(config)
    config.reid.num_parts = 17
    assert any('17 stripes do not fit a last map of 16 rows' in problem for problem in problems_of(config))

  @pytest.mark.parametrize(
    ('field', 'value', 'words'),
    [
      ('structure_encoder.input', 'edge', 'leave structure_encoder.input at gray'),
      ('generator.non_local_residual', True, 'leave generator.non_local_residual at False'),
      ('correspondence.attention_stride', 6, 'power of 2'),
      ('correspondence.attention_stride', 1, 'power of 2'),
      ('data.image_size_hw', (128, 48), 'multiples of 32 from 64'),
    ],
  )
  def test_correspondence_refuses_what_it_cannot_do(self, config, field, value, words):
    loading.set_field(config, field, value)
    validate(config)  # the release's design has no problem with it
    config.generator.design = 'correspondence'
    (problem,) = problems_of(config)
    assert problem.startswith('generator.design: ') and words in problem

  def test_generator_that_trains_the_code_cannot_stop(self, config):
    config.optimizer.generator_steps = 9
    validate(config)
    config.reid.detach_code = False
    assert any('optimizer.generator_steps: must be 0' in problem for problem in problems_of(config))

  @pytest.mark.parametrize('name', ['triplet', 'circle'])
  def test_metric_losses_compare_all_images_of_a_batch(self, config, name):
    config.weights[name] = 1.0
    validate(config)
    config.batch_size, config.micro_batches = 16, 2
    assert any(f'weights.{name}: needs micro_batches 1' in problem for problem in problems_of(config))
    config.micro_batches, config.reid.style, config.ramps.teaching.maximum = 1, 'PCB', 0.0
    assert any(f'weights.{name}: must be 0 with reid.style PCB' in problem for problem in problems_of(config))

  def test_cosine_of_the_teacher_reads_no_decay_epoch(self, config):
    config.teacher.update(warmup_epochs=10, decay_epoch=5)
    assert any('teacher.warmup_epochs: 10 must be below decay_epoch (5)' in problem for problem in problems_of(config))
    config.teacher.schedule = 'cosine'
    validate(config)
    config.teacher.num_epochs = 10
    assert any('teacher.warmup_epochs: 10 must be below num_epochs (10)' in problem for problem in problems_of(config))

  def test_wgan_needs_large_images(self, config):
    config.discriminator.update(gan_type='wgan', num_scales=9)
    validate(config)
    config.data.image_size_hw = (128, 60)
    assert any('discriminator.gan_type: wgan halves' in problem for problem in problems_of(config))

  def test_number_of_generated_images_is_set_once(self, config):
    config.generation.num_images = 9
    validate(config)
    config.generation.per_appearance = 2
    assert any('generation.num_images: must be 0, or per_appearance' in problem for problem in problems_of(config))

  def test_extreme_values_are_valid(self, config):
    config.batch_size = 4  # below the BatchNorm group: one group
    config.structure_encoder.dilations = (31,)
    config.discriminator.num_scales = 5
    config.reid.num_parts = 16
    config.optimizer.reid_momentum = 0
    validate(config)

  def test_teacher_backbone_must_equal_the_reid_backbone(self, config):
    config.reid.pretrained = 'teacher'
    validate(config)
    config.teacher.width = 32
    assert any('same backbone, stage_sizes and width' in problem for problem in problems_of(config))

  def test_combination_with_an_invalid_field_is_skipped(self, config):
    config.data.image_size_hw = 'large'
    config.structure_encoder.dilations = (3, 999)
    assert [problem.split(':')[0] for problem in problems_of(config)] == ['data.image_size_hw']

  def test_rules_name_existing_fields(self):
    known = {name for name, _ in leaves(default_config())}
    named = {*ranges.CHOICES, *ranges.POSITIVE, *ranges.AT_LEAST_TWO, *ranges.FRACTIONS, *ranges.AT_MOST}
    named |= {field for field, _ in ranges.REFUSED}
    named |= {field for fields, _ in combinations.COMBINATIONS for field in fields} - {'ramps', 'ramps.teaching'}
    assert named <= known

  def test_result_is_frozen_and_has_the_types_of_the_schema(self, config):
    config.structure_encoder.dilations = [1, 2]
    config.weights.identity = 2
    frozen = validate(config)
    assert frozen.structure_encoder.dilations == (1, 2) and isinstance(frozen.weights.identity, float)
    with pytest.raises(AttributeError):
      frozen.seed = 1

  def test_nested_inverts_leaves(self):
    values = Config().to_dict()
    assert nested(dict(leaves(values))) == values


def test_fields_are_replaced_by_their_names():
  config = with_fields(Config(), {'seed': 3, 'ramps.cycle.initial': 1, 'teacher.stage_sizes': [1, 1]})
  before = dict(leaves(Config().to_dict()))
  changed = {name: value for name, value in leaves(config.to_dict()) if value != before[name]}
  assert changed == {'seed': 3, 'ramps.cycle.initial': 1.0, 'teacher.stage_sizes': (1, 1)}
  for name in ('sead', 'ramp.cycle.initial', 'ramps.cycle.inital'):
    with pytest.raises(AttributeError, match=name.split('.')[-1] if name.startswith('ramps') else name.split('.')[0]):
      with_fields(Config(), {name: 1})
