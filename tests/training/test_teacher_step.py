import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step, update

NUM_IDENTITIES = 4
BATCH_SIZE = 8


@pytest.fixture
def config():
  config = default_config()
  config.data.image_size_hw = (16, 8)
  config.reid.input_scale = 1
  config.augment.crop_padding = 1
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, last_stride=1, learning_rate=0.1)
  return config


@pytest.fixture
def people():
  """Pixels u8[B, H, W, 3] and identities i32[B]: everybody has a colour."""
  generator = np.random.default_rng(0)
  identity = np.arange(BATCH_SIZE, dtype=np.int32) % NUM_IDENTITIES
  colour = generator.integers(40, 200, (NUM_IDENTITIES, 3))[identity]
  pixels = colour[:, None, None] + generator.integers(-20, 20, (BATCH_SIZE, 16, 8, 3))
  return pixels.astype(np.uint8), identity


class Setup:
  def __init__(self, config, num_devices=1):
    self.mesh = make_mesh(jax.devices()[:num_devices])
    self.network = make_teacher_network(config, NUM_IDENTITIES)
    self.optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=2)
    state = create_teacher_state(self.network, self.optimizer, seed=5)
    self.state = jax.device_put(state, replicated(self.mesh))
    self.step = make_teacher_step(self.network, self.optimizer, config, self.mesh)

  def run(self, people, num_steps):
    """The state and the metrics of every step."""
    metrics = []
    state = self.state
    for _ in range(num_steps):
      batches = device_batches(iter([people]), self.mesh)
      state, measured = self.step(state, *next(batches))
      batches.close()
      metrics.append(jax.device_get(measured))
    return jax.device_get(state.replace(rng=jax.random.key_data(state.rng))), metrics


def test_it_learns_and_is_compiled_once(config, people):
  setup = Setup(config)
  _, metrics = setup.run(people, 40)
  assert metrics[0]['loss'] == pytest.approx(np.log(NUM_IDENTITIES), rel=0.01)  # the classifier starts nearly silent
  assert metrics[-1]['loss'] < 0.3 and metrics[-1]['accuracy'] == 1
  assert setup.step._cache_size() == 1


def test_what_changes(config, people):
  setup = Setup(config)
  before = jax.device_get(setup.state.replace(rng=jax.random.key_data(setup.state.rng)))
  after, _ = setup.run(people, 1)
  assert after.step == 1
  np.testing.assert_array_equal(after.rng, before.rng)
  for name in ('params', 'batch_stats'):
    same = jax.tree.map(np.array_equal, getattr(before.network, name), getattr(after.network, name))
    assert not any(jax.tree.leaves(same)), name


def test_the_state_is_donated(config, people):
  setup = Setup(config)
  setup.run(people, 1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(setup.state.network.params))


def test_steps_repeat_exactly_and_differ_among_themselves(config, people):
  (first, first_metrics), (second, second_metrics) = (Setup(config).run(people, 2) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, (first, first_metrics), (second, second_metrics))
  drawn_alike = jax.tree.map(np.array_equal, *(Setup(config).run(people, n)[0].network.params for n in (1, 2)))
  assert not any(jax.tree.leaves(drawn_alike))


@pytest.mark.usefixtures('x64')
def test_eight_devices_agree_with_one(config, people):
  """BatchNorm's statistics are those of the whole batch, however it is spread."""
  config.teacher.dropout = 0.0
  states = []
  for num_devices in (1, 8):
    setup = Setup(config, num_devices)
    double = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, setup.state.network)
    setup.state = setup.state.replace(network=double)
    states.append(setup.run(people, 2)[0])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *states)


def test_dropout_is_an_argument(config, people):
  setup = Setup(config)
  image, identity = jnp.asarray(people[0], jnp.float32) / 255, jnp.asarray(people[1])
  step = jax.jit(
    lambda key: update(setup.network, setup.optimizer, setup.state, image, identity, key)[0].network.params
  )
  without, one, other = (step(key) for key in (None, jax.random.key(0), jax.random.key(1)))
  for a, b in ((without, one), (one, other)):
    assert not np.array_equal(a['head']['classifier']['kernel'], b['head']['classifier']['kernel'])
