import pathlib
import shutil
import signal
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.errors import UserError
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.types import NetworkState, TrainState

# When one read of a damaged checkpoint fails, others that are under way find their event loop closed.
pytestmark = pytest.mark.filterwarnings('ignore:Exception ignored in:pytest.PytestUnraisableExceptionWarning')

OPTIMIZER = optax.chain(optax.add_decayed_weights(1e-4), optax.adam(1e-3))


def make_state(step=0, width=5):
  params = {'kernel': jnp.arange(12.0 * width).reshape(12, width) + step, 'bias': jnp.full(width, step, jnp.bfloat16)}
  networks = [NetworkState(params, stats, OPTIMIZER.init(params)) for stats in ({}, {}, {'mean': jnp.ones(3)})]
  return TrainState(jnp.int32(step), *networks, jax.random.key(step))


@jax.jit
def draw(state):
  return jax.random.normal(jax.random.fold_in(state.rng, state.step), (3,))


def assert_same(left, right):
  assert jax.tree.structure(left) == jax.tree.structure(right)
  for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
    assert a.dtype == b.dtype
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
      a, b = jax.random.key_data(a), jax.random.key_data(b)
    np.testing.assert_array_equal(a, b)


@pytest.fixture
def folder(tmp_path):
  """A folder with the checkpoints of steps 10, 20 and 30."""
  checkpoints = Checkpoints(tmp_path / 'checkpoints', 3)
  for step in (10, 20, 30):
    checkpoints.save(step, make_state(step))
  checkpoints.close()
  return tmp_path / 'checkpoints'


def array_files(folder, step):
  """The files that hold numbers; some are superseded and never read."""
  return [path for path in (folder / str(step)).rglob('d/*') if path.is_file()]


def restored_step(folder):
  """The step that is restored, having shown that its state is right and that a warning names any that is skipped."""
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    state = Checkpoints(folder).restore(make_state())
  step = int(state.step)
  assert_same(state, make_state(step))
  assert [str(w.message) for w in caught if 'step 30' in str(w.message)] if step < 30 else not caught
  return step


