"""Compiling the program of the next phase in the background, on a step that compiles at once."""

import contextlib
import dataclasses
import functools
import threading
import traceback

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.sharding import batch_sharding, make_mesh, replicated
from dgnet_jax.training import loop
from dgnet_jax.training.phase_programs import PhasePrograms, Phases
from dgnet_jax.types import ActiveTerms, NetworkState, PixelBatch, TrainState
from tests.training.test_loop import tiny_config

WARM_UP, RAMPED, ALONE = ActiveTerms(), ActiveTerms(cycle=True), ActiveTerms(generator=False, teaching=True)
NAMES = {WARM_UP: 'the warm-up', RAMPED: 'ramped terms', ALONE: 'the re-id network alone'}
STARTS = [2, 4]


class Traced:
  """A jitted step, what it was traced for and in which thread, and what each trace waits for or raises."""

  def __init__(self):
    self.traces, self.go, self.error, self.everywhere = [], threading.Event(), None, False
    self.go.set()
    self.step = functools.partial(jax.jit, static_argnums=3, donate_argnums=0, out_shardings=replicated(make_mesh()))(
      self._step
    )

  def _step(self, state, teachers, pixels, active):
    in_background = threading.current_thread() is not threading.main_thread()
    self.traces.append((active, in_background))
    if in_background:
      assert self.go.wait(60)
    if self.error and (in_background or self.everywhere):
      raise self.error
    noise = jax.random.normal(jax.random.fold_in(state.rng, state.step), state.reid.params.shape)
    params = state.reid.params * 0.9 + noise + teachers[0] * active.cycle + pixels.image.mean()
    if pixels.cross_ground_truth is not None:
      params += pixels.cross_ground_truth.mean()
    reid = dataclasses.replace(state.reid, params=params)
    return state.replace(step=state.step + 1, reid=reid), {'total': params.sum()}


def make_phases(num_steps=6, **fields):
  starts = [start for start in STARTS if start < num_steps]
  phases = Phases(
    starts=starts,
    active=lambda step: WARM_UP if step < 2 else RAMPED if step < 4 else ALONE,
    name=NAMES.__getitem__,
    batch=lambda pixels, _: pixels,
  )
  return dataclasses.replace(phases, **fields)


def new_state(step=0):
  network = NetworkState(jnp.arange(5.0), {}, ())
  state = TrainState(jnp.int32(step), network, network, network, jax.random.key(7))
  return jax.device_put(jax.tree.map(jnp.copy, state), replicated(make_mesh()))


def inputs(*, with_truth=False):
  image = jnp.arange(32, dtype=jnp.uint8).reshape(8, 2, 2, 1, 1)
  pixels = PixelBatch(image, image, jnp.zeros((8, 2), jnp.int32), image if with_truth else None)
  return jax.device_put((jnp.float32(2),), replicated(make_mesh())), jax.device_put(pixels, batch_sharding(make_mesh()))


def run(programs, steps, state=None, batch=inputs):
  """The state after the given steps; each is finished before the next begins."""
  state = new_state(steps[0]) if state is None else state
  for step in steps:
    state, _ = jax.block_until_ready(programs.step(step, state, *batch()))
  return state


def finish(programs):
  """Waits for the program that is compiled in the background."""
  programs._ahead.program.exception(60)


@pytest.fixture
def traced():
  traced = Traced()
  yield traced
  traced.go.set()


@pytest.fixture
def programs(traced):
  with contextlib.closing(PhasePrograms(traced.step, make_phases())) as programs:
    yield programs


def test_next_program_is_ready_at_the_border_and_not_compiled_again(traced, programs, lines):
  state = run(programs, [0, 1])
  finish(programs)
  state = run(programs, [2, 3], state)
  finish(programs)
  run(programs, [4, 5], state)
  assert traced.traces == [(WARM_UP, False), (RAMPED, True), (ALONE, True)]
  assert lines == [
    'step 0: compiling for the warm-up',
    'step 0: compiling in the background for ramped terms, from step 2 on',
    'step 2: the program is ready for ramped terms',
    'step 2: compiling in the background for the re-id network alone, from step 4 on',
    'step 4: the program is ready for the re-id network alone',
  ]


def test_program_that_is_not_ready_is_waited_for(traced, programs, lines):
  traced.go.clear()
  state = run(programs, [0, 1])
  timer = threading.Timer(0.2, traced.go.set)
  timer.start()
  run(programs, [2], state)
  timer.join()
  assert 'step 2: waiting for the program for ramped terms' in lines
  assert (RAMPED, False) not in traced.traces


