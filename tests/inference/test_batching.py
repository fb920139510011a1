"""Functions applied to long sequences in padded batches of one size."""

import jax
import numpy as np
import pytest

from dgnet_jax.inference.batching import BatchedFunction
from dgnet_jax.sharding import make_mesh
from dgnet_jax.utils import progress

ROWS = np.arange(22, dtype=np.float32).reshape(11, 2)


def batched(function, batch_size, num_devices=1):
  return BatchedFunction(jax.jit(function), batch_size=batch_size, mesh=make_mesh(jax.local_devices()[:num_devices]))


class Recorder:
  """A lazily read sequence that records what is read."""

  def __init__(self, rows, events):
    self.rows, self.events = rows, events

  def __len__(self):
    return len(self.rows)

  def __getitem__(self, index):
    self.events.append(('read', index.start))
    return self.rows[index]


@pytest.mark.parametrize('batch_size', [1, 3, 11, 64])
def test_every_row_is_processed_once_and_in_order(batch_size):
  np.testing.assert_array_equal(batched(lambda x: 2 * x, batch_size)(ROWS, label='doubling'), 2 * ROWS)


def test_all_batches_have_one_size_and_one_compilation():
  shapes = []

  def function(x):
    shapes.append(x.shape)  # once per trace
    return x.sum(-1)

  function = batched(function, 4)
  for count in (9, 4, 6):
    assert function(ROWS[:count], label='summing').shape == (count,)
  assert shapes == [(4, 2)]


def test_padding_is_zero():
  def function(x):
    return x + x.sum()  # of the batch

  np.testing.assert_array_equal(batched(function, 8)(ROWS[:3], label=''), ROWS[:3] + ROWS[:3].sum())


def test_batches_are_split_over_all_devices():
  function = batched(lambda x: x + 1, 3, num_devices=8)
  sizes = [len(batch) for batch in function.batches(ROWS, label='')]
  assert sizes == [8, 3]  # 3 is rounded up to the 8 devices
  np.testing.assert_array_equal(function(ROWS, label=''), ROWS + 1)


def test_inputs_and_outputs_may_be_pytrees_of_lazy_sequences():
  inputs = {'a': Recorder(ROWS, []), 'b': ROWS[:, :1]}
  outputs = batched(lambda x, y: {'sum': x['a'] + x['b'], 'first': (y[:, 0],)}, 4)(inputs, ROWS, label='')
  np.testing.assert_array_equal(outputs['sum'], ROWS + ROWS[:, :1])
  np.testing.assert_array_equal(outputs['first'][0], ROWS[:, 0])


def test_next_batch_is_read_before_the_last_one_is_returned():
  events = []
  for batch in batched(lambda x: x, 4).batches(Recorder(ROWS, events), label=''):
    events.append(('returned', int(batch[0, 0]) // 2))
  assert events == [
    *(('read', 0), ('read', 4), ('returned', 0)),
    *(('read', 8), ('returned', 4), ('returned', 8)),
  ]


def test_different_lengths_raise_at_the_call():
  with pytest.raises(ValueError, match=r'pairing: inputs of different lengths, \[11, 3\]'):
    batched(lambda x, y: x, 4).batches(ROWS, ROWS[:3], label='pairing')


def test_progress_is_logged(monkeypatch, lines):
  monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', -1.0)
  batched(lambda x: x, 4)(ROWS, label='embedding the gallery')
  assert len(lines) == 2 and lines[-1].startswith('embedding the gallery: 8/11') and 'left' in lines[-1]
