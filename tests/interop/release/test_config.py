"""Settings of the release to fields of our config, and back."""

import dataclasses
import time

import pytest

from dgnet_jax.config.schema import Config, OptimizerConfig
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.config import config_fields, flatten, read_yaml, release_settings, teacher_fields


def with_section(name, **fields):
  config = Config()
  return dataclasses.replace(config, **{name: dataclasses.replace(getattr(config, name), **fields)})


class TestConfigFields:
  def test_default_settings_give_the_default_config(self):
    settings, notes = release_settings(Config(), 751, {})
    fields, _ = config_fields(flatten(settings), 'config.yaml')
    assert notes == [] and settings['ID_class'] == 751
    defaults = Config()
    for name, value in fields.items():
      default = defaults
      for part in name.split('.'):
        default = getattr(default, part)
      assert value == default, name

  def test_betas(self):
    assert config_fields({'beta1': 0.5, 'beta2': 0.9}, '')[0] == {'optimizer.adam_betas': (0.5, 0.9)}

  def test_missing_beta_is_the_default(self):
    assert config_fields({'beta1': 0.5}, '')[0] == {'optimizer.adam_betas': (0.5, 0.999)}

  @pytest.mark.parametrize('schedule', ['multistep', 'step', 'constant'])
  def test_schedule(self, schedule):
    fields, _ = config_fields({'lr_policy': schedule, 'step_size': 3}, '')
    assert fields == {'optimizer.schedule': schedule, 'optimizer.decay_steps': 3}

  def test_exponent_without_a_decimal_point_is_a_number(self, tmp_path):
    """YAML 1.1 reads it as a string."""
    (tmp_path / 'config.yaml').write_text('lr2: 1e-4\nlr_policy: step\n')
    fields, _ = config_fields(read_yaml(tmp_path / 'config.yaml'), '')
    assert fields == {'optimizer.reid_learning_rate': 1e-4, 'optimizer.schedule': 'step'}

  def test_unsupported_settings_are_listed(self):
    with pytest.raises(UserError, match=r'(?s)not supported:.*vgg_w: 1.*gen.n_downsample: 3 \(supported: 2\)'):
      config_fields({'vgg_w': 1, 'gen.n_downsample': 3}, 'config.yaml')

  def test_ignored_and_unknown_settings_are_noted(self):
    fields, notes = config_fields({'my_own': 3, 'ID_class': 4}, 'config.yaml')
    assert fields == {}
    assert notes == [
      'config.yaml: settings that have no effect here: ID_class',
      'config.yaml: unknown settings ignored: my_own',
    ]

  def test_style_pcb_overrides_what_the_release_ignores(self):
    fields, notes = config_fields({'ID_style': 'PCB', 'pool': 'max', 'max_teacher_w': 2.0}, '')
    assert fields['reid.pool'] == 'avg' and fields['ramps.teaching.maximum'] == 0.0
    assert 'reid.primary_dropout' in notes[0]


class TestReleaseSettings:
  def test_betas_and_schedule(self):
    config = with_section('optimizer', adam_betas=(0.5, 0.9), schedule='step', decay_steps=7)
    settings, notes = release_settings(config, 751, {})
    assert (settings['beta1'], settings['beta2']) == (0.5, 0.9)
    assert (settings['lr_policy'], settings['step_size'], notes) == ('step', 7, [])

  def test_constant_schedule_is_noted(self):
    settings, notes = release_settings(with_section('optimizer', schedule='constant'), 751, {})
    assert settings['lr_policy'] == 'constant'
    assert notes == ['lr_policy: constant: the release crashes on it']

  def test_field_without_a_setting_is_noted(self):
    settings, notes = release_settings(with_section('teaching', fine_on_real=20.0), 751, {})
    assert settings['B_w'] == 0.2
    assert notes == ['teaching.fine_on_real = 20.0: the release has one weight, B_w, for real and for cross images']

  def test_fields_that_share_a_setting_are_noted_if_they_differ(self):
    config = with_section('decoder', num_res_blocks=2)
    settings, notes = release_settings(config, 751, {})
    assert settings['gen']['n_res'] == 4
    assert notes == [
      'gen.n_res = 4: the release has one setting for structure_encoder.num_res_blocks, decoder.num_res_blocks; the '
      'first is used'
    ]

  def test_kept_settings_return(self):
    settings, _ = release_settings(Config(), 751, {'display_size': 5, 'gen.init': 'kaiming', 'lr2': 1.0})
    assert settings['display_size'] == 5 and settings['gen']['init'] == 'kaiming'
    assert settings['lr2'] == OptimizerConfig().reid_learning_rate


class TestTeacherFields:
  def test_options(self):
    fields, notes = teacher_fields({'stride': 1, 'droprate': 0.5, 'lr': 0.05}, 'opts.yaml')
    assert fields == {'teacher.last_stride': 1, 'teacher.dropout': 0.5}
    assert notes == ["opts.yaml: options of the teacher's training ignored: lr"]

  def test_densenet_is_not_supported(self):
    with pytest.raises(UserError, match=r'(?s)not supported:.*use_dense: True'):
      teacher_fields({'use_dense': True}, 'opts.yaml')


@pytest.mark.parametrize('text', ['- a\n- b\n', 'a: [', ''])
def test_invalid_yaml_is_rejected(tmp_path, text):
  (tmp_path / 'config.yaml').write_text(text)
  with pytest.raises(UserError, match='config.yaml: (cannot be read as YAML|not a YAML mapping)'):
    read_yaml(tmp_path / 'config.yaml')


LAUGHS = 'a: &a [x, x]\n' + ''.join(
  f'{b}: &{b} [*{a}, *{a}, *{a}, *{a}]\n' for a, b in zip('abcdefghijkl', 'bcdefghijklm', strict=True)
)
STRANGE_YAML = {
  'laughs': (LAUGHS, 'references'),
  'itself': ('a: &a [*a]', 'references'),
  'deep flow': ('a: ' + '[' * 30_000, 'nested more than 8'),
  'deep mapping': ('{a: ' * 15_000, 'nested more than 8'),
  'deep block': ('- ' * 30_000, 'nested more than 8'),
  'questions': ('? ' * 30_000, 'nested more than 8'),
  'long integer': ('a: ' + '9' * 5000, 'more than 1000 characters'),
  'base sixty': ('a: 1' + ':59' * 5000, 'more than 1000 characters'),
  'date': ('a: 2001-99-99', 'month'),
  'time': ('a: 2001-01-01T99:99:99', 'hour'),
  'float': ('a: !!float x', 'x'),
  'bool': ('a: !!bool x', 'x'),
  'underscores': ('a: 0x_', 'invalid literal'),
  'object': ('a: !!python/object/apply:os.system [ls]', 'python/object'),
  'large': ('a: 1\n' * 20_000, 'more than the 65536'),
  'control': ('a: \0', 'unacceptable'),
}


@pytest.mark.parametrize('case', STRANGE_YAML)
def test_strange_yaml_is_named_at_once(tmp_path, case):
  text, message = STRANGE_YAML[case]
  (tmp_path / 'config.yaml').write_text(text)
  start = time.process_time()
  with pytest.raises(UserError, match=rf'(?s)config\.yaml: cannot be read as YAML: .*{message}'):
    read_yaml(tmp_path / 'config.yaml')
  assert time.process_time() - start < 5
