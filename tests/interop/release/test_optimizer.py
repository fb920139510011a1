"""Moments, learning rates and betas in optimizer.pt."""

import jax
import numpy as np
import optax
import pytest

from dgnet_jax.config.loading import load_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.exporter import export_release, read_state
from dgnet_jax.interop.release.names import OURS, parameters_in_order
from dgnet_jax.interop.release.optimizer import read_optimizers, release_groups
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.training.optimizers import adam_state, momentum_buffers
from dgnet_jax.training.schedules import learning_rates
from tests.interop.synthetic_release import STEP, TINY_SETTINGS, import_tiny, write_release, write_settings
from tests.interop.torch_files import binary, write_zip
from tests.parity import goldens


def change_optimizers(folder, change):
  saved = read_torch(folder / 'optimizer.pt')
  change(saved)
  write_torch(folder / 'optimizer.pt', saved)


def set_betas(*networks, betas):
  def change(saved):
    for network in networks:
      saved[network]['param_groups'][0]['betas'] = betas

  return change


def imported_config(folder, workdir, **options):
  return load_config(import_tiny(folder, workdir, **options) / 'config.json', {})


class TestMoments:
  def test_are_numbered_in_the_order_of_the_names(self, release, imported):
    workdir, config, _ = imported
    _, state = read_state(config, workdir, None)
    saved = read_torch(release[0] / 'optimizer.pt')
    adam = adam_state(state.generator.opt_state)
    kernel = np.transpose(saved['gen']['state'][0]['exp_avg'], (2, 3, 1, 0))
    np.testing.assert_array_equal(adam.mu['structure_encoder']['down_0']['conv']['kernel'], kernel)
    bias = saved['gen']['state'][1]['exp_avg_sq']
    np.testing.assert_array_equal(adam.nu['structure_encoder']['down_0']['conv']['bias'], bias)
    last = max(saved['id']['state'])
    fine = momentum_buffers(state.reid.opt_state)['fine_head']['classifier']['bias']
    np.testing.assert_array_equal(fine, saved['id']['state'][last]['momentum_buffer'])

  def test_of_a_new_run_are_zero(self, changeable, tmp_path):
    change_optimizers(changeable, lambda saved: [saved[network]['state'].clear() for network in OURS])
    for network in ('gen', 'dis', 'id'):
      (changeable / f'{network}_{STEP:08d}.pt').rename(changeable / f'{network}_{0:08d}.pt')
    workdir = import_tiny(changeable, tmp_path / 'work')
    _, state = read_state(load_config(workdir / 'config.json', {}), workdir, None)
    assert int(state.step) == int(adam_state(state.generator.opt_state).count) == 0
    moments = adam_state(state.generator.opt_state).nu, momentum_buffers(state.reid.opt_state)
    assert not any(leaf.any() for leaf in jax.tree.leaves(moments))

  def test_of_another_snapshot_are_rejected(self, release, changeable, tmp_path):
    write_release(changeable, release[1], STEP, optimizer_step=STEP - 3)
    with pytest.raises(UserError, match='belongs to step 3, but the networks to step 6.*--step.*--without optimizer'):
      import_tiny(changeable, tmp_path / 'work')

  def test_determine_the_step_if_files_are_named_a_step_ahead(self, release, changeable, tmp_path, lines):
    """The release does so at the end of an epoch."""
    write_release(changeable, release[1], STEP, optimizer_step=STEP - 1)
    workdir = import_tiny(changeable, tmp_path / 'work')
    assert any('5 iterations were done, although the files are named 6' in line for line in lines)
    assert [path.name for path in (workdir / 'checkpoints').iterdir()] == ['5']

  @pytest.mark.parametrize(
    ('spoil', 'message'),
    [
      (lambda saved: saved['gen']['state'].pop(3), 'exp_avg of enc_content.model.1.conv.bias'),
      (lambda saved: saved['dis']['param_groups'][0]['params'].pop(), r'\d+ parameters, but the network has'),
      (lambda saved: saved['id']['state'][0].update(momentum_buffer=np.zeros(3, np.float32)), 'of model.conv1.weight'),
      (lambda saved: saved['gen']['state'][2].update(step=1), 'one step for all parameters, but found 1, 6'),
      (lambda saved: saved.pop('id'), "has the keys 'gen', 'dis' and 'id'"),
      (lambda saved: saved.update(id=[]), 'not the state dict of an optimizer'),
      (lambda saved: saved['id'].update(param_groups=[]), 'not the state dict of an optimizer'),
      (set_betas('gen', betas=3), 'not the state dict of an optimizer'),
    ],
  )
  def test_that_are_damaged_are_rejected(self, changeable, tmp_path, spoil, message):
    change_optimizers(changeable, spoil)
    with pytest.raises(UserError, match=rf'(?s)optimizer\.pt.*{message}'):
      import_tiny(changeable, tmp_path / 'work')


