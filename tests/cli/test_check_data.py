"""`dgnet check-data` reports what is wrong with a data set."""

import dataclasses
import shutil

import numpy as np
from PIL import Image
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.data.layouts import LAYOUTS, Count
from dgnet_jax.data.registry import read_layout
from tests.data.fakes import SMALL, write_fake
from tests.data.folders import write_image

CAMERA = '--config.data.camera_pattern=_c(?P<camera>[0-9])'
# Two training identities and two test identities, each seen by two cameras; all images differ.
VALID = [f'train/{person}/{person}_c{camera}.jpg' for person in ('Anna', 'Bob') for camera in (1, 2)]
VALID += [f'{split}/{person}/_c{c}.jpg' for split, c in (('query', 1), ('gallery', 2)) for person in ('Cleo', 'Dan')]


@pytest.fixture
def valid(tmp_path):
  """A data set without problems."""
  for seed, path in enumerate(VALID):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    write_image(tmp_path / path, seed=seed)
  return tmp_path


def run(capsys, root, *arguments):
  """Returns the exit status and what was printed."""
  status = 0
  try:
    main(['check-data', f'--root={root}', *map(str, arguments)])
  except SystemExit as stopped:
    status = stopped.code
  output = capsys.readouterr()
  return status, output.out + output.err


def test_valid_data_set_has_no_problems(capsys, valid):
  status, text = run(capsys, valid, CAMERA)
  assert status == 0, text
  assert 'data.layout=folders' in text and text.endswith('no problems\n')
  assert 'minimum 20x9, median 20x9, maximum 20x9' in text and '1 different sizes' in text
  assert 'note:' not in text and 'problem:' not in text


@pytest.mark.parametrize('layout', ['market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776', 'mars'])
def test_public_layouts_are_compared_with_published_counts(capsys, tmp_path, layout):
  status, text = run(capsys, write_fake(tmp_path / 'data', layout), f'--sheet={tmp_path / "sheet.png"}')
  row = LAYOUTS[layout]
  assert text.startswith(row.title) and row.note in text
  published = row.count('train', 'detected' if layout == 'cuhk03' else '')
  assert f'{published.images:,}{"" if published.verified else "?"}*' in text
  assert status == 0 and 'problem:' not in text and 'difference:' not in text
  is_compared = published.verified or layout == 'mars'  # whose number of cameras is
  assert (f'note: no count is that of {row.title}: taken for other images' in text) == is_compared
  with Image.open(tmp_path / 'sheet.png') as sheet:
    assert sheet.height > 7 * 128  # three people of train, two of query and of gallery


def test_equal_counts_are_no_problem(capsys, tmp_path, monkeypatch):
  root = write_fake(tmp_path, 'dukemtmc')
  counts = {split: Count(*SMALL[split]) for split in SMALL}
  cameras = read_layout(root).num_cameras
  row = dataclasses.replace(LAYOUTS['dukemtmc'], counts=counts, num_cameras=cameras)
  monkeypatch.setitem(LAYOUTS, 'dukemtmc', row)
  status, text = run(capsys, root)
  assert status == 0 and '*' not in text and '?' not in text


def test_some_counts_that_differ_have_their_own_status(capsys, tmp_path, monkeypatch):
  root = write_fake(tmp_path, 'dukemtmc')
  complete = {split: Count(*SMALL[split]) for split in SMALL}
  cameras = read_layout(root).num_cameras
  for row, line in (
    ({'counts': complete, 'num_cameras': cameras + 1}, f'difference: {cameras} cameras, {cameras + 1} were published'),
    ({'counts': complete | {'train': Count(7, 3)}}, 'difference: train: 6 images, 7 were published'),
  ):
    monkeypatch.setitem(LAYOUTS, 'dukemtmc', dataclasses.replace(LAYOUTS['dukemtmc'], **{'num_cameras': cameras} | row))
    status, text = run(capsys, root)
    assert status == 3 and line in text and 'problem:' not in text
    assert text.endswith('no problems\nbut not the complete DukeMTMC-reID: some counts are not the published ones\n')
  broken = next((root / 'query').rglob('*.jpg'))
  broken.write_bytes(b'')
  status, text = run(capsys, root)
  assert status == 1 and line in text and f'problem: {broken}: empty file' in text


def test_damaged_files_are_listed(capsys, valid):
  (valid / VALID[0]).write_bytes(b'')
  (valid / VALID[4]).write_bytes((valid / VALID[4]).read_bytes()[:-300])
  (valid / 'gallery' / 'Dan' / 'gone_c1.jpg').symlink_to('nowhere.jpg')
  status, text = run(capsys, valid, CAMERA, f'--sheet={valid / "sheet.png"}')
  assert status == 1 and text.endswith('3 problems\n') and (valid / 'sheet.png').is_file()
  assert f'problem: {valid / VALID[0]}: empty file' in text
  assert f'problem: {valid / VALID[4]}: unreadable (' in text and 'gone_c1.jpg: unreadable (No such file' in text


