"""Validation of configurations, config files, command-line overrides and saved configs."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from dgnet_jax.config import loading, rules
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, nested, validate
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.errors import ConfigError, UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


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
      ('data.layout', 'tfds', 'tfdata reads files; use threads or memory'),
      ('data.root', 'gs://bucket/x', 'only prepared data sets'),
      ('data.boxes', 'drawn', 'must be one of detected, labeled'),
      ('data.camera_pattern', '(', 'not a regular expression'),
      ('data.camera_pattern', r'c(\d)', 'no group named camera'),
      ('data.camera_pattern', r'c(?P<camera>\d)', 'only layout folders'),
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
      ('generation.per_appearance', 0, 'above 0'),
    ],
  )
  def test_invalid_values_are_reported(self, config, field, value, words):
    loading.set_field(config, field, value)
    assert any(words in problem for problem in problems_of(config))

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
    assert any('same stage_sizes and width' in problem for problem in problems_of(config))

  def test_combination_with_an_invalid_field_is_skipped(self, config):
    config.data.image_size_hw = 'large'
    config.structure_encoder.dilations = (3, 999)
    assert [problem.split(':')[0] for problem in problems_of(config)] == ['data.image_size_hw']

  def test_rules_name_existing_fields(self):
    known = {name for name, _ in leaves(default_config())}
    named = {*rules.CHOICES, *rules.POSITIVE, *rules.AT_LEAST_TWO, *rules.FRACTIONS}
    named |= {field for field, _ in rules.REFUSED}
    named |= {field for fields, _ in rules.COMBINATIONS for field in fields} - {'ramps', 'ramps.teaching'}
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


class TestOverrides:
  def test_value_follows_an_equals_sign_or_a_space(self):
    arguments = ['--config.batch_size=4', '--mode=train', '--config.data.root', 'a=b', '--workdir', 'w']
    overrides, others, problems = loading.split_overrides(arguments)
    assert overrides == {'batch_size': '4', 'data.root': 'a=b'}
    assert others == ['--mode=train', '--workdir', 'w']
    assert not problems

  def test_missing_value_does_not_consume_the_next_flag(self):
    overrides, others, problems = loading.split_overrides(['--config.seed', '--mode=train', '--config.seed'])
    assert (overrides, others) == ({}, ['--mode=train'])
    assert len(problems) == 2

  @pytest.mark.parametrize(
    ('text', 'reference', 'value'),
    [
      *(('4', 1, 4), ('100_000', 1, 100_000), ('-1', 1, -1), ('1e-4', 0.5, 1e-4), ('2', 0.5, 2.0)),
      *(('true', False, True), ('0', True, False), ('x y', '', 'x y'), ('', 'x', '')),
      *(
        ('0.5,1', (0.0, 0.9), (0.5, 1)),
        ('(64, 32)', (1, 2), (64, 32)),
        ('64,32', (1, 2), (64, 32)),
        ('[3]', (1, 2), (3,)),
        ('(3,)', (1, 2), (3,)),
      ),
    ],
  )
  def test_values_have_the_type_of_the_default(self, text, reference, value):
    parsed = loading.parse_value(text, reference)
    assert parsed == value
    assert type(parsed) is type(reference)

  @pytest.mark.parametrize(
    ('text', 'reference'),
    [
      ('4.5', 1),
      ('four', 1),
      ('x', 0.5),
      ('maybe', True),
      ('a,b', (1, 2)),
      ('1.5,2', (1, 2)),
      ('', (1, 2)),
      ('(', (1,)),
    ],
  )
  def test_values_of_another_type_are_refused(self, text, reference):
    with pytest.raises((ValueError, SyntaxError)):
      loading.parse_value(text, reference)

  def test_problems_of_file_and_command_line_are_reported_together(self):
    overrides = {'bach_size': '3', 'seed': 'x', 'augment.flip_prob': '2'}
    with pytest.raises(ConfigError) as caught:
      loading.load_config(CONFIGS / 'market.py', overrides, ['x: before'])
    assert [p.split(':')[0] for p in caught.value.problems] == [
      *('x', 'bach_size', 'seed', 'augment.flip_prob', 'data.root')
    ]

  @pytest.mark.parametrize(
    'name',
    [
      'market',
      'duke',
      'msmt17',
      'cuhk03',
      'veri',
      'market_correspondence',
      'duke_correspondence',
      'msmt17_correspondence',
    ],
  )
  def test_public_data_sets_have_a_config(self, name):
    config = loading.load_config(name, {'data.root': 'somewhere'})
    assert LAYOUTS[config.data.layout].counts

  def test_values_of_a_file_have_the_types_of_the_schema(self, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(
      'from dgnet_jax.config.defaults import default_config\n'
      'def get_config():\n'
      '  config = default_config()\n'
      '  config.data.root = "x"\n'
      '  config.structure_encoder.dilations = [1, 2]\n'
      '  config.weights.identity = 2\n'
      '  return config\n'
    )
    config = loading.load_config(path, {})
    assert config.structure_encoder.dilations == (1, 2)
    assert isinstance(config.weights.identity, float)


class TestConfigFiles:
  def test_missing_file_lists_the_names(self):
    with pytest.raises(UserError, match=r'did you mean market\?; .*cuhk03, duke, .*market'):
      loading.read_config_file(CONFIGS / 'markt.py')

  def test_config_is_found_by_name(self, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert loading.find_config_file('veri').samefile(CONFIGS / 'veri.py')
    assert loading.read_config_file('veri').data.layout == 'veri776'

  def test_path_comes_before_name(self, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'veri').write_text('')
    assert loading.find_config_file('veri').samefile(tmp_path / 'veri')

  def test_installed_configs_come_before_those_of_the_checkout(self, monkeypatch, tmp_path):
    package = tmp_path / 'dgnet_jax'
    monkeypatch.setattr(loading, '__file__', str(package / 'config' / 'loading.py'))
    assert loading.config_folder() == tmp_path / 'configs'
    (package / 'configs').mkdir(parents=True)
    assert loading.config_folder() == package / 'configs'

  @pytest.mark.parametrize(
    ('text', 'words'),
    [
      ('x = 1\ny = z\n', 'line 2: NameError'),
      ('def get_config():\n  return 3\n', 'returned int'),
      ('(', 'SyntaxError'),
    ],
  )
  def test_failing_file_is_reported_with_its_line(self, tmp_path, text, words):
    (tmp_path / 'c.py').write_text(text)
    with pytest.raises(UserError, match=words):
      loading.read_config_file(tmp_path / 'c.py')

  def test_changed_fields_are_listed(self, config, tmp_path):
    path = tmp_path / 'run' / 'config.json'
    assert loading.changed_fields(path, validate(config)) == []
    loading.save_config(validate(config), path)
    assert json.loads(path.read_text())['data']['image_size_hw'] == [256, 128]
    assert loading.changed_fields(path, validate(config)) == []
    config.batch_size = 4
    assert loading.changed_fields(path, validate(config)) == ['batch_size: 8 -> 4']
    assert [p.name for p in path.parent.iterdir()] == ['config.json']

  def test_saved_config_can_be_loaded(self, config, tmp_path):
    config.structure_encoder.dilations = (1, 2)
    saved = validate(config)
    loading.save_config(saved, tmp_path / 'config.json')
    assert loading.load_config(tmp_path / 'config.json', {}) == saved
    changed = loading.load_config(tmp_path / 'config.json', {'batch_size': '4'})
    assert changed == dataclasses.replace(saved, batch_size=4)

  def test_new_fields_of_an_older_config_have_their_defaults(self, config, tmp_path):
    path = tmp_path / 'config.json'
    loading.save_config(validate(config), path)
    values = json.loads(path.read_text())
    del values['seed'], values['evaluation']['reranking'], values['data']['cache_mib']
    path.write_text(json.dumps(values))
    assert loading.load_config(path, {}) == validate(config)
    assert loading.changed_fields(path, validate(config)) == []

  def test_former_names_of_fields_and_values_are_understood(self, config, tmp_path):
    config.data.layout = 'synthetic'
    config.joint = False
    config.data.synthetic.images_per_identity = 3
    config.log.images_every_steps = 5
    config.evaluation.num_ground_truth_pairs = 7
    config.generation.num_images = 9
    path, expected = tmp_path / 'config.json', validate(config)
    loading.save_config(expected, path)
    fields = dict(leaves(json.loads(path.read_text())))
    for former, name in loading.FORMER_FIELDS.items():
      fields[former] = fields.pop(name)
    fields |= {'teaching.pictures': 'truth', 'generation.plan': 'photos'}
    path.write_text(json.dumps(nested(fields)))
    loaded = loading.load_config(path, {})
    assert (loaded.teaching.images, loaded.generation.plan) == ('ground_truth', 'images')
    changes = [line.split(':')[0] for line in loading.changed_fields(path, expected)]
    assert changes == ['generation.plan', 'teaching.images']
    assert (loaded.data, loaded.log, loaded.evaluation) == (expected.data, expected.log, expected.evaluation)

  @pytest.mark.parametrize('text', ['{', '[1, 2]', '{"batch_size": 8}'])
  def test_file_that_is_no_saved_config_is_refused(self, tmp_path, text):
    (tmp_path / 'config.json').write_text(text)
    with pytest.raises(UserError, match='damaged|not the config.json of a work folder'):
      loading.load_config(tmp_path / 'config.json', {})

  def test_changed_fields_raises_if_the_file_is_damaged(self, config, tmp_path):
    (tmp_path / 'config.json').write_text('{')
    with pytest.raises(UserError, match='damaged'):
      loading.changed_fields(tmp_path / 'config.json', validate(config))


def test_nothing_heavy_is_imported():
  code = (
    'import sys\n'
    'import dgnet_jax.config.defaults, dgnet_jax.config.loading, dgnet_jax.main\n'
    'print([m for m in ("jax", "numpy", "flax", "optax", "orbax", "tensorflow", "PIL") if m in sys.modules])'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == '[]'