class TestResume:
  def test_the_latest_comes_back_exactly(self, folder):
    checkpoints = Checkpoints(folder, 3)
    assert checkpoints.latest_step() == 30
    state = checkpoints.restore(make_state())
    assert_same(state, make_state(30))
    np.testing.assert_array_equal(draw(state), draw(make_state(30)))
    assert_same(checkpoints.restore(jax.eval_shape(make_state), 20), make_state(20))
    checkpoints.close()

  def test_only_the_last_are_kept(self, folder):
    checkpoints = Checkpoints(folder, 2)
    checkpoints.save(40, make_state(40), wait=True)
    assert checkpoints.latest_step() == 40
    checkpoints.close()
    assert sorted(path.name for path in folder.iterdir() if path.name.isdigit()) == ['30', '40']

  def test_a_state_may_be_donated_while_it_is_written(self, tmp_path):
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

  def test_going_back_replaces_what_was_later(self, folder):
    checkpoints = Checkpoints(folder, 3)
    checkpoints.save(20, make_state(21), wait=True)
    assert checkpoints.latest_step() == 20
    assert_same(checkpoints.restore(make_state()), make_state(21))
    checkpoints.close()

  def test_nothing_there(self, tmp_path):
    for checkpoints in (Checkpoints(tmp_path / 'none'), Checkpoints(tmp_path / 'new', 3)):
      assert checkpoints.latest_step() is None
      with pytest.raises(UserError, match='no checkpoint'):
        checkpoints.restore(make_state())
      checkpoints.close()
    assert not (tmp_path / 'none').exists()

  def test_no_such_step(self, folder):
    with pytest.raises(UserError, match='no checkpoint of step 15; there are 10, 20, 30'):
      Checkpoints(folder).restore(make_state(), 15)

  def test_shapes(self, folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.shapes()['reid/params/kernel'] == (12, 5)
    assert checkpoints.shapes(20)['reid/batch_stats/mean'] == (3,)
    with pytest.raises(UserError, match='no checkpoint of step 7; there are 10, 20, 30'):
      checkpoints.shapes(7)
    for path in (folder / '30' / 'about').iterdir():
      path.write_text('')
    with pytest.raises(UserError, match='checkpoint of step 30 is damaged'):
      Checkpoints(folder).shapes()

  def test_reading_only(self, folder):
    (folder / '40.orbax-checkpoint-tmp-1').mkdir()
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_step() == 30
    with pytest.raises(ValueError, match='reading'):
      checkpoints.save(40, make_state())
    checkpoints.close()
    assert (folder / '40.orbax-checkpoint-tmp-1').exists()  # maybe a training run is writing it just now


class TestDamage:
  def test_flipped_bytes_never_change_a_state(self, folder):
    steps = set()
    for path in array_files(folder, 30):
      content = path.read_bytes()
      for position in np.linspace(0, len(content) - 1, 5, dtype=int):
        flipped = bytearray(content)
        flipped[position] ^= 0x10
        path.write_bytes(flipped)
        steps.add(restored_step(folder))
      path.write_bytes(content)
    assert 20 in steps

  def test_a_flipped_number_is_found(self, folder):
    checkpoints = Checkpoints(folder, 3)
    about = folder / '30' / 'about' / 'metadata'
    text = about.read_text()
    start = text.index('"sha256": "') + len('"sha256": "')
    about.write_text(text[:start] + ('1' if text[start] == '0' else '0') + text[start + 1 :])
    with pytest.warns(UserWarning, match='step 30: .* is not what was saved'):
      assert_same(checkpoints.restore(make_state()), make_state(20))
    checkpoints.close()

  def test_truncated_files(self, folder):
    steps = set()
    for path in array_files(folder, 30):
      content = path.read_bytes()
      path.write_bytes(content[: len(content) // 2])
      steps.add(restored_step(folder))
      path.write_bytes(content)
    assert 20 in steps

  @pytest.mark.parametrize('missing', ['state', 'about', 'state/manifest.ocdbt', 'state/_METADATA'])
  def test_half_a_folder(self, folder, missing):
    path = folder / '30' / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert restored_step(folder) == 20

  def test_unfinished_folders_are_no_checkpoints(self, folder):
    (folder / '30').rename(folder / '30.orbax-checkpoint-tmp')
    checkpoints = Checkpoints(folder, 3)
    assert_same(checkpoints.restore(make_state()), make_state(20))
    checkpoints.close()

  def test_a_damaged_step_is_written_again(self, folder):
    shutil.rmtree(folder / '30' / 'state')
    checkpoints = Checkpoints(folder, 3)
    with pytest.warns(UserWarning):
      checkpoints.restore(make_state())
    checkpoints.save(25, make_state(25))
    checkpoints.save(30, make_state(31), wait=True)
    assert_same(checkpoints.restore(make_state()), make_state(31))
    checkpoints.close()

  def test_all_damaged(self, folder):
    for step in (10, 20, 30):
      shutil.rmtree(folder / str(step) / 'state')
    checkpoints = Checkpoints(folder)
    with pytest.warns(UserWarning), pytest.raises(UserError, match='step 10.*step 20.*step 30'):
      checkpoints.restore(make_state())

  def test_a_step_asked_for_is_not_replaced_by_another(self, folder):
    shutil.rmtree(folder / '30' / 'state')
    with pytest.warns(UserWarning), pytest.raises(UserError, match='damaged'):
      Checkpoints(folder).restore(make_state(), 30)


class TestForm:
  def test_other_networks_are_no_damage(self, tmp_path):
    config = default_config()
    checkpoints = Checkpoints(tmp_path, 3, config)
    checkpoints.save(10, make_state(10), wait=True)
    checkpoints.close()
    config.reid.width = 32
    with pytest.raises(UserError, match=r'params/kernel .*12, 5.*12, 7.*reid.width: 64 -> 32'):
      Checkpoints(tmp_path, 3, config).restore(make_state(width=7))

  def test_a_missing_leaf_is_told(self, folder):
    template = make_state()
    template.reid.batch_stats.clear()
    with pytest.raises(UserError, match='reid/batch_stats/mean .* absent here'):
      Checkpoints(folder).restore(template)

  def test_one_network_without_the_rest(self, folder):
    saved = make_state(30).reid
    template = {'reid': {'params': saved.params, 'batch_stats': saved.batch_stats}}
    part = Checkpoints(folder).restore_part(jax.eval_shape(lambda: template))
    assert_same(part, template)

  def test_a_part_that_is_not_there(self, folder):
    with pytest.raises(UserError, match='teacher/x absent there'):
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
  def test_other_devices(self, tmp_path, before, after, spec):
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


def test_kill_9_while_saving_leaves_a_whole_checkpoint(tmp_path):
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
def test_a_checkpoint_knows_how_many_people(tmp_path, head):
  checkpoints = Checkpoints(tmp_path, 1)
  with pytest.raises(UserError, match='no checkpoint'):
    checkpoints.num_identities()
  checkpoints.save(1, {'network': {'params': {'head': {'classifier': {'bias': jnp.zeros(7)}}}}}, wait=True)
  with pytest.raises(UserError, match='is none of DG-Net'):  # a teacher's
    checkpoints.num_identities()
  checkpoints.save(2, {'reid': {'params': {head: {'classifier': {'bias': jnp.zeros(5)}}}}}, wait=True)
  assert checkpoints.num_identities() == checkpoints.num_identities(2) == 5
  checkpoints.close()
