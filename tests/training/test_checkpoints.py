import dataclasses
import pathlib
import signal
import subprocess
import sys

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import pytest

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoints import Checkpoints
from tests.training.checkpoint_states import assert_same, make_state, save_steps


@jax.jit
def draw(state):
  return jax.random.normal(jax.random.fold_in(state.rng, state.step), (3,))


@pytest.fixture
def folder(tmp_path):
  """A folder with the checkpoints of steps 10, 20 and 30."""
  return save_steps(tmp_path / 'checkpoints')


class TestResume:
  def test_latest_is_restored_exactly(self, folder):
    checkpoints = Checkpoints(folder, 3)
    assert checkpoints.latest_step() == 30
    state = checkpoints.restore(make_state())
    assert_same(state, make_state(30))
    np.testing.assert_array_equal(draw(state), draw(make_state(30)))
    assert_same(checkpoints.restore(jax.eval_shape(make_state), 20), make_state(20))
    checkpoints.close()

  def test_only_the_newest_are_kept(self, folder):
    checkpoints = Checkpoints(folder, 2)
    checkpoints.save(40, make_state(40), wait=True)
    assert checkpoints.latest_step() == 40
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ['30', '40']

  def test_state_may_be_donated_while_it_is_written(self, tmp_path):
    size = 2**20
    step_fn = jax.jit(lambda state: jax.tree.map(lambda x: x * 3 + 1, state), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path, 5)
    state, kept = {'x': step_fn(jnp.arange(size, dtype=jnp.float32))}, {}
    for step in range(1, 4):
      kept[step] = np.array(state['x'])
      checkpoints.save(step, state)
      state = step_fn(step_fn(state))
    checkpoints.close()
    for step, value in kept.items():
      np.testing.assert_array_equal(Checkpoints(tmp_path).restore(state, step)['x'], value)

  def test_saving_an_earlier_step_replaces_later_checkpoints(self, folder):
    checkpoints = Checkpoints(folder, 3)
    checkpoints.save(20, make_state(21), wait=True)
    assert checkpoints.latest_step() == 20
    assert_same(checkpoints.restore(make_state()), make_state(21))
    checkpoints.close()

  def test_empty_folder_has_no_checkpoint(self, tmp_path):
    for checkpoints in (Checkpoints(tmp_path / 'none'), Checkpoints(tmp_path / 'new', 3)):
      assert checkpoints.latest_step() is None
      with pytest.raises(UserError, match='no checkpoint'):
        checkpoints.restore(make_state())
      checkpoints.close()
    assert not (tmp_path / 'none').exists()

  @pytest.mark.parametrize('name', ['a]b', 'sp ace', 'ü', 'a*b', 'a?b', '{x}', '%41', '#h', 'a:b', '~', '$HOME'])
  def test_names_of_folders(self, tmp_path, name):
    checkpoints = Checkpoints(tmp_path / name, 1)
    checkpoints.save(1, make_state(3), wait=True)
    checkpoints.close()
    assert_same(Checkpoints(tmp_path / name).restore(make_state()), make_state(3))

  @pytest.mark.parametrize('name', ['a[1]', 'a\\b', '[/\\'])
  def test_folders_that_could_not_be_read_are_refused(self, tmp_path, name):
    for keep in (None, 3):
      with pytest.raises(UserError, match='choose another name'):
        Checkpoints(tmp_path / name, keep)
    assert not list(tmp_path.iterdir())

  def test_missing_step_is_reported_with_existing_ones(self, folder):
    with pytest.raises(UserError, match='no checkpoint of step 15; available: 10, 20, 30'):
      Checkpoints(folder).restore(make_state(), 15)

  def test_shapes(self, folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.shapes()['reid/params/kernel'] == (12, 5)
    assert checkpoints.shapes(20)['reid/batch_stats/mean'] == (3,)
    with pytest.raises(UserError, match='no checkpoint of step 7; available: 10, 20, 30'):
      checkpoints.shapes(7)
    for path in (folder / '30' / 'about').iterdir():
      path.write_text('')
    with pytest.raises(UserError, match='checkpoint of step 30 is damaged'):
      Checkpoints(folder).shapes()

  def test_folder_opened_for_reading_is_not_changed(self, folder):
    (folder / '40.orbax-checkpoint-tmp-1').mkdir()
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_step() == 30
    with pytest.raises(ValueError, match='reading'):
      checkpoints.save(40, make_state())
    checkpoints.close()
    assert (folder / '40.orbax-checkpoint-tmp-1').exists()  # a training run may be writing it


class TestForm:
  def test_other_shapes_raise_and_name_the_changed_config(self, tmp_path):
    config = Config()
    checkpoints = Checkpoints(tmp_path, 3, config)
    checkpoints.save(10, make_state(10), wait=True)
    checkpoints.close()
    narrow = dataclasses.replace(config, reid=dataclasses.replace(config.reid, width=32))
    with pytest.raises(UserError, match=r'params/kernel: .*12, 5.*12, 7.*reid.width: 64 -> 32'):
      Checkpoints(tmp_path, 3, narrow).restore(make_state(width=7))

  def test_array_missing_in_the_template_is_reported(self, folder):
    template = make_state()
    template.reid.batch_stats.clear()
    with pytest.raises(UserError, match='reid/batch_stats/mean: .* absent here'):
      Checkpoints(folder).restore(template)

  def test_part_is_restored(self, folder):
    saved = make_state(30).reid
    template = {'reid': {'params': saved.params, 'batch_stats': saved.batch_stats}}
    part = Checkpoints(folder).restore_part(jax.eval_shape(lambda: template))
    assert_same(part, template)

  def test_missing_part_is_reported(self, folder):
    with pytest.raises(UserError, match='teacher/x: absent in the checkpoint'):
      Checkpoints(folder).restore_part({'teacher': {'x': jnp.ones(3)}})


class TestSharding:
  def state_on(self, devices, spec):
    mesh = jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices)
    return jax.device_put(
      {'x': jnp.arange(16.0).reshape(8, 2), 'key': jax.random.key(1)},
      {'x': NamedSharding(mesh, spec), 'key': NamedSharding(mesh, PartitionSpec())},
    )

  @pytest.mark.parametrize(('before', 'after'), [(8, 1), (1, 8), (8, 2)])
  @pytest.mark.parametrize('spec', [PartitionSpec(), PartitionSpec('data')])
  def test_restores_onto_other_devices(self, tmp_path, before, after, spec):
    devices = jax.devices()
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save(1, self.state_on(devices[:before], spec), wait=True)
    checkpoints.close()
    wanted = self.state_on(devices[:after], spec)
    structs = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), wanted)
    for template in (wanted, structs):
      restored = Checkpoints(tmp_path).restore(template)
      assert_same(restored, wanted)
      assert jax.tree.map(lambda x: x.sharding, restored) == jax.tree.map(lambda x: x.sharding, wanted)


