"""Training DG-Net on tiny networks: resuming, interruption, losses that are not finite."""

import contextlib
import dataclasses
import functools
import inspect
import json
import logging
import os
import shutil
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.config.defaults import default_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training import loop
from dgnet_jax.training.loop import train
from dgnet_jax.training.schedules import learning_rates, phase_boundaries
from dgnet_jax.training.teacher_store import load_teacher
from tests.exhaustive import EXHAUSTIVE
from tests.log_lines import logged
from tests.tiny_run import frozen

NUM_IDENTITIES = 6


def tiny_config(root='', **fields):
  """Both phases within four steps, on networks that compile in seconds."""
  config = default_config()
  config.batch_size = 8
  config.num_steps = 4
  config.data.update(layout='synthetic', root=str(root), loader='memory', image_size_hw=(32, 16))
  config.data.synthetic.update(num_train_identities=NUM_IDENTITIES, num_test_identities=2, images_per_identity=4)
  config.data.synthetic.update(num_distractors=1, num_junk=1, image_size_hw=(32, 16))
  config.augment.crop_padding = 2
  config.structure_encoder.update(width=2, num_res_blocks=1, dilations=(1,))
  config.decoder.update(num_res_blocks=1, mlp_width=8)
  config.discriminator.update(width=4, num_scales=1, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1), width=4, head_width=8, input_scale=1, num_parts=2, batch_norm_group=4)
  config.teacher.update(stage_sizes=(1, 1), width=4, head_width=8, batch_size=8)
  config.teacher.update(num_epochs=1, warmup_epochs=0, decay_epoch=1)
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=0.5)
  config.log.update(progress_every_steps=1, images_every_steps=100, checkpoint_every_steps=2)
  config.update_from_flattened_dict(fields)
  return frozen(config)


class _Callback(logging.Handler):
  """Passes every message to a function."""

  def __init__(self, function):
    super().__init__()
    self._function = function

  def emit(self, record):
    self._function(record.getMessage())


@contextlib.contextmanager
def messages_to(function, logger_name):
  handler, logger = _Callback(function), logging.getLogger(logger_name)
  logger.addHandler(handler)
  try:
    yield
  finally:
    logger.removeHandler(handler)


@pytest.fixture(scope='module')
def jax_messages():
  """What JAX logs while `work` trains."""
  return []


@pytest.fixture(scope='module')
def first_messages():
  """What the package logs while `work` trains teacher and DG-Net."""
  return []


@pytest.fixture(scope='module')
def work(tmp_path_factory, jax_messages, first_messages):
  """A folder with data and a teacher, a config that uses both, and the last state of an unbroken run of four steps."""
  folder = tmp_path_factory.mktemp('train')
  jax.config.update('jax_log_compiles', True)  # the context manager would do so in this thread only
  try:
    with messages_to(jax_messages.append, 'jax'), logged() as lines:
      state = train(tiny_config(folder / 'data'), folder / 'unbroken')
  finally:
    jax.config.update('jax_log_compiles', False)
  first_messages += lines
  return folder, tiny_config(folder / 'data', **{'teacher.checkpoint': str(folder / 'unbroken' / 'teacher')}), state


def assert_same(one, other):
  one, other = (tree.replace(rng=jax.random.key_data(tree.rng)) for tree in (one, other))
  jax.tree.map(np.testing.assert_array_equal, jax.device_get(one), jax.device_get(other))


def test_resumed_run_equals_unbroken_one(work, lines):
  """The resumed run compiles the second phase itself; the unbroken one did so in the background."""
  folder, config, unbroken = work
  shutil.copytree(folder / 'unbroken', folder / 'resumed')
  shutil.rmtree(folder / 'resumed' / 'checkpoints' / '4')
  assert_same(train(config, folder / 'resumed'), unbroken)
  assert any('resuming from step 2' in line for line in lines)
  steps = [json.loads(line)['step'] for line in (folder / 'resumed' / 'metrics.jsonl').read_text().splitlines()]
  assert steps == [1, 2, 3, 4]