def test_results_are_those_of_the_jitted_step(traced, programs):
  state, expected = new_state(), new_state()
  plain = Traced()
  for step in range(6):
    state, metrics = programs.step(step, state, *inputs())
    expected, expected_metrics = plain.step(expected, *inputs(), make_phases().active(step))
    for one, other in ((state.reid, expected.reid), (metrics, expected_metrics)):
      jax.tree.map(np.testing.assert_array_equal, one, other)
    assert int(state.step) == step + 1
  assert {active for active, in_background in traced.traces if in_background} == {RAMPED, ALONE}


def test_state_is_donated_in_every_phase(programs):
  state = new_state()
  for step in range(6):
    before, (teachers, pixels) = state, inputs()
    state, _ = programs.step(step, state, teachers, pixels)
    assert before.reid.params.is_deleted() and not state.reid.params.is_deleted()
    assert not any(x.is_deleted() for x in jax.tree.leaves((teachers, pixels)))


def test_what_failed_in_the_background_is_compiled_at_the_border(traced, programs, lines):
  traced.error = ValueError('no memory left')
  state = run(programs, [0])
  finish(programs)
  run(programs, [1, 2], state)
  assert traced.traces[:3] == [(WARM_UP, False), (RAMPED, True), (RAMPED, False)]
  assert 'step 2: compiling in the background failed (no memory left), so it is tried again' in lines


def test_error_in_a_program_surfaces_at_the_border(traced, programs):
  traced.error, traced.everywhere = ValueError('no such term'), False
  state = run(programs, [0])
  finish(programs)
  traced.everywhere = True
  state = run(programs, [1], state)
  with pytest.raises(ValueError, match='no such term') as error:
    run(programs, [2], state)
  assert '_step' in [frame.name for frame in traceback.extract_tb(error.tb)]


def test_resumed_run_compiles_its_own_phase_and_the_next(traced, programs):
  state = run(programs, [3])
  finish(programs)
  run(programs, [4], state)
  assert traced.traces == [(RAMPED, False), (ALONE, True)]


@pytest.mark.parametrize(('num_steps', 'step'), [(6, 4), (4, 2), (2, 0)])
def test_last_phase_of_a_run_compiles_nothing_ahead(traced, num_steps, step):
  with contextlib.closing(PhasePrograms(traced.step, make_phases(num_steps))) as programs:
    threads = threading.active_count()
    run(programs, [step])
    assert threading.active_count() == threads
  assert [in_background for _, in_background in traced.traces] == [False]


def test_batches_may_gain_a_field_at_a_border(traced):
  phases = make_phases(
    batch=lambda pixels, active: pixels.replace(cross_ground_truth=pixels.image if active == RAMPED else None)
  )
  with contextlib.closing(PhasePrograms(traced.step, phases)) as programs:
    state = run(programs, [0, 1])
    state = run(programs, [2, 3], state, functools.partial(inputs, with_truth=True))
    run(programs, [4], state)
  assert traced.traces == [(WARM_UP, False), (RAMPED, True), (ALONE, True)]


def test_program_that_does_not_fit_is_not_used(traced, programs, lines):
  state = run(programs, [0, 1])
  run(programs, [2, 3], state, functools.partial(inputs, with_truth=True))
  assert traced.traces[:3] == [(WARM_UP, False), (RAMPED, True), (RAMPED, False)]
  assert 'step 2: compiling for ramped terms' in lines


def test_settings_of_the_calling_thread_hold_for_every_program(traced, programs):
  with jax.default_matmul_precision('float32'):
    run(programs, [0, 1, 2])
  assert traced.traces == [(WARM_UP, False), (RAMPED, False)]


def test_closing_waits_for_a_running_compilation(traced, lines):
  programs = PhasePrograms(traced.step, make_phases())
  traced.go.clear()
  run(programs, [0])
  threading.Timer(0.2, traced.go.set).start()
  programs.close()
  assert lines[-1] == 'waiting for the compilation in the background, which cannot be stopped'
  assert programs._ahead.program.done()


@pytest.mark.parametrize('images', ['generated', 'ground_truth'])
def test_structure_of_the_batches_of_each_phase_is_known(images):
  config = tiny_config(**{'teaching.images': images, 'joint': images == 'generated'})
  phases, pixels = loop.phases(config), inputs()[1]
  assert phases.starts == [2] and phases.active(2).teaching
  assert phases.batch(pixels, phases.active(0)).cross_ground_truth is None
  taught = phases.batch(pixels, phases.active(2)).cross_ground_truth
  assert (taught is not None) == (images == 'ground_truth')