SAVE_FOREVER = """
import sys
import jax.numpy as jnp
from dgnet_jax.training.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1], 3)
for step in range(1, 1000):
  checkpoints.save(step, {'x': jnp.full((512, 1024), step, jnp.float32)})
  print(step, flush=True)
"""


def test_kill_9_while_saving_leaves_a_complete_checkpoint(tmp_path):
  process = subprocess.Popen([sys.executable, '-c', SAVE_FOREVER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
  assert process.stdout is not None
  while int(process.stdout.readline()) < 4:
    pass
  process.send_signal(signal.SIGKILL)
  process.wait()
  process.stdout.close()
  checkpoints = Checkpoints(tmp_path, 3)
  latest = checkpoints.latest_step()
  assert latest is not None and latest >= 3
  np.testing.assert_array_equal(checkpoints.restore({'x': jnp.zeros((512, 1024))})['x'], latest)
  checkpoints.save(latest + 1, {'x': jnp.zeros((512, 1024))}, wait=True)
  checkpoints.close()
  assert not [path for path in pathlib.Path(tmp_path).iterdir() if 'tmp' in path.name]


@pytest.mark.parametrize('head', ['primary_head', 'part_head_0'])
def test_num_identities_is_read_from_the_classifier(tmp_path, head):
  checkpoints = Checkpoints(tmp_path, 1)
  with pytest.raises(UserError, match='no checkpoint'):
    checkpoints.num_identities()
  checkpoints.save(1, {'network': {'params': {'head': {'classifier': {'kernel': jnp.zeros((3, 7))}}}}}, wait=True)
  with pytest.raises(UserError, match='is not a checkpoint of DG-Net'):  # a teacher's
    checkpoints.num_identities()
  checkpoints.save(2, {'reid': {'params': {head: {'classifier': {'kernel': jnp.zeros((3, 5))}}}}}, wait=True)
  assert checkpoints.num_identities() == checkpoints.num_identities(2) == 5
  checkpoints.close()
