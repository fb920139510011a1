"""What does not fit is told in full, and nothing is written."""

import shutil

import numpy as np
import pytest
import yaml

from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.interop.release.exporter import export_release, read_state
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.training.optimizers import adam_slots, momentum_slots
from tests.interop.synthetic_release import (
  STEP,
  TINY_YAML,
  bring,
  write_release,
)


class TestStrictness:
  def change(self, folder, network, change):
    path = folder / f'{network}_{STEP:08d}.pt'
    state_dict = dict(read_torch(path)['a'])
    change(state_dict)
    write_torch(path, {'a': state_dict})

  def test_everything_wrong_is_told_at_once(self, changeable, tmp_path):
    def spoil(state_dict):
      del state_dict['mlp_w1.model.0.fc.bias']
      del state_dict['dec.model.3.norm.gamma']
      state_dict['dec.model.3.conv.bias'] = np.zeros(7, np.float32)
      state_dict['dec.model.1.model.0.model.0.query_conv.weight'] = np.zeros((1, 2, 1, 1), np.float32)
      state_dict['dec.model.5.conv.bias'] = np.zeros(4, np.int64)

    self.change(changeable, 'gen', spoil)
    self.change(changeable, 'dis', lambda state_dict: state_dict.pop('cnns.0.0.conv.bias'))
    with pytest.raises(UserError) as error:
      bring(changeable, tmp_path / 'work')
    text = str(error.value)
    assert '2 missing: mlp_w1.model.0.fc.bias, dec.model.3.norm.gamma' in text
    assert 'of another shape: dec.model.3.conv.bias [7], expected [8]' in text
    assert 'dec.model.1.model.0.model.0.query_conv.weight' in text and '--drop-extra' in text
    assert 'dec.model.5.conv.bias is int64' in text
    assert 'gen_00000006.pt does not fit' in text and 'dis_00000006.pt does not fit' in text
    assert not (tmp_path / 'work').exists() and not list(tmp_path.glob('.work*'))

  def test_extras_are_dropped_when_asked_and_told(self, changeable, tmp_path, lines):
    """And the optimiser's slots keep their places."""
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
    numbers = list(range(len(moved)))
    saved['gen'] = {'state': moved, 'param_groups': [{'params': numbers}]}
    write_torch(changeable / 'optimizer.pt', saved)
    lines.clear()
    workdir = bring(changeable, tmp_path / 'work', drop=['*.query_conv.*'])
    assert any(line.endswith(f'dropped as asked: {name}') for line in lines)
    out = export_release(workdir, tmp_path / 'out')
    ours = read_torch(out / 'optimizer.pt')['gen']['state']
    for i in state:
      np.testing.assert_array_equal(ours[i]['exp_avg'], state[i]['exp_avg'])

  @pytest.mark.parametrize(('gamma', 'said'), [(0.0, 'added nothing'), (-0.5, 'add up to 0.5 times their output')])
  def test_what_dropped_non_local_blocks_did(self, gamma, said, changeable, tmp_path):
    name, lines = 'enc_content.model.4.model.0.attention.gamma', []
    self.change(changeable, 'gen', lambda state_dict: state_dict.update({name: np.full(1, gamma, np.float32)}))
    bring(changeable, tmp_path / 'work', drop=['*.attention.*'], without=('optimizer',))
    assert any('1 non-local blocks dropped' in line and said in line for line in lines)

  def test_settings_that_are_not_known(self, changeable, tmp_path):
    settings = TINY_YAML | {'lr_policy': 'constant', 'gen': {'n_downsample': 3}}
    (changeable / 'config.yaml').write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match=r'(?s)not known here:.*lr_policy: constant.*gen.n_downsample: 3'):
      bring(changeable, tmp_path / 'work')

  def test_settings_that_crash_the_release(self, changeable, tmp_path):
    settings = TINY_YAML | {'gen': TINY_YAML['gen'] | {'dec': 'slim', 'mlp_norm': 'bn'}, 'dis': {'norm': 'sn'}}
    (changeable / 'config.yaml').write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError) as error:
      bring(changeable, tmp_path / 'work')
    assert "decoder.block: 'slim'" in str(error.value) and 'the release crashes on it' in str(error.value)
    assert "decoder.mlp_norm: 'batch'" in str(error.value) and "discriminator.norm: 'spectral'" in str(error.value)

  def test_settings_of_other_networks(self, changeable, tmp_path):
    settings = TINY_YAML | {'gen': {'dim': 16}, 'batch_size': 'eight'}
    (changeable / 'config.yaml').write_text(yaml.safe_dump(settings))
    with pytest.raises(ConfigError) as error:
      bring(changeable, tmp_path / 'work')
    assert 'structure_encoder.width: 16 by the settings, 2 by the shapes' in str(error.value)
    assert "batch_size: 'eight' is not a whole number" in str(error.value)

  def test_unknown_keys_are_listed(self, changeable, tmp_path, lines):
    lines.clear()
    (changeable / 'config.yaml').write_text(yaml.safe_dump(TINY_YAML | {'my_own': 3}))
    bring(changeable, tmp_path / 'work')
    assert any('my_own is not known, left out' in line for line in lines)

  def test_people_must_agree(self, changeable, tmp_path):
    path = changeable / 'teacher' / 'net_last.pth'
    state_dict = dict(read_torch(path))
    state_dict['classifier.classifier.0.weight'] = np.zeros((9, 8), np.float32)
    write_torch(path, state_dict)
    with pytest.raises(UserError, match='one number of people: .*has 4, .*has 9'):
      bring(changeable, tmp_path / 'work')

  def test_files_in_each_others_place(self, changeable, tmp_path):
    shutil.copy(changeable / f'dis_{STEP:08d}.pt', changeable / f'gen_{STEP:08d}.pt')
    with pytest.raises(UserError, match="gen_00000006.pt: no `gen` of the release that is known here: 'enc_content"):
      bring(changeable, tmp_path / 'work')

  def test_something_else_in_a_file(self, changeable, tmp_path):
    write_torch(changeable / f'gen_{STEP:08d}.pt', {'b': {}})
    with pytest.raises(UserError, match="no 'gen' of the release, which has its arrays under 'a'"):
      bring(changeable, tmp_path / 'work')


