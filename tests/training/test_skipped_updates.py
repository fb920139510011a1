"""Updates that are skipped: what stays as it is, and that a resumed run with skipped updates equals an unbroken one."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.errors import UserError
from dgnet_jax.sharding import make_mesh
from dgnet_jax.training import inspection
from dgnet_jax.training import step as step_module
from dgnet_jax.training.loop import train
from dgnet_jax.training.non_finite import NonFinite, find_report, read_report
from dgnet_jax.training.replay import replay
from dgnet_jax.training.skipped_updates import NETWORKS, keep_if_not_finite, num_skipped
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import make_step_context, make_train_step
from dgnet_jax.types import ActiveTerms, NetworkState, PixelBatch, Teacher, TrainState
from tests.exhaustive import EXHAUSTIVE
from tests.log_lines import logged
from tests.tiny_run import frozen, tiny_config

BAD_STEPS = (1, 4)
NUM_STEPS = 6


def small_state(step, value, key=0):
  networks = {
    name: NetworkState({'w': jnp.full(2, value)}, {'mean': jnp.full(1, value)}, {'count': jnp.int32(step)})
    for name in NETWORKS
  }
  return TrainState(step=jnp.int32(step), rng=jax.random.key(key), **networks)


def broken_state(name, part):
  state = small_state(4, 2.0)
  network = getattr(state, name)
  arrays = jax.tree.map(lambda x: x.at[0].set(jnp.nan), getattr(network, part))
  return state.replace(**{name: network.replace(**{part: arrays})})


FINE = {name: {'w': jnp.ones(2)} for name in NETWORKS}
METRICS = {'identity': jnp.ones(2), 'total': jnp.float32(1)}


@pytest.mark.parametrize(
  ('new', 'metrics', 'gradients', 'named'),
  [
    (small_state(4, 2.0), METRICS, FINE | {'discriminator': {'w': jnp.array([1, jnp.inf])}}, {'discriminator'}),
    (small_state(4, 2.0), METRICS | {'identity': jnp.array([1, jnp.nan])}, FINE, set()),
    (broken_state('reid', 'batch_stats'), METRICS, FINE, {'reid'}),
    (broken_state('generator', 'params'), METRICS, {'reid': FINE['reid']}, {'generator'}),
  ],
)
def test_everything_but_the_step_stays_if_anything_is_not_finite(new, metrics, gradients, named):
  old = small_state(3, 1.0)
  kept, flagged = jax.jit(keep_if_not_finite)(old, new, metrics, gradients)
  assert int(kept.step) == 4 and flagged['skipped']
  for name in NETWORKS:
    jax.tree.map(np.testing.assert_array_equal, getattr(kept, name), getattr(old, name))
  assert {name for name in NETWORKS if flagged[f'skipped/{name}']} == named
  np.testing.assert_array_equal(flagged['identity'], metrics['identity'])


def test_finite_updates_are_made():
  new = small_state(4, 2.0)
  kept, flagged = keep_if_not_finite(small_state(3, 1.0), new, METRICS, FINE)
  assert not any(flagged[name] for name in flagged if name.startswith('skipped'))
  jax.tree.map(np.testing.assert_array_equal, kept.replace(rng=None), new.replace(rng=None))


@pytest.fixture(scope='module')
def poisoned():
  """Images of some steps are not numbers."""
  draw = step_module.draw_step

  def draw_poisoned(context, state, pixels):
    batch, draws = draw(context, state, pixels)
    is_bad = jnp.isin(state.step, jnp.array(BAD_STEPS))
    return dataclasses.replace(batch, erased_image=jnp.where(is_bad, jnp.nan, batch.erased_image)), draws

  with pytest.MonkeyPatch.context() as patch:
    for module in (step_module, inspection):
      patch.setattr(module, 'draw_step', draw_poisoned)
    yield


def run_config(folder, *, num_steps=NUM_STEPS, allowed=2):
  config = tiny_config()
  config.update(batch_size=8, num_steps=num_steps)
  config.data.root = str(folder / 'data')
  config.log.update(progress_every_steps=2, checkpoint_every_steps=3, keep_checkpoints=9)
  config.optimizer.skip_non_finite = allowed
  return frozen(config)


def assert_same(one, other):
  one, other = (tree.replace(rng=jax.random.key_data(tree.rng)) for tree in (one, other))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def records(folder):
  return [json.loads(line) for line in (folder / 'metrics.jsonl').read_text().splitlines()]


@pytest.mark.parametrize(
  ('joint', 'parts'), [(False, 1), (False, 2), pytest.param(True, 2, marks=[pytest.mark.long, EXHAUSTIVE])]
)
@pytest.mark.usefixtures('poisoned')
def test_a_step_with_bad_images_changes_the_step_alone(joint, parts):
  config = tiny_config()
  config.update(batch_size=4, joint=joint, micro_batches=parts)
  config.reid.batch_norm_group = 2
  config.optimizer.skip_non_finite = 1
  context = make_step_context(frozen(config), 4)
  step = make_train_step(context, make_mesh(jax.devices()[:1]))
  rng = np.random.default_rng(0)
  image, positive = rng.integers(256, size=(2, 4, 2, *config.data.image_size_hw, 3), dtype=np.uint8)
  pixels = PixelBatch(image, positive, rng.integers(4, size=(4, 2)).astype(np.int32))
  teachers = [Teacher(*context.teacher_network.init(jax.random.key(1)))]
  state = create_train_state(context.networks, context.optimizers, 0)
  states, flags = [], []
  for _ in range(3):
    state, metrics = step(state, teachers, pixels, ActiveTerms())
    states.append(jax.tree.map(np.array, state.replace(rng=None)))
    flags.append((bool(metrics['skipped']), bool(metrics['skipped/reid']), bool(metrics['skipped/generator'])))
  assert flags == [(False, False, False), (True, True, False), (False, False, False)]
  first, second, third = states
  jax.tree.map(np.testing.assert_array_equal, second.replace(step=first.step), first)
  assert int(second.step) == 2 and num_skipped(second) == 1 and num_skipped(third) == 1
  changed = jax.tree.map(lambda a, b: not np.array_equal(a, b), second.reid.params, third.reid.params)
  assert any(jax.tree.leaves(changed))


@pytest.fixture(scope='module')
def work(tmp_path_factory, poisoned):
  """A folder with an unbroken run in which two updates are skipped, and its last state."""
  folder = tmp_path_factory.mktemp('skipped')
  with logged() as lines:
    state = train(run_config(folder), folder / 'unbroken')
  return folder, state, lines


@pytest.mark.long
def test_skipped_updates_are_reported(work):
  folder, state, lines = work
  assert num_skipped(state) == len(BAD_STEPS) and int(state.step) == NUM_STEPS
  warnings = [line for line in lines if 'is skipped' in line]
  assert warnings == [
    f'step {step}: identity, total, gradient or update of reid not finite; its update is skipped, {count} of at most 2'
    for count, step in enumerate(BAD_STEPS, 1)
  ]
  assert [(record['step'], record['skipped']) for record in records(folder / 'unbroken')] == [
    *((2, 1.0), (3, 0.0), (4, 0.0), (6, 1.0))
  ]
  assert all(None not in record.values() for record in records(folder / 'unbroken'))


@pytest.mark.long
def test_resumed_run_with_skipped_updates_equals_unbroken_one(work):
  folder, unbroken, _ = work
  shutil.copytree(folder / 'unbroken', folder / 'resumed')
  shutil.rmtree(folder / 'resumed' / 'checkpoints' / str(NUM_STEPS))
  assert_same(train(run_config(folder), folder / 'resumed'), unbroken)
  assert records(folder / 'resumed') == records(folder / 'unbroken')


@pytest.mark.long
def test_one_skipped_update_too_many_stops_the_run(work):
  """The first one was skipped before the run was resumed."""
  folder, _, _ = work
  shutil.copytree(folder / 'unbroken', folder / 'stopped')
  shutil.rmtree(folder / 'stopped' / 'checkpoints' / str(NUM_STEPS))
  with pytest.raises(UserError, match='step 4: .*skip_non_finite=1 updates of the run have been skipped; .* is step 3'):
    train(run_config(folder, allowed=1), folder / 'stopped')
  found = read_report(find_report(folder / 'stopped')).found
  assert found == NonFinite(4, ('identity', 'total'), ('reid',), 6, 3)


@pytest.mark.long
def test_without_the_option_the_first_one_stops_the_run(work):
  folder, _, _ = work
  shutil.copytree(folder / 'unbroken', folder / 'default')
  shutil.rmtree(folder / 'default' / 'checkpoints' / str(NUM_STEPS))
  problem = r'step 4: identity, total not finite, and after step 5 the state of generator \(\d+ arrays\), '
  message = f'{problem}.*; .* is step 3 .*dgnet replay'
  with pytest.raises(UserError, match=message):
    train(run_config(folder, allowed=0), folder / 'default')
  assert read_report(find_report(folder / 'default', 4)).found == NonFinite(4, ('identity', 'total'), NETWORKS, 6, 3)


@pytest.mark.long
def test_replay_skips_what_the_run_skipped(work, lines):
  folder, _, _ = work
  with pytest.raises(UserError, match='step 4: .*skip_non_finite=1 updates'):
    train(run_config(folder, allowed=1), folder / 'replayed')
  shutil.rmtree(folder / 'replayed' / 'checkpoints')
  result = replay(read_report(find_report(folder / 'replayed')), folder / 'replayed')
  assert 'step 1: identity, total, reid not finite; its update is skipped' in lines
  assert (result.start, result.found.step, [step.step for step in result.steps]) == (0, 4, [0, 1, 2, 3])
  first = next(quantity for quantity in result.quantities if quantity.broken)
  assert (first.kind, first.name) == ('loss', 'identity')