def test_images_in_two_splits_are_reported(capsys, valid):
  shutil.copy(valid / VALID[0], valid / 'gallery' / 'Cleo' / 'again_c3.jpg')
  shutil.copy(valid / VALID[0], valid / 'train' / 'Anna' / 'again_c3.jpg')
  shutil.copytree(valid / 'query', valid / 'multi_query')
  status, text = run(capsys, valid, CAMERA)
  assert status == 1 and text.endswith('2 problems\n')
  assert (
    'problem: 1 images have two identities: train/Anna/Anna_c1.jpg = gallery/Cleo/again_c3.jpg: Anna and Cleo' in text
  )
  assert 'train and gallery share 1 images: train/Anna/Anna_c1.jpg = gallery/Cleo/again_c3.jpg' in text
  assert 'note: 1 files are copies of another file in their split' in text


def test_identities_without_a_match_are_reported(capsys, valid):
  (valid / 'gallery' / 'Dan' / '_c2.jpg').rename(valid / 'gallery' / 'Dan' / '_c1.jpg')
  (valid / VALID[1]).unlink()
  status, text = run(capsys, valid, CAMERA)
  assert status == 1
  assert 'problem: query: 1 without a gallery image by another camera (query/Dan/_c1.jpg)' in text
  assert '1 identities with a single image, which is its own positive (Anna)' in text
  assert '1 identities seen by a single camera (Anna)' in text


def test_cameras_that_leave_no_match_are_named(capsys, valid):
  status, text = run(capsys, valid, '--config.data.camera_pattern=(?P<camera>c)')
  assert status == 1 and text.endswith('1 problem\n')
  assert 'none of the 2 queries has a match' in text and "query's own camera (the cameras are c)" in text


def test_people_in_train_and_test_are_reported(capsys, valid):
  (valid / 'gallery' / 'Anna').mkdir()
  write_image(valid / 'gallery' / 'Anna' / '_c3.jpg', seed=99)
  status, text = run(capsys, valid, CAMERA)
  assert status == 1 and 'problem: 1 identities are in train and in the test splits (Anna)' in text


def test_training_split_alone_is_valid(capsys, valid):
  for split in ('query', 'gallery'):
    shutil.rmtree(valid / split)
  status, text = run(capsys, valid, CAMERA)
  assert status == 0 and 'missing' in text and 'can be used for training but not for evaluation' in text


@pytest.mark.parametrize(
  ('arguments', 'words'),
  [
    (['--layout=duke'], 'invalid choice'),
    (['--config.data.box=labeled'], 'did you mean data.boxes?'),
    (['--config.batch_size=3'], 'only fields of data can be set'),
    (['--layout=market1501'], 'This looks like a folder for each identity: layout folders'),
    (['--config.data.root=x'], '--config.data.root: the command names its data itself'),
  ],
)
def test_mistakes_are_reported(capsys, valid, arguments, words):
  status, text = run(capsys, valid, *arguments)
  assert status == 2 and words in text


def test_folder_without_images_is_refused(capsys, tmp_path):
  assert run(capsys, tmp_path)[0] == run(capsys, tmp_path / 'nowhere')[0] == 2


def test_sheet_does_not_crop_images(capsys, tmp_path):
  folder = tmp_path / 'data' / 'train' / 'van'
  folder.mkdir(parents=True)
  Image.new('RGB', (300, 100), (200, 0, 0)).save(folder / 'a.png')
  Image.new('RGB', (100, 100), (0, 0, 200)).save(folder / 'b.png')
  run(capsys, tmp_path / 'data', f'--sheet={tmp_path / "sheet.png"}')
  with Image.open(tmp_path / 'sheet.png') as sheet:
    pixels = np.asarray(sheet).astype(int)
  blue = (np.abs(pixels - (0, 0, 200)) < 30).all(axis=-1)
  height, width = np.ptp(np.flatnonzero(blue.any(axis=1))), np.ptp(np.flatnonzero(blue.any(axis=0)))
  assert abs(height - width) <= 4 and (np.abs(pixels - (200, 0, 0)) < 30).all(axis=-1).sum() > 1000


@pytest.mark.parametrize(('name', 'title'), [('duke_mini', 'DukeMTMC-reID'), ('msmt17_mini', 'MSMT17')])
def test_real_crops_are_recognised(capsys, shared_data_dir, name, title):
  status, text = run(capsys, shared_data_dir / name)
  assert status == 0 and text.startswith(title) and text.count('missing') == 3
  assert ' share ' not in text and 'unreadable' not in text