class TestOptimizer:
  def test_slots(self, release, imported):
    """By the release's numbering, which is the order of its names."""
    workdir, config, _ = imported
    _, state = read_state(config, workdir, None)
    saved = read_torch(release[0] / 'optimizer.pt')
    first_moment, second_moment = adam_slots(state.generator.opt_state)
    kernel = np.transpose(saved['gen']['state'][0]['exp_avg'], (2, 3, 1, 0))
    np.testing.assert_array_equal(first_moment['structure_encoder']['down_0']['conv']['kernel'], kernel)
    bias = saved['gen']['state'][1]['exp_avg_sq']
    np.testing.assert_array_equal(second_moment['structure_encoder']['down_0']['conv']['bias'], bias)
    last = max(saved['id']['state'])
    fine = momentum_slots(state.reid.opt_state)['fine_head']['classifier']['bias']
    np.testing.assert_array_equal(fine, saved['id']['state'][last]['momentum_buffer'])

  def test_of_another_snapshot(self, release, changeable, tmp_path):
    write_release(changeable, release[1], STEP, optimizer_step=STEP - 3)
    with pytest.raises(UserError, match='is of step 3, the networks are of step 6.*--step.*--without optimizer'):
      bring(changeable, tmp_path / 'work')

  def test_name_a_step_ahead(self, release, changeable, tmp_path, lines):
    """As the release names the snapshots at the end of an epoch."""
    lines.clear()
    write_release(changeable, release[1], STEP, optimizer_step=STEP - 1)
    workdir = bring(changeable, tmp_path / 'work')
    assert any('5 iterations were done, though the files are named 6' in line for line in lines)
    assert [path.name for path in (workdir / 'checkpoints').iterdir()] == ['5']

  @pytest.mark.parametrize(
    ('spoil', 'message'),
    [
      (lambda saved: saved['gen']['state'].pop(3), 'exp_avg of enc_content.model.1.conv.bias'),
      (lambda saved: saved['dis']['param_groups'][0]['params'].pop(), r'is of \d+ parameters, the network'),
      (lambda saved: saved['id']['state'][0].update(momentum_buffer=np.zeros(3, np.float32)), 'of model.conv1.weight'),
      (lambda saved: saved['gen']['state'][2].update(step=1), 'one step for all'),
      (lambda saved: saved.pop('id'), "has the parts 'gen', 'dis' and 'id'"),
      (lambda saved: saved.update(id=[]), 'no optimiser state'),
    ],
  )
  def test_spoilt(self, changeable, tmp_path, spoil, message):
    saved = read_torch(changeable / 'optimizer.pt')
    spoil(saved)
    write_torch(changeable / 'optimizer.pt', saved)
    with pytest.raises(UserError, match=rf'(?s)optimizer\.pt.*{message}'):
      bring(changeable, tmp_path / 'work')
