"""Classifiers that are split by identity over devices: the results of whole ones, in memory and exchanges of a part."""

import contextlib
import dataclasses
import functools

import jax
import numpy as np
import pytest

from dgnet_jax.benchmarks.collectives import exchanges
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.errors import UserError
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training.checkpoint_arrays import named_leaves
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.placement import Placement
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import make_train_step, update
from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step
from dgnet_jax.types import ActiveTerms, PixelBatch, Teacher
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import frozen, tiny_config
from tests.training.test_devices import BATCH, EVERYTHING, GLOBAL, GROUPED, REID_ALONE, as_float64, context_of, inputs

UNEVEN = 6  # identities that 4 devices do not share equally
MANY = 100_000
TAUGHT = ActiveTerms(generator=False, teaching=True)


def placement_of(num_identities, model_devices, devices=8):
  return Placement(make_mesh(jax.devices()[:devices], model_devices), num_identities)


def is_classifier(name):
  return '/classifier/' in f'/{name}'


def assert_near(actual, expected):
  """Up to rounding in float64, beside the largest number."""
  leaves = named_leaves(expected)
  largest = max(np.abs(leaf).max() for leaf in leaves.values())
  assert largest > 0 and leaves.keys() == named_leaves(actual).keys()
  for name, leaf in named_leaves(actual).items():
    np.testing.assert_allclose(leaf, leaves[name], rtol=1e-9, atol=1e-11 * largest, err_msg=name)


@functools.cache
def results(design, active, model_devices, devices):
  """Losses, gradients and new state of a step."""
  placement, context = placement_of(UNEVEN, model_devices, devices), context_of(design, GLOBAL, UNEVEN)
  if placement.splits:
    context = dataclasses.replace(
      context,
      networks=context.networks.splitting_classifiers(placement.mesh),
      teacher_network=context.teacher_network.splitting_classifiers(placement.mesh),
    )

  def step(state, teachers, batch, draws):
    state, teachers = placement.within_step((state, teachers))
    after, metrics, gradients = update(context, state, teachers, batch, draws, active)
    networks = [after.generator, after.discriminator, after.reid]
    return {'losses': metrics, **gradients, 'state': placement.after_step(networks)}

  state, teachers, batch, draws = inputs(design, UNEVEN)
  state, teachers = placement.put((state, teachers))
  batch = jax.device_put(batch, batch_sharding(placement.mesh))
  after = jax.jit(step)(state, teachers, batch, jax.device_put(draws, replicated(placement.mesh)))
  return jax.device_get(after | {'state': placement.whole(after['state'])})


def assert_split_and_whole_agree(design, active, model_devices, devices):
  expected, actual = results(design, active, 1, devices), results(design, active, model_devices, devices)
  assert expected.keys() == actual.keys() >= {'losses', 'reid', 'state'}
  for part in expected:
    assert_near(actual[part], expected[part])


@pytest.mark.usefixtures('x64')
def test_split_classifiers_learn_as_whole_ones():
  assert_split_and_whole_agree('adain', TAUGHT, 4, 8)


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('design', 'model_devices', 'devices'), [('adain', 4, 8), ('correspondence', 2, 4)])
def test_every_term_is_that_of_whole_classifiers(design, model_devices, devices):
  assert_split_and_whole_agree(design, EVERYTHING, model_devices, devices)


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize(('model_devices', 'devices'), [(2, 4), (4, 4), (2, 8), (4, 8)])
@pytest.mark.parametrize('design', ['adain', 'correspondence'])
def test_any_split_gives_the_results_of_whole_classifiers(design, model_devices, devices):
  assert_split_and_whole_agree(design, EVERYTHING, model_devices, devices)


@pytest.mark.usefixtures('x64')
@pytest.mark.parametrize('neck', ['release', 'bnneck'])
def test_teacher_learns_as_with_a_whole_classifier(neck):
  config, rng = tiny_config(), np.random.default_rng(0)
  config.teacher.neck = neck
  config = frozen(config)
  network, optimizer = make_teacher_network(config, UNEVEN), make_teacher_optimizer(config.teacher, config.optimizer, 9)
  images = rng.integers(256, size=(8, *config.data.image_size_hw, 3), dtype=np.uint8)
  identity = rng.integers(UNEVEN, size=8).astype(np.int32)
  after = []
  for model_devices in (1, 4):
    placement = placement_of(UNEVEN, model_devices)
    step = make_teacher_step(network, optimizer, config, placement.mesh)
    state = placement.put(jax.tree.map(as_float64, create_teacher_state(network, optimizer, seed=0)))
    shardings = jax.tree.map(lambda x: x.sharding, state)
    batch = jax.device_put((images, identity), batch_sharding(placement.mesh))
    for _ in range(2):
      state, metrics = step(state, *batch)
    assert jax.tree.map(lambda x: x.sharding, state) == shardings
    after.append(jax.device_get((placement.whole(state.network), metrics)))
  assert_near(after[1], after[0])


def compiled(active, model_devices, num_identities=MANY):
  """The compiled step of tiny networks on eight devices, and the sizes of all arrays of the state, by name."""
  placement, context = placement_of(num_identities, model_devices), context_of('adain', GROUPED, num_identities)
  state, teachers = jax.eval_shape(
    lambda: (
      create_train_state(context.networks, context.optimizers, seed=0),
      (Teacher(*context.teacher_network.init(jax.random.key(1))),),
    )
  )
  rows = batch_sharding(placement.mesh)
  image = jax.ShapeDtypeStruct((BATCH, 2, *context.config.data.image_size_hw, 3), np.uint8, sharding=rows)
  pixels = PixelBatch(image, image, jax.ShapeDtypeStruct((BATCH, 2), np.int32, sharding=rows))
  arguments = placement.shapes((state, teachers))
  program = make_train_step(context, placement.mesh).lower(*arguments, pixels, active).compile()
  return program, named_leaves(arguments)


