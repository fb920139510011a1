"""The release's files to a work folder."""

import shutil

import jax
import numpy as np
import pytest

from dgnet_jax.config.loading import load_config
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.interop.release.exporter import export_release, read_state
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_names import from_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.training import loop
from dgnet_jax.training.optimizers import adam_state
from tests.interop.synthetic_release import NUM_IDENTITIES, STEP, TINY_SETTINGS, import_tiny, write_settings


def make_idle_step(*_):
  """Returns a training step that only counts."""
  return lambda state, *_: (state.replace(step=state.step + 1), {'total': np.zeros(())})


def change_network(folder, network, change):
  path = folder / f'{network}_{STEP:08d}.pt'
  state_dict = dict(read_torch(path)['a'])
  change(state_dict)
  write_torch(path, {'a': state_dict})


class TestWorkFolder:
  def test_parameters_and_statistics(self, release, imported):
    workdir, config, _ = imported
    num_identities, state = read_state(config, workdir, None)
    assert num_identities == NUM_IDENTITIES and int(state.step) == STEP
    expected = from_torch(release[1]['id'], network_entries('id', config))
    jax.tree.map(np.testing.assert_array_equal, state.reid.params, expected['params'])
    jax.tree.map(np.testing.assert_array_equal, state.reid.batch_stats, expected['batch_stats'])

  def test_config(self, imported):
    _, config, lines = imported
    assert config.optimizer.reid_learning_rate == 0.003 and config.num_steps == STEP + 1
    assert config.optimizer.adam_betas == (0.0, 0.999) and type(config.optimizer.adam_betas[0]) is float
    assert config.ramps.cycle.start_step == 50 and config.data.image_size_hw == (32, 16)
    assert config.reid.stage_sizes == (1, 1) and config.reid.num_parts == 2 and config.reid.width == 4
    assert config.teacher.head_width == 8 and config.discriminator.num_scales == 1
    assert any('settings that have no effect here: ID_class' in line for line in lines)

  def test_can_be_evaluated(self, imported, tmp_path):
    workdir, config, _ = imported
    assert evaluate(config, shutil.copytree(workdir, tmp_path / 'copy'))['step'] == STEP

  @pytest.mark.long
  def test_can_be_trained_further(self, imported, tmp_path, monkeypatch):
    """The loop accepts state, teacher and data; a real step would take a minute to compile."""
    workdir, config, _ = imported
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    monkeypatch.setattr(loop, 'make_train_step', make_idle_step)
    monkeypatch.setattr(loop, '_draw_images', lambda *_: None)
    state = loop.train(config, copy)
    assert int(state.step) == STEP + 1 and int(adam_state(state.generator.opt_state).count) == STEP
    out = export_release(copy, tmp_path / 'out')
    names = ['dis_00000007.pt', 'gen_00000007.pt', 'id_00000007.pt', 'optimizer.pt']
    assert sorted(path.name for path in out.glob('*.pt')) == names

  def test_without_discriminator_and_optimizer(self, changeable, tmp_path, lines):
    (changeable / f'dis_{STEP:08d}.pt').unlink()
    workdir = import_tiny(changeable, tmp_path / 'work', without=('dis', 'optimizer'))
    assert {
      'without dis: the discriminator starts with random weights',
      'without optimizer: all moments start at 0',
    } <= set(lines)
    saved = read_torch(export_release(workdir, tmp_path / 'out') / 'optimizer.pt')
    assert saved['gen']['state'] == {}  # Adam counts its own updates

  @pytest.mark.parametrize('field', ['reid.neck=bnneck', 'teacher.pool=gem', 'reid.backbone=resnet_ibn_a'])
  def test_network_that_the_release_lacks_is_refused(self, release, tmp_path, field):
    name, _, value = field.partition('=')
    with pytest.raises(ConfigError, match=f'{name}: the release has no {value}'):
      import_tiny(release[0], tmp_path / 'work', overrides={name: value})

  def test_existing_folder_is_not_overwritten(self, release, imported):
    with pytest.raises(UserError, match='already exists'):
      import_tiny(release[0], imported[0])


