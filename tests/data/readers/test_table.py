"""CSV tables of images."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
import pytest

from dgnet_jax.data.index import LabeledImage
from dgnet_jax.data.readers.table import write_table
from dgnet_jax.data.registry import detect_layout, read_layout
from dgnet_jax.errors import UserError
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
    ('path;identity;camera;split\n', 'no images'),
    ('path:identity:camera:split\n', 'the first line must be'),
    ('path,identity,camera,split,Camera\n', 'two columns camera'),
    (f'{HEADER}a,b,1,train\n\na,b,NaN,train\n', "line 4: no camera ('NaN' is a missing value)"),
    (f'{HEADER}a,"1,234",1,train\n', "line 2: no identity ('1,234' has separators of thousands"),
    (f'sep=,\n{HEADER}a,1,1.5,train\n', "line 3: no camera ('1.5' is not a whole number)"),
    (f'{HEADER}a,nan,1,train\nb,-2,1,train\n', "2 wrong rows: line 2: no identity ('nan' is"),
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


ROWS = (
  ('a.jpg', '1', '1', 'train'),
  ('b.jpg', '1.0', 'c1', 'train'),
  ('c.jpg', '0002', '02', ' Train'),
  ('d.jpg', ' 3', '1', 'query'),
  ('e.jpg', '0003', 'cam_2', 'GALLERY'),
)


@pytest.mark.parametrize('separator', [',', ';', '\t', '|'])
@pytest.mark.parametrize('encoding', ['utf-8', 'utf-8-sig', 'utf-16'])
def test_tables_of_spreadsheets_are_read(tmp_path, separator, encoding):
  rows = [('', 'Path', ' identity', 'CAMERA', 'split'), *((str(i), *row) for i, row in enumerate(ROWS)), ('',) * 5]
  path = tmp_path / 'all.csv'
  path.write_text('\r\n'.join([f'sep={separator}', *map(separator.join, rows), '']), encoding=encoding, newline='')
  index = read_layout(path)
  assert [split.identity.tolist() for split in index.splits.values()] == [[1, 1, 2], [3], [3], []]
  assert [split.camera.tolist() for split in index.splits.values()] == [[1, 1, 2], [1], [2], []]
  assert index.identity_names[1] == '0001' and index.camera_names == {1: '1', 2: '2'}


@pytest.mark.parametrize(
  ('cells', 'number'),
  [(('-1', '-1.0', 'junk', ' JUNK '), -1), (('0', '0.0', '0000', 'distractor', 'Distractors', 'background'), 0)],
)
def test_junk_and_distractors_have_many_names(table, cells, number):
  index = read_layout(
    table(HEADER + 'q.jpg,1,1,query\n' + ''.join(f'{i},{cell},1,gallery\n' for i, cell in enumerate(cells)))
  )
  assert index.gallery.identity.tolist() == [number] * len(cells)


def test_zero_is_an_identity_if_it_is_trained_on_or_queried_in_any_form(table):
  index = read_layout(table(f'{HEADER}a,0.0,1,query\nb,0000,2,gallery\nc,0,3,gallery\n'))
  assert index.query.identity[0] > 0 and (index.gallery.identity == index.query.identity[0]).all()


labels = st.one_of(st.text(min_size=1, max_size=5), st.sampled_from(['1', '01', '1.0', 'c1', 'nan', ' x', 'x']))


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=4))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_written_tables_tell_the_same_people_and_cameras_apart(tmp_path, pairs):
  images = [
    LabeledImage(str(tmp_path / f'{i}.jpg'), f'x{identity}', camera) for i, (identity, camera) in enumerate(pairs)
  ]
  images += [image._replace(path=f'{image.path}2', identity=image.identity[1:]) for image in images]
  images = [image for image in images if image.identity.lower() not in ('junk', 'distractor', '0', '00', '000', '-1')]
  try:
    write_table(tmp_path / 'all.csv', {'train': images})
  except UserError as error:
    assert 'table' in str(error)
    return
  index = read_layout(tmp_path / 'all.csv')
  for names, numbers in ((1, index.train.identity), (2, index.train.camera)):
    rows = sorted(images)
    pairs_of_names = {(row[names], number) for row, number in zip(rows, numbers.tolist(), strict=True)}
    assert len(pairs_of_names) == len({row[names] for row in rows}) == len(set(numbers.tolist()))