def test_neither_logits_nor_classifiers_are_exchanged():
  program, _ = compiled(EVERYTHING, 4)
  found = exchanges(program.as_text())
  assert {exchange.kind for exchange in found} == {'all-reduce', 'all-gather'}
  gathered = [exchange.num_bytes for exchange in found if exchange.kind == 'all-gather']
  width = tiny_config().reid.head_width
  assert 0 < max(gathered) <= 4 * BATCH * width * 4  # rows of features
  # Sums over the devices with the same part: gradients of both heads' kernels and biases, not of the teacher's.
  large = [exchange for exchange in found if exchange.num_bytes >= MANY]
  assert {exchange.num_bytes for exchange in large} == {MANY // 4 * width * 4, MANY // 4 * 4}
  assert {exchange.purpose for exchange in large} == {'gradients'}


def test_a_device_holds_a_part():
  argument_bytes = {}
  for model_devices in (1, 8):
    program, leaves = compiled(REID_ALONE, model_devices)
    parts = {name: np.prod(leaf.sharding.shard_shape(leaf.shape)) for name, leaf in leaves.items()}
    classifiers = sum(size for name, size in parts.items() if is_classifier(name))
    argument_bytes[model_devices] = program.memory_analysis().argument_size_in_bytes, 4 * int(classifiers)
  (whole, whole_classifiers), (split, split_classifiers) = argument_bytes.values()
  width = tiny_config().reid.head_width
  # Two heads with their momentum; this phase does not read the teacher's.
  assert 8 * split_classifiers == whole_classifiers == 4 * MANY * (width + 1) * 5
  assert whole - split == pytest.approx(whole_classifiers * 4 / 5 * 7 / 8, rel=0.01)


@pytest.mark.parametrize('before', [1, 2, 4])
def test_checkpoints_do_not_depend_on_the_split(tmp_path, before):
  context = context_of('adain', GROUPED, UNEVEN)
  state = create_train_state(context.networks, context.optimizers, seed=0)
  split = placement_of(UNEVEN, before)
  with Checkpoints(tmp_path, 1) as checkpoints:
    checkpoints.save(0, split.whole(split.put(state)), wait=True)
  expected = named_leaves(state)
  with Checkpoints(tmp_path) as checkpoints:
    assert {name: shape for name, shape in checkpoints.shapes().items() if name != 'rng'} == {
      name: leaf.shape for name, leaf in expected.items() if name != 'rng'
    }
    for after in (1, 2, 4):
      placement = placement_of(UNEVEN, after)
      restored = placement.put(checkpoints.restore(placement.template(state)))
      wanted = named_leaves(placement.shapes(state))
      for name, leaf in named_leaves(placement.whole(restored)).items():
        device_leaf = named_leaves(restored)[name]
        assert device_leaf.sharding == wanted[name].sharding and device_leaf.shape == wanted[name].shape, name
        if name != 'rng':
          np.testing.assert_array_equal(leaf, expected[name])


def run_config(model_devices, num_steps):
  config = tiny_config()
  config.update(batch_size=8, num_steps=num_steps, model_devices=model_devices)
  config.data.synthetic.num_train_identities = UNEVEN
  config.reid.batch_norm_group = 2
  config.teacher.num_epochs = 1
  for ramp in config.ramps.values():
    ramp.update(initial=0.5, maximum=0.5)
  config.log.update(progress_every_steps=1, images_every_steps=1, checkpoint_every_steps=1)
  return frozen(config)


@EXHAUSTIVE
@pytest.mark.long
def test_run_goes_on_with_another_split(tmp_path):
  """Teacher, images, checkpoints: with 4 devices, then 2, then whole classifiers."""
  whole = train(run_config(1, 3), tmp_path / 'whole')
  for num_steps, model_devices in ((1, 4), (2, 2), (3, 1)):
    state = train(run_config(model_devices, num_steps), tmp_path / 'split')
  assert int(state.step) == 3
  shapes = [Checkpoints(tmp_path / name / 'checkpoints').shapes() for name in ('whole', 'split')]
  assert shapes[0] == shapes[1] and shapes[0]['reid/params/fine_head/classifier/bias'] == (UNEVEN,)
  for one, other in zip(*(jax.tree.leaves(run.reid.params) for run in (whole, state)), strict=True):
    np.testing.assert_allclose(one, other, rtol=0.01, atol=1e-3)
  assert sorted(path.name for path in (tmp_path / 'split' / 'images').iterdir()) == sorted(
    path.name for path in (tmp_path / 'whole' / 'images').iterdir()
  )


def test_devices_that_cannot_form_groups_are_an_error_that_names_what_can(tmp_path):
  with pytest.raises(UserError, match='model_devices: 3 does not divide 8 device.s.; use one of 1, 2, 4, 8'):
    train(run_config(3, 1), tmp_path)
  assert not (tmp_path / 'teacher').exists()


def test_batches_on_other_meshes_of_the_same_devices_pass_through():
  """As loader device makes them."""
  rows = jax.device_put(np.arange(16), batch_sharding(make_mesh()))
  mesh = make_mesh(model_devices=4)
  with contextlib.closing(device_batches(iter([rows]), mesh)) as fed:
    moved = next(fed)
  assert moved.sharding == batch_sharding(mesh)
  assert [shard.data.unsafe_buffer_pointer() for shard in moved.addressable_shards] == [
    shard.data.unsafe_buffer_pointer() for shard in rows.addressable_shards
  ]
