"""Numbering of names, and building an index."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.index import LabeledImage, Split, assign_numbers, make_index, printable, summarize
from dgnet_jax.errors import UserError

names = st.lists(st.text(min_size=1, max_size=8), max_size=8)


@given(names, names)
@settings(max_examples=50, deadline=None)
def test_numbers_are_unique_and_independent_of_later_groups(train, test):
  numbers = assign_numbers([train, test])
  assert numbers.keys() == {*train, *test}
  assert len(set(numbers.values())) == len(numbers) and all(0 < number < 2**31 for number in numbers.values())
  assert assign_numbers([train]).items() <= numbers.items()
  assert assign_numbers([train[::-1], test[::-1]]) == numbers


def test_names_that_are_distinct_integers_keep_them():
  assert assign_numbers([['0007', '12']]) == {'0007': 7, '12': 12}
  assert assign_numbers([['7', '007']]) == {'007': 1, '7': 2}  # two identities
  assert assign_numbers([['0', '1']]) == {'0': 1, '1': 2}  # 0 is reserved for distractors
  assert assign_numbers([['0', '1']], minimum=0) == {'0': 0, '1': 1}
  assert assign_numbers([['Anna', '5']]) == {'5': 1, 'Anna': 2}
  assert assign_numbers([['Anna', 'Bob'], ['Anna', 'Abe']]) == {'Anna': 1, 'Bob': 2, 'Abe': 3}
  assert assign_numbers([['3', '5'], ['5', '3', '03']]) == {'3': 3, '5': 5, '03': 6}
  assert assign_numbers([['9999999999']]) == {'9999999999': 1}  # beyond i32


def test_index_is_sorted_by_path_and_numbered():
  images = {
    'train': [LabeledImage('b', 'Bob', 'door'), LabeledImage('a', 'Anna', 'roof')],
    'gallery': [
      LabeledImage('c', 'junk', 'door'),
      LabeledImage('d', 'distractor', 'yard'),
      LabeledImage('e', 'Bob', 'yard'),
    ],
  }
  index = make_index('folders', 'root', images)
  assert index.train.paths == ('a', 'b') and index.class_of == {1: 0, 2: 1}
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 2])
  np.testing.assert_array_equal(index.gallery.camera, [1, 3, 3])
  assert index.identity_names == {1: 'Anna', 2: 'Bob', -1: 'junk', 0: 'distractor'}
  assert index.camera_names == {1: 'door', 2: 'roof', 3: 'yard'} and index.num_cameras == 3
  assert len(index.query) == 0 and index.query.identity.dtype == np.int32


def test_junk_and_distractors_are_dropped_from_train_and_query(lines):
  lines.clear()
  unidentified = [LabeledImage(f'{name}.jpg', name, '1') for name in ('junk', 'distractor')]
  images = dict.fromkeys(('train', 'query', 'gallery'), [*unidentified, LabeledImage('x', '5', '1')])
  index = make_index('csv', 'root', images)
  assert [len(split) for split in index.splits.values()] == [1, 1, 3, 0]
  assert [line.count('dropped 2 images of identity -1 or 0') for line in lines] == [1, 1]
  with pytest.raises(UserError, match='root, query: all images are junk or distractors'):
    make_index('csv', 'root', {'query': unidentified})


def test_long_lists_are_shortened():
  assert summarize(['a', 'b']) == 'a, b'
  assert summarize(list('abcdefg')) == 'a, b, c, d, e, and 2 more'


@given(st.text())
def test_printable_names_fit_on_one_line(name):
  shown = printable(name)
  assert shown.isprintable() and shown.encode() is not None
  assert not name.isprintable() or shown == name


def test_one_per_identity_leaves_out_junk_and_distractors():
  split = Split(tuple('abcdefgh'), np.array([5, -1, 0, 2, 5, 9, 2, 7]), np.ones(8, int))
  assert split.one_per_identity().tolist() == [3, 0, 7, 5]
  assert split.one_per_identity(2).tolist() == [3, 5]
  assert split.one_per_identity(9).tolist() == [3, 0, 7, 5]
