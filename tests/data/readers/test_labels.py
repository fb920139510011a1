"""Identities and cameras in every form in which they arrive in a table."""

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from dgnet_jax.data.readers.labels import camera_label, identity_label

# How spreadsheets, pandas and people write a whole number.
FORMS = (
  *('{n}', '{n:04d}', '{n:06d}', ' {n}', '{n} ', '\t{n}', '\xa0{n}', '\ufeff{n}', '{n}\u200b', '+{n}', '{n}.', '{n}.0'),
  *('{n}.00', '{n},0', '{n}.0000000', '="{n}"', "'{n}", '{n:.18e}'),
)
REFUSED = (
  *('', ' ', 'nan', 'NaN', ' NaN ', 'NA', '<NA>', 'None', 'null', '#N/A', '#REF!', 'inf', '-inf', '1.5', '1,25', '.5'),
  *(
    '1,234',
    '1.234',
    '1 234',
    "1'234",
    '1\xa0234',
    '1,234,567',
    '1.234,00',
    '1.000',
    '1E+05',
    '1.23E+03',
    '1e3',
    '1e-3',
  ),
  *('-2', '-1000', '-1.5'),
)


@given(st.integers(0, 10**15))
@settings(max_examples=50, deadline=None)
def test_a_number_is_the_same_in_every_form(number):
  forms = [form.format(n=number) for form in FORMS]
  assert {identity_label(form) for form in forms} == {f'{number:04d}'}
  assert {
    camera_label(form) for form in [*forms, f'c{number}', f'C{number:03d}', f'cam_{number}', f'Camera {number}']
  } == {str(number)}


@pytest.mark.parametrize('cell', ['-1', '-1.0', ' -1', '\u22121', '-01', '-1.00', '-1.000000000000000000e+00'])
def test_minus_one_is_junk_in_every_form(cell):
  assert identity_label(cell) == '-1'
  with pytest.raises(ValueError, match='negative'):
    camera_label(cell)


@pytest.mark.parametrize('cell', REFUSED)
def test_what_is_not_certain_is_refused(cell):
  for read in (identity_label, camera_label):
    with pytest.raises(ValueError, match=r'.'):
      read(cell)


@pytest.mark.parametrize(
  'name',
  ['Anna', 'Änne B.', 'nancy', 'NaNa', '1a', 'train 0000', 'market1501 0002', '10.0.0.1', '1-2', 'c1', '1_234', '²'],
)
def test_names_stay_as_they_are(name):
  assert identity_label(f' {name} ') == name


@given(st.text(max_size=12))
@settings(max_examples=200, deadline=None)
def test_labels_of_labels_are_the_same(cell):
  for read in (identity_label, camera_label):
    try:
      label = read(cell)
    except ValueError:
      continue
    assert read(label) == label != ''