@EXHAUSTIVE
@pytest.mark.long
def test_run_with_batches_of_identities_resumes_exactly(work, tmp_path, lines):
  folder, config, _ = work
  options = {'data.images_per_identity': 2, 'weights.triplet': 1.0, 'weights.circle': 0.1, 'reid.label_smoothing': 0.1}
  options |= {'optimizer.reid_schedule': 'cosine', 'optimizer.reid_warmup_steps': 1}
  config = tiny_config(folder / 'data', **options, **{'teacher.checkpoint': config.teacher.checkpoint})
  unbroken = train(config, tmp_path / 'unbroken')
  records = [json.loads(line) for line in (tmp_path / 'unbroken' / 'metrics.jsonl').read_text().splitlines()]
  assert [record['rate/reid'] for record in records] == pytest.approx([2e-4, 2e-3, 1.5e-3, 5e-4])  # cosine over 3 steps
  assert {'loss/triplet', 'loss/circle', 'loss/fine_triplet', 'loss/fine_circle'} < records[-1].keys()
  shutil.rmtree(tmp_path / 'unbroken' / 'checkpoints' / '4')
  lines.clear()
  assert_same(train(config, tmp_path / 'unbroken'), unbroken)
  assert any('resuming from step 2' in line for line in lines)


@pytest.mark.usefixtures('work')
def test_images_are_decoded_once_for_both_jobs(first_messages):
  assert sum('images of 32x16 in memory' in message for message in first_messages) == 1


def test_images_on_the_devices_train_the_same(work, lines):
  folder, config, unbroken = work
  shutil.copytree(folder / 'unbroken', folder / 'device')
  shutil.rmtree(folder / 'device' / 'checkpoints' / '4')
  shutil.rmtree(folder / 'device' / 'images')
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, loader='device'))
  assert_same(train(config, folder / 'device'), unbroken)
  assert any('resuming from step 2' in line for line in lines)
  assert 'holding 24 images of 32x16 on each of 8 device(s): 0 MiB' in lines
  (grid,) = (folder / 'device' / 'images').glob('*.png')
  assert grid.read_bytes() == (folder / 'unbroken' / 'images' / grid.name).read_bytes()


@pytest.mark.long
@pytest.mark.parametrize('step', [1, 3])
@pytest.mark.usefixtures('lines')
def test_interrupted_run_resumes_exactly(work, step):
  """After step 1 the second phase is still being compiled."""
  folder, config, unbroken = work
  workdir = folder / f'stopped_{step}'
  saved = []

  def interrupt(message):
    if message.startswith(f'{step}/4'):
      os.kill(os.getpid(), signal.SIGTERM)
    if message.startswith('waiting for the compilation'):
      saved.append((workdir / 'checkpoints' / str(step)).is_dir())

  with messages_to(interrupt, 'dgnet_jax'), pytest.raises(Interrupted, match=f'stopped at step {step}'):
    train(config, workdir)
  assert all(saved)
  assert saved or step != 1, 'the compilation was over before the signal'
  assert_same(train(config, workdir), unbroken)


@pytest.mark.long
def test_loss_that_is_not_finite_raises_with_step_term_and_checkpoint(work, monkeypatch):
  folder, config, _ = work
  make = loop.make_train_step

  def make_broken_step(*args):
    step_fn = inspect.unwrap(make(*args))

    @functools.partial(jax.jit, static_argnums=3)
    def step(state, *rest):
      new_state, metrics = step_fn(state, *rest)
      factor = jnp.where(state.step == 2, jnp.nan, 1)
      return new_state, metrics | {'adversarial': metrics['adversarial'] * factor}

    return step

  monkeypatch.setattr(loop, 'make_train_step', make_broken_step)
  with pytest.raises(UserError, match='step 2: adversarial not finite; there is no good .*Remove .*/2, '):
    train(config, folder / 'broken')


def test_step_is_compiled_once_per_phase(work, jax_messages):
  _, config, _ = work
  compilations = sum('Compiling jit(train_step)' in message for message in jax_messages)
  assert compilations == len(phase_boundaries(config.ramps, config.num_steps)) + 1 == 2


@pytest.mark.usefixtures('work')
def test_second_phase_is_compiled_while_the_first_trains(first_messages):
  messages = [message for message in first_messages if 'ompiling' in message or 'the program' in message]
  first, ahead, at_border = (message.split(' for ramped')[0] for message in messages)
  assert first == 'step 0: compiling for the warm-up (no ramped terms)'
  assert ahead == 'step 0: compiling in the background'
  assert at_border in ('step 2: waiting for the program', 'step 2: the program is ready')


