"""Names of files and people that are not text, or long."""

from hypothesis import given
from hypothesis import strategies as st

from dgnet_jax.utils.text import ANY_NAME, shortened


@given(st.binary())
def test_names_of_files_are_written_as_they_are(name):
  text = name.decode('utf-8', 'surrogateescape')
  assert text.encode('utf-8', ANY_NAME) == name


@given(st.text(st.characters(codec=None, exclude_categories=())))
def test_any_name_can_be_written(name):
  content = name.encode('utf-8', ANY_NAME)
  assert '\ud800' not in name or b'\\ud800' in content


def test_long_text_is_shortened():
  assert shortened('9' * 4000) == f'{"9" * 60}... (4000 characters)'
  assert shortened('9' * 60) == '9' * 60