class TestBetas:
  def test_round_trip(self, changeable, tmp_path):
    change_optimizers(changeable, set_betas('gen', 'dis', betas=(0.5, 0.9)))
    write_settings(changeable, TINY_SETTINGS | {'beta1': 0.5, 'beta2': 0.9})
    config = imported_config(changeable, tmp_path / 'work')
    assert config.optimizer.adam_betas == (0.5, 0.9)
    out = export_release(tmp_path / 'work', tmp_path / 'out')
    saved = read_torch(out / 'optimizer.pt')
    assert [saved[network]['param_groups'][0]['betas'] for network in ('gen', 'dis')] == [(0.5, 0.9)] * 2
    assert 'beta1: 0.5\nbeta2: 0.9\n' in (out / 'config.yaml').read_text()

  def test_of_the_optimizer_take_precedence_over_the_settings(self, changeable, tmp_path, lines):
    """torch resumes with those in optimizer.pt."""
    write_settings(changeable, TINY_SETTINGS | {'beta1': 0.5})
    assert imported_config(changeable, tmp_path / 'work').optimizer.adam_betas == (0.0, 0.999)
    assert any('Adam betas (0.5, 0.999) replaced by (0.0, 0.999)' in line for line in lines)

  def test_of_an_override_take_precedence_over_all(self, changeable, tmp_path):
    overrides = {'optimizer.adam_betas': '0.3,0.7'}
    assert imported_config(changeable, tmp_path / 'work', overrides=overrides).optimizer.adam_betas == (0.3, 0.7)

  def test_that_differ_between_networks_are_rejected(self, changeable, tmp_path):
    change_optimizers(changeable, set_betas('gen', betas=(0.5, 0.999)))
    with pytest.raises(UserError, match=r'betas \(0.5, 0.999\), but the discriminator has \(0.0, 0.999\)'):
      import_tiny(changeable, tmp_path / 'work')


def last_rates(folder):
  saved = read_torch(folder / 'optimizer.pt')
  return {network: [group['lr'] for group in saved[network]['param_groups']] for network in OURS}


class TestLearningRates:
  """Six iterations were done. With step_size 4, schedule step drops at iterations 3 and 7, multistep at 3, 5 and 6."""

  @pytest.mark.parametrize(
    ('schedule', 'last', 'following'),
    [('step', 1, (1, 2)), ('multistep', 2, (3, 3)), ('constant', 0, (0, 0))],
  )
  def test_resumed_run_continues_the_schedule(self, changeable, tmp_path, schedule, last, following):
    write_settings(changeable, TINY_SETTINGS | {'lr_policy': schedule, 'step_size': 4, 'gamma': 0.5, 'gamma2': 0.2})
    workdir = import_tiny(changeable, tmp_path / 'work')
    out = export_release(workdir, tmp_path / 'out')
    assert f'lr_policy: {schedule}\n' in (out / 'config.yaml').read_text()
    rates = {'gen': [1e-4 * 0.5**last], 'dis': [1e-4 * 0.5**last], 'id': [x * 0.2**last for x in (3e-3, 3e-2, 3e-2)]}
    assert last_rates(out) == {network: pytest.approx(rate) for network, rate in rates.items()}
    config = load_config(workdir / 'config.json', {})
    _, state = read_state(config, workdir, None)
    for network in (state.generator, state.discriminator, state.reid):
      assert int(optax.tree_utils.tree_get(network.opt_state, 'ScaleByScheduleState').count) == STEP
    for step, drops in enumerate(following, start=STEP):
      expected = {'generator': 1e-4 * 0.5**drops, 'discriminator': 1e-4 * 0.5**drops, 'reid': 3e-3 * 0.2**drops}
      assert learning_rates(config, step) == pytest.approx(expected)

  def test_that_differ_from_the_settings_are_reported(self, changeable, tmp_path, lines):
    """For example after the release was resumed, which restarts a scheduler."""

    def change(saved):
      saved['dis']['param_groups'][0]['lr'] = 5e-5

    change_optimizers(changeable, change)
    import_tiny(changeable, tmp_path / 'work')
    reports = [line for line in lines if 'the last learning rate was' in line]
    assert len(reports) == 1 and 'dis: the last learning rate was 5e-05, but the settings give 0.0001' in reports[0]


