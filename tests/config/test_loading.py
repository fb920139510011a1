"""Config files, command-line overrides and saved configs."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import leaves, nested, validate
from dgnet_jax.data.layouts import LAYOUTS
from dgnet_jax.errors import ConfigError, UserError

CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


@pytest.fixture
def config():
  config = default_config()
  config.data.root = 'somewhere'
  return config


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

  @pytest.mark.parametrize('change', [{'seed': {'x': 1}}, {'data': 3}, {'batch_size.x.y': 1}, {'': 3}, {'seed': []}])
  def test_fields_of_another_kind_are_refused(self, config, tmp_path, change):
    """In the file, and in the config of a checkpoint."""
    path, frozen = tmp_path / 'config.json', validate(config)
    path.write_text(json.dumps(frozen.to_dict() | change))
    with pytest.raises(UserError):
      loading.load_config(path, {})
    with pytest.raises(UserError):
      loading.complete_config(frozen.to_dict() | change)
    try:
      assert loading.changed_fields(path, frozen)
    except UserError as error:
      assert str(path) in str(error)

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


@pytest.mark.parametrize('text', ['9' * 4000, '9' * 5000, '(' * 100_000, '-' * 100_000, '((1,' * 500], ids=len)
@pytest.mark.parametrize('field', ['num_steps', 'data.image_size_hw', 'optimizer.weight_decay'])
def test_long_values_on_the_command_line_are_one_short_problem(field, text):
  with pytest.raises(ConfigError) as error:
    loading.load_config(CONFIGS / 'synthetic.py', {field: text})
  assert len(error.value.problems) == 1 and error.value.problems[0].startswith(field)
  assert len(str(error.value)) < 500


@pytest.mark.parametrize(
  'change',
  [
    lambda values: values.update(batch_size=10**18),
    lambda values: values.update(batch_size={'x': 1}),
    lambda values: values.update({'data.root.x': 1}),
    lambda values: values.update(data=5),
    lambda values: values.update(items=1),
    lambda values: values.update({'': {'': 1}}),
  ],
)
def test_strange_saved_configs_are_refused(tmp_path, change):
  values = default_config().to_dict()
  change(values)
  path = tmp_path / 'config.json'
  path.write_text(json.dumps(values))
  with pytest.raises(UserError):
    loading.load_config(path, {})


@pytest.mark.parametrize('text', ['[' * 100_000, '{"a":' * 900 + '1' + '}' * 900, '9' * 5000, '\x00', '"'], ids=len)
def test_damaged_saved_configs_are_named(tmp_path, config, text):
  path = tmp_path / 'config.json'
  path.write_text(text)
  with pytest.raises(UserError, match=r'config\.json: damaged'):
    loading.load_config(path, {})
  with pytest.raises(UserError, match=r'config\.json: damaged'):
    loading.changed_fields(path, validate(config))