def test_reid_network_can_start_from_the_teacher(work, lines):
  folder, config, _ = work
  config = dataclasses.replace(config, num_steps=0, reid=dataclasses.replace(config.reid, pretrained='teacher'))
  state = train(config, folder / 'from_teacher')
  teacher = load_teacher(config, open_dataset(config.data, folder), config.teacher.checkpoint)
  for part in ('params', 'batch_stats'):
    backbones = (getattr(source, part)['backbone'] for source in (state.reid, teacher))
    jax.tree.map(np.testing.assert_array_equal, *backbones)
  assert any(line.startswith('reid: backbone') for line in lines)


def test_train_runs_outside_the_main_thread(work):
  folder, config, _ = work
  states = []
  config = dataclasses.replace(config, num_steps=0)
  thread = threading.Thread(target=lambda: states.append(train(config, folder / 'thread')))
  thread.start()
  thread.join()
  assert [int(state.step) for state in states] == [0]


@pytest.mark.parametrize(
  ('fields', 'problem'),
  [
    ({'batch_size': 6}, 'batch_size: 6 does not divide among 8 devices'),
    ({'batch_size': 32}, 'batch_size: 32 is above the number of training images, 24'),
    ({'teacher.batch_size': 32}, 'teacher.batch_size: 32 is above the number of training images, 24'),
    (
      {'batch_size': 12, 'teacher.batch_size': 25},
      'batch_size: 12 does not divide among 8 devices; teacher.batch_size: 25 does not divide among 8 devices; '
      'teacher.batch_size: 25 is above the number of training images, 24',
    ),
  ],
)
def test_wrong_batch_size_raises_before_the_teacher_is_trained(work, monkeypatch, fields, problem):
  folder, config, _ = work
  monkeypatch.delattr(loop, 'train_teacher')
  with pytest.raises(UserError) as error:
    train(tiny_config(config.data.root, **fields), folder / 'wrong')
  assert str(error.value) == f'{problem}. Use a multiple of 8 up to 24.'


def test_teacher_batch_size_does_not_matter_once_it_is_trained(work):
  folder, config, _ = work
  finished = tiny_config(config.data.root, **{'teacher.batch_size': 25})
  assert int(train(finished, folder / 'unbroken').step) == finished.num_steps


def test_run_beyond_its_number_of_steps_says_which_step_it_is_at(work, lines):
  folder, config, unbroken = work
  assert_same(train(dataclasses.replace(config, num_steps=3), folder / 'unbroken'), unbroken)
  assert any('num_steps is 3, but the run has done 4 steps already: nothing is trained' in line for line in lines)
  assert any(line.startswith('4 steps done') for line in lines) and not any(
    line.startswith('3 steps') for line in lines
  )


def test_no_teacher_is_trained_for_a_finished_run(tmp_path, monkeypatch, lines):
  config = tiny_config(tmp_path / 'data')
  (tmp_path / 'run' / 'checkpoints' / str(config.num_steps)).mkdir(parents=True)
  monkeypatch.delattr(loop, 'set_up')
  with pytest.raises(UserError, match=f'no teacher in .*has done its {config.num_steps} steps: .*dgnet evaluate'):
    train(config, tmp_path / 'run')
  with pytest.raises(NameError):  # goes on, with a warning
    train(dataclasses.replace(config, num_steps=9), tmp_path / 'run')
  assert any(f'although the run is at step {config.num_steps}: a new one is trained' in line for line in lines)


def test_images_and_metrics_are_written(work):
  folder, _, _ = work
  assert list((folder / 'unbroken' / 'images').glob('*.png'))
  assert (folder / 'unbroken' / 'metrics.jsonl').read_text().count('loss/cycle') == 2


def test_only_rates_of_what_is_trained_are_reported():
  report = loop._report(tiny_config(**{'optimizer.generator_steps': 2}), 0)

  def rates(done):
    return {name for name in report(done, {}).scalars if name.startswith('rate/')}

  assert rates(2) == {'rate/generator', 'rate/discriminator', 'rate/reid'}
  assert rates(3) == {'rate/reid'}


def test_reported_rates_are_those_of_the_updates_that_were_not_skipped():
  config = tiny_config(**{'optimizer.decay_steps': 3, 'optimizer.skip_non_finite': 9})
  reported = loop._report(config, 1)(4, {'skipped': 1.0}).scalars['rate/reid']
  assert reported == learning_rates(config, 1)['reid'] != learning_rates(config, 3)['reid']
