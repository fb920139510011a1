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
from tests.tiny_run import frozen
from tests.training.tiny_teacher import with_teacher

NUM_IDENTITIES = 4
BATCH_SIZE = 8


@pytest.fixture
def config():
  config = default_config()
  config.data.image_size_hw = (16, 8)
  config.reid.input_scale = 1
  config.augment.crop_padding = 1
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, last_stride=1, learning_rate=0.1)
  return frozen(config)


@pytest.fixture
def batch():
  """Pixels u8[B, H, W, 3] and identities i32[B]; every identity has a colour."""
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

  def run(self, batch, num_steps):
    """Returns the last state and the metrics of every step."""
    metrics = []
    state = self.state
    for _ in range(num_steps):
      batches = device_batches(iter([batch]), self.mesh)
      state, measured = self.step(state, *next(batches))
      batches.close()
      metrics.append(jax.device_get(measured))
    return jax.device_get(state.replace(rng=jax.random.key_data(state.rng))), metrics


def test_teacher_learns_and_is_compiled_once(config, batch):
  setup = Setup(config)
  _, metrics = setup.run(batch, 40)
  assert metrics[0]['loss'] == pytest.approx(np.log(NUM_IDENTITIES), rel=0.01)  # a fresh classifier is nearly uniform
  assert metrics[-1]['loss'] < 0.3 and metrics[-1]['accuracy'] == 1
  assert setup.step._cache_size() == 1


def test_step_changes_every_parameter_but_not_the_key(config, batch):
  setup = Setup(config)
  before = jax.device_get(setup.state.replace(rng=jax.random.key_data(setup.state.rng)))
  after, _ = setup.run(batch, 1)
  assert after.step == 1
  np.testing.assert_array_equal(after.rng, before.rng)
  for name in ('params', 'batch_stats'):
    same = jax.tree.map(np.array_equal, getattr(before.network, name), getattr(after.network, name))
    assert not any(jax.tree.leaves(same)), name


def test_state_is_donated(config, batch):
  setup = Setup(config)
  setup.run(batch, 1)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(setup.state.network.params))


def test_steps_are_reproducible_and_draw_differently(config, batch):
  (first, first_metrics), (second, second_metrics) = (Setup(config).run(batch, 2) for _ in range(2))
  jax.tree.map(np.testing.assert_array_equal, (first, first_metrics), (second, second_metrics))
  equal = jax.tree.map(np.array_equal, *(Setup(config).run(batch, n)[0].network.params for n in (1, 2)))
  assert not any(jax.tree.leaves(equal))


STRONG = {'label_smoothing': 0.1, 'triplet': 2.0, 'circle': 0.5, 'circle_scale': 8.0, 'images_per_identity': 2}


def test_loss_is_the_weighted_sum_of_its_terms(config, batch):
  _, (plain,) = Setup(config).run(batch, 1)
  assert plain.keys() == {'loss', 'accuracy'}
  _, (strong,) = Setup(with_teacher(config, **STRONG)).run(batch, 1)
  assert strong.keys() == plain.keys() | {'loss/identity', 'loss/triplet', 'loss/circle'}
  terms = (strong[f'loss/{name}'] for name in ('identity', 'triplet', 'circle'))
  assert strong['loss'] == pytest.approx(np.dot([1, 2, 0.5], [*terms])) and min(strong.values()) >= 0
  assert strong['loss/identity'] != plain['loss']  # smoothed


@pytest.mark.parametrize('name', ['triplet', 'circle'])
def test_metric_losses_train_the_embedding_and_not_the_classifier(config, batch, name):
  """The classifier's update is that of the identification alone, whatever the weight."""
  options = {'images_per_identity': 2, 'dropout': 0.0, 'circle_scale': 8.0}
  light, heavy = (Setup(with_teacher(config, **options, **{name: w})).run(batch, 1)[0] for w in (0.1, 10.0))
  light, heavy = light.network.params, heavy.network.params
  jax.tree.map(np.testing.assert_array_equal, light['head']['classifier'], heavy['head']['classifier'])
  for part in (('head', 'bottleneck'), ('backbone',)):
    a, b = light, heavy
    for step in part:
      a, b = a[step], b[step]
    assert not any(jax.tree.leaves(jax.tree.map(np.array_equal, a, b))), part


@pytest.mark.long
@pytest.mark.parametrize('options', [{}, STRONG], ids=['release', 'strong'])
@pytest.mark.usefixtures('x64')
def test_eight_devices_agree_with_one(config, batch, options):
  """BatchNorm uses the statistics of the entire batch, and metric losses compare all of it, however it is split."""
  config = with_teacher(config, dropout=0.0, **options)
  states = []
  for num_devices in (1, 8):
    setup = Setup(config, num_devices)
    double = jax.tree.map(lambda x: x.astype(jnp.float64) if x.dtype == jnp.float32 else x, setup.state.network)
    setup.state = setup.state.replace(network=double)
    states.append(setup.run(batch, 2)[0])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), *states)


def test_dropout_depends_on_its_key(config, batch):
  setup = Setup(config)
  image, identity = jnp.asarray(batch[0], jnp.float32) / 255, jnp.asarray(batch[1])
  step = jax.jit(
    lambda key: (
      update(setup.network, setup.optimizer, setup.state, image, identity, key, config.teacher)[0].network.params
    )
  )
  without, one, other = (step(key) for key in (None, jax.random.key(0), jax.random.key(1)))
  for a, b in ((without, one), (one, other)):
    assert not np.array_equal(a['head']['classifier']['kernel'], b['head']['classifier']['kernel'])
