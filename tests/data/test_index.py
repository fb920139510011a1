"""Names become numbers, and images become splits."""

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from dgnet_jax.data.index import Image, make_index, name_some, number_names, printable
from dgnet_jax.errors import UserError

names = st.lists(st.text(min_size=1, max_size=8), max_size=8)


@given(names, names)
@settings(max_examples=50, deadline=None)
def test_numbers_are_different_and_do_not_depend_on_what_follows(train, test):
  numbers = number_names([train, test])
  assert numbers.keys() == {*train, *test}
  assert len(set(numbers.values())) == len(numbers) and all(0 < number < 2**31 for number in numbers.values())
  assert number_names([train]).items() <= numbers.items()
  assert number_names([train[::-1], test[::-1]]) == numbers


def test_numbers_are_kept_where_they_can_be():
  assert number_names([['0007', '12']]) == {'0007': 7, '12': 12}
  assert number_names([['7', '007']]) == {'007': 1, '7': 2}  # two people
  assert number_names([['0', '1']]) == {'0': 1, '1': 2}  # 0 is the distractor's
  assert number_names([['0', '1']], least=0) == {'0': 0, '1': 1}
  assert number_names([['Anna', '5']]) == {'5': 1, 'Anna': 2}
  assert number_names([['Anna', 'Bob'], ['Anna', 'Abe']]) == {'Anna': 1, 'Bob': 2, 'Abe': 3}
  assert number_names([['3', '5'], ['5', '3', '03']]) == {'3': 3, '5': 5, '03': 6}
  assert number_names([['9999999999']]) == {'9999999999': 1}  # beyond i32


def test_an_index_sorts_and_names():
  images = {
    'train': [Image('b', 'Bob', 'door'), Image('a', 'Anna', 'roof')],
    'gallery': [Image('c', 'junk', 'door'), Image('d', 'distractor', 'yard'), Image('e', 'Bob', 'yard')],
  }
  index = make_index('folders', 'root', images)
  assert index.train.paths == ('a', 'b') and index.class_of == {1: 0, 2: 1}
  np.testing.assert_array_equal(index.gallery.identity, [-1, 0, 2])
  np.testing.assert_array_equal(index.gallery.camera, [1, 3, 3])
  assert index.identity_names == {1: 'Anna', 2: 'Bob', -1: 'junk', 0: 'distractor'}
  assert index.camera_names == {1: 'door', 2: 'roof', 3: 'yard'} and index.num_cameras == 3
  assert len(index.query) == 0 and index.query.identity.dtype == np.int32


def test_nobody_is_trained_on_or_asked_for(lines):
  lines.clear()
  nobody = [Image(f'{name}.jpg', name, '1') for name in ('junk', 'distractor')]
  images = dict.fromkeys(('train', 'query', 'gallery'), [*nobody, Image('x', '5', '1')])
  index = make_index('csv', 'root', images)
  assert [len(split) for split in index.splits.values()] == [1, 1, 3, 0]
  assert [line.count('2 images of identity -1 or 0') for line in lines] == [1, 1]
  with pytest.raises(UserError, match='root, query: no images of a known person'):
    make_index('csv', 'root', {'query': nobody})


def test_long_lists_are_cut():
  assert name_some(['a', 'b']) == 'a, b'
  assert name_some(list('abcdefg')) == 'a, b, c, d, e, and 2 more'


@given(st.text())
def test_every_name_can_be_shown_on_a_line(name):
  shown = printable(name)
  assert shown.isprintable() and shown.encode() is not None
  assert not name.isprintable() or shown == name
