"""CSV tables of images."""

import pytest

from dgnet_jax.data.registry import detect_layout, read_layout
from tests.data.reading import check_error

HEADER = 'path,identity,camera,split\n'


@pytest.fixture
def table(tmp_path):
  """Writes a table and returns its path."""

  def write(text):
    (tmp_path / 'all.csv').write_text(text)
    return tmp_path / 'all.csv'

  return write


def test_rows_are_read(table, tmp_path):
  path = table(f'{HEADER}a.jpg,Anna,1,train\n"b, c.jpg",5,2,train\n/abs/d.jpg,-1,1,gallery\n')
  assert detect_layout(path).name == 'csv'
  index = read_layout(path)
  assert index.train.paths == (str(tmp_path / 'a.jpg'), str(tmp_path / 'b, c.jpg')) and index.root == str(tmp_path)
  assert index.identity_names[2] == 'Anna' and index.gallery.identity[0] == -1
  assert index.gallery.paths == ('/abs/d.jpg',)


@pytest.mark.parametrize(
  ('text', 'words'),
  [
    ('', 'no column path'),
    ('path;identity;camera;split\n', 'the first line must be'),
    ('path,identity,split\na,b,c\n', 'no column camera'),
    (HEADER, 'no images'),
    (f'{HEADER}a,b,1,train,x\n', 'line 2: the number of values differs'),
    (f'{HEADER}a,b,1,train\na,b\n', 'line 3: the number of values differs'),
    (f'{HEADER}a,,1,train\n', 'no identity'),
    (f'{HEADER}a,b,1,test\n', "split 'test' is not one of train, query"),
    (f'{HEADER}{"x" * 200_000},b,1,train\n', 'not CSV'),
  ],
)
def test_wrong_table_is_an_error(table, text, words):
  check_error(table(text), 'all.csv', words, layout='csv')


def test_folder_in_place_of_a_table_is_an_error(tmp_path):
  check_error(tmp_path, 'name the .csv file', layout='csv')
