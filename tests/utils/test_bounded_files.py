import json
import os
import time

import pytest

from dgnet_jax.utils.bounded_files import open_regular, parse_json, read_json, read_regular, read_text
from tests.special_files import SPECIAL, make_special


@pytest.mark.parametrize('kind', SPECIAL)
def test_only_regular_files_are_opened(tmp_path, kind):
  path = make_special(tmp_path / 'x', kind)
  with pytest.raises(OSError, match=SPECIAL[kind]) as error:
    read_regular(path, 100)
  assert error.value.strerror


def test_files_of_the_largest_size_are_read_and_larger_ones_are_not(tmp_path):
  path = tmp_path / 'x'
  path.write_bytes(b'12345')
  assert read_regular(path, 5) == b'12345'
  with pytest.raises(OSError, match='5 bytes, more than the 4'):
    read_regular(path, 4)


def test_a_file_with_holes_is_not_read(tmp_path):
  path = tmp_path / 'x'
  path.touch()
  os.truncate(path, 2**42)
  with pytest.raises(OSError, match='more than'):
    open_regular(path, 2**30)


def test_undecodable_text(tmp_path):
  (tmp_path / 'x').write_bytes(b'\xff')
  assert read_text(tmp_path / 'x', errors='surrogateescape') == '\udcff'
  with pytest.raises(ValueError, match='utf-8'):
    read_json(tmp_path / 'x')


class TestJson:
  @pytest.mark.parametrize('text', ['{"a": [1, -2, 0.5, null, "[[{\\"", true]}', '[' * 32 + ']' * 32, '9' * 19, '""'])
  def test_values(self, text):
    assert parse_json(text) == json.loads(text)

  @pytest.mark.parametrize('inner', ['', '1', '"]]]"', r'"\"]"', '{}'])
  @pytest.mark.parametrize('brackets', ['[]', ('{"a":', '}')])
  def test_deep_nesting(self, inner, brackets):
    before, after = brackets
    for depth in (33, 900, 100_000):
      with pytest.raises(ValueError, match='nested more than 32'):
        parse_json(before * depth + inner + after * depth)

  @pytest.mark.parametrize('number', ['9' * 20, '-' + '9' * 20, '[' + '1' * 4000 + ']', '1' * 100_000])
  def test_long_integers(self, number):
    with pytest.raises(ValueError, match='a whole number of'):
      parse_json(number)

  @pytest.mark.parametrize('text', ['{"a": 1, "b": 2, "a": 1}', '[{"x": {"a": 1, "\\u0061": 2}}]'])
  def test_names_that_are_given_twice(self, text):
    with pytest.raises(ValueError, match="^'a' is given twice$"):
      parse_json(text)

  def test_a_repeated_name_is_found_in_linear_time(self):
    members = [f'"{i}": 0' for i in range(200_000)]
    start = time.process_time()
    with pytest.raises(ValueError, match="'199999' is given twice"):
      parse_json('{' + ', '.join([*members, members[-1]]) + '}')
    assert time.process_time() - start < 2

  @pytest.mark.parametrize('text', ['"' + r'\"' * 200_000, '"' * 200_001, '[]' * 200_000, '["\\', '{"a' * 100_000])
  def test_malformed_text_takes_linear_time(self, text):
    start = time.process_time()
    with pytest.raises(ValueError):
      parse_json(text)
    assert time.process_time() - start < 2

  def test_sizes(self, tmp_path):
    (tmp_path / 'x').write_text('[1]')
    assert read_json(tmp_path / 'x', 3) == [1]
    with pytest.raises(OSError, match='more than the 2'):
      read_json(tmp_path / 'x', 2)