class TestStrictness:
  def test_all_problems_are_reported_and_nothing_is_written(self, changeable, tmp_path):
    def spoil(state_dict):
      del state_dict['mlp_w1.model.0.fc.bias']
      del state_dict['dec.model.3.norm.gamma']
      state_dict['dec.model.3.conv.bias'] = np.zeros(7, np.float32)
      state_dict['dec.model.1.model.0.model.0.query_conv.weight'] = np.zeros((1, 2, 1, 1), np.float32)
      state_dict['dec.model.5.conv.bias'] = np.zeros(4, np.int64)

    change_network(changeable, 'gen', spoil)
    change_network(changeable, 'dis', lambda state_dict: state_dict.pop('cnns.0.0.conv.bias'))
    with pytest.raises(UserError) as error:
      import_tiny(changeable, tmp_path / 'work')
    message = str(error.value)
    assert '2 missing: mlp_w1.model.0.fc.bias, dec.model.3.norm.gamma' in message
    assert 'of another shape: dec.model.3.conv.bias [7], expected [8]' in message
    assert 'dec.model.1.model.0.model.0.query_conv.weight' in message and '--drop-extra' in message
    assert 'dec.model.5.conv.bias is int64' in message
    assert 'gen_00000006.pt does not fit' in message and 'dis_00000006.pt does not fit' in message
    assert not (tmp_path / 'work').exists() and not list(tmp_path.glob('.work*'))

  def test_arrays_are_dropped_on_request(self, changeable, tmp_path, lines):
    """The moments after a dropped array keep their parameters."""
    name = 'dec.model.1.model.0.model.0.query_conv.weight'
    original = dict(read_torch(changeable / f'gen_{STEP:08d}.pt')['a'])
    extended = {}
    for key, array in original.items():
      if key == 'dec.model.3.norm.gamma':
        extended[name] = np.zeros((1, 2, 1, 1), np.float32)
      extended[key] = array
    write_torch(changeable / f'gen_{STEP:08d}.pt', {'a': extended})
    saved = read_torch(changeable / 'optimizer.pt')
    place = list(extended).index(name) - sum('running' in key for key in original)
    state = saved['gen']['state']
    moved = {i + (i >= place): slots for i, slots in state.items()} | {place: {'step': STEP}}
    saved['gen']['state'] = moved
    saved['gen']['param_groups'][0]['params'] = list(range(len(moved)))
    write_torch(changeable / 'optimizer.pt', saved)
    workdir = import_tiny(changeable, tmp_path / 'work', drop=['*.query_conv.*'])
    assert any(line.endswith(f'dropped as requested: {name}') for line in lines)
    exported = read_torch(export_release(workdir, tmp_path / 'out') / 'optimizer.pt')['gen']['state']
    for i in state:
      np.testing.assert_array_equal(exported[i]['exp_avg'], state[i]['exp_avg'])

  @pytest.mark.parametrize(
    ('gamma', 'effect'), [(0.0, 'contribute nothing'), (-0.5, 'add up to 0.5 times their output')]
  )
  def test_effect_of_dropped_non_local_blocks_is_reported(self, gamma, effect, changeable, tmp_path, lines):
    name = 'enc_content.model.4.model.0.attention.gamma'
    change_network(changeable, 'gen', lambda state_dict: state_dict.update({name: np.full(1, gamma, np.float32)}))
    import_tiny(changeable, tmp_path / 'work', drop=['*.attention.*'], without=('optimizer',))
    assert any('1 non-local blocks dropped' in line and effect in line for line in lines)

  def test_numbers_of_identities_must_agree(self, changeable, tmp_path):
    path = changeable / 'teacher' / 'net_last.pth'
    state_dict = dict(read_torch(path))
    state_dict['classifier.classifier.0.weight'] = np.zeros((9, 8), np.float32)
    write_torch(path, state_dict)
    with pytest.raises(UserError, match='the same number of identities: .*has 4, .*has 9'):
      import_tiny(changeable, tmp_path / 'work')

  def test_files_of_other_networks_are_recognised(self, changeable, tmp_path):
    shutil.copy(changeable / f'dis_{STEP:08d}.pt', changeable / f'gen_{STEP:08d}.pt')
    with pytest.raises(UserError, match=r'gen_00000006.pt: not a supported `gen` of the release \(KeyError'):
      import_tiny(changeable, tmp_path / 'work')


class TestSettings:
  def test_without_settings_the_defaults_are_used(self, changeable, tmp_path, lines):
    for path in (changeable / 'config.yaml', changeable / 'teacher' / 'opts.yaml'):
      path.unlink()
    optimizers = read_torch(changeable / 'optimizer.pt')
    for network in ('gen', 'dis'):
      optimizers[network]['param_groups'][0]['betas'] = (0.5, 0.9)
    write_torch(changeable / 'optimizer.pt', optimizers)
    workdir = import_tiny(changeable, tmp_path / 'work', overrides={'data.image_size_hw': '32,16'})
    config = load_config(workdir / 'config.json', {})
    assert config.optimizer.reid_learning_rate == 0.002 and config.optimizer.schedule == 'multistep'
    assert config.optimizer.adam_betas == (0.5, 0.9)  # known from optimizer.pt
    assert {f"no {name}.yaml: the release's default settings are used" for name in ('config', 'opts')} <= set(lines)

  def test_values_that_crash_the_release_are_rejected(self, changeable, tmp_path):
    generator = TINY_SETTINGS['gen'] | {'dec': 'slim', 'mlp_norm': 'bn'}
    write_settings(changeable, TINY_SETTINGS | {'gen': generator, 'dis': {'norm': 'sn'}})
    with pytest.raises(ConfigError) as error:
      import_tiny(changeable, tmp_path / 'work')
    message = str(error.value)
    assert "decoder.block: 'slim'" in message and 'the release crashes on it' in message
    assert "decoder.mlp_norm: 'batch'" in message and "discriminator.norm: 'spectral'" in message

  def test_invalid_betas_and_schedules_are_rejected(self, changeable, tmp_path):
    write_settings(changeable, TINY_SETTINGS | {'beta1': 1.5, 'lr_policy': 'cosine'})
    with pytest.raises(ConfigError) as error:
      import_tiny(changeable, tmp_path / 'work', without=('optimizer',))
    message = str(error.value)
    assert 'optimizer.adam_betas: (1.5, 0.999) must be two numbers in [0, 1)' in message
    assert "optimizer.schedule: 'cosine' must be one of multistep, step, constant" in message

  def test_that_contradict_the_shapes_are_rejected(self, changeable, tmp_path):
    write_settings(changeable, TINY_SETTINGS | {'gen': {'dim': 16}, 'batch_size': 'eight'})
    with pytest.raises(ConfigError) as error:
      import_tiny(changeable, tmp_path / 'work')
    assert 'structure_encoder.width: 16 in the settings, but 2 by the shapes' in str(error.value)
    assert "batch_size: 'eight' is not a whole number" in str(error.value)