class TestGroups:
  def test_settings_of_the_tiny_run(self, imported, tmp_path):
    saved = read_torch(export_release(imported[0], tmp_path / 'out') / 'optimizer.pt')
    backbone, *heads = saved['id']['param_groups']
    assert backbone['momentum'] == 0.9 and backbone['nesterov'] is True and backbone['initial_lr'] == 0.003
    assert [head['initial_lr'] for head in heads] == [pytest.approx(0.03)] * 2
    assert saved['gen']['param_groups'][0]['eps'] == 1e-8 and saved['gen']['state'][0]['step'] == STEP
    numbers = [i for group in saved['id']['param_groups'] for i in group['params']]
    assert numbers == list(range(len(numbers)))

  @pytest.mark.parametrize('network', OURS)
  def test_match_the_goldens(self, parity_dir, network):
    groups = goldens.load_json(parity_dir, 'optim')[f'{network}_opt']['groups']
    shapes = goldens.shapes_of(parity_dir, network, goldens.release_identities(parity_dir))
    ours = release_groups(network, parameters_in_order(shapes), Config(), 0)
    assert [len(group['params']) for group in ours] == [group['n_params'] for group in groups]
    for group, expected in zip(ours, groups, strict=True):
      for key in group.keys() - {'params'}:
        assert np.allclose(group[key], expected[key]), key


def optimizer_file(path, numbers=b'](K\x00e', state=b'}', rate=b'K\x01', groups=1):
  """An optimizer.pt whose three optimizers are one; opcodes of its parts."""
  group = b'}(' + binary('params') + numbers + binary('lr') + rate + b'uq\x01'
  optimizer = b'}(' + binary('state') + state + binary('param_groups') + b'](' + group + b'h\x01' * (groups - 1) + b'eu'
  content = b'}(' + binary('gen') + optimizer + b'q\x02' + binary('dis') + b'h\x02' + binary('id') + b'h\x02u'
  return write_zip(path, content)


DOUBLED = b')q\x00' + b'h\x00h\x00\x86q\x00' * 50  # a tuple that takes 2^50 steps to hash
STRANGE = {
  'nested tuples as numbers': ({'numbers': b'](' + DOUBLED + b'e'}, 'not a number'),
  'lists as numbers': ({'numbers': b'](]e'}, 'not a number'),
  'one group a hundred thousand times': ({'groups': 100_001}, 'more than 100000 parameters'),
  'a large group a thousand times': ({'numbers': b'](' + b'K\x00' * 1000 + b'e', 'groups': 1000}, 'more than 100000'),
  'a state that is a list': ({'state': b'}K\x00]s'}, 'not like that of Adam'),
  'a large state': ({'state': b'}K\x00}(' + b''.join(binary(i) + b'N' for i in range(17)) + b'us'}, 'not like that of'),
  'a huge rate': ({'rate': b'\x8a\xff' + b'\x7f' * 255}, 'OverflowError'),
  'a rate of digits': ({'rate': binary('9' * 1000)}, 'a str that should be a number'),
}


@pytest.mark.parametrize('case', STRANGE)
def test_strange_files_are_named(tmp_path, case):
  parts, message = STRANGE[case]
  with pytest.raises(UserError, match=rf'optimizer\.pt, gen: .*{message}'):
    read_optimizers(optimizer_file(tmp_path / 'optimizer.pt', **parts))


def test_the_file_of_these_tests_is_read_otherwise(tmp_path):
  assert read_optimizers(optimizer_file(tmp_path / 'optimizer.pt'))['id'].learning_rate == 1
