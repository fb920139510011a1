"""`dgnet prepare` converts, splits and merges data sets."""

import csv
import os
import shutil

import numpy as np
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.data.layouts import SPLITS
from dgnet_jax.data.registry import read_layout
from tests.data.fakes import write_fake
from tests.data.folders import write_image, write_market

PUBLIC = ('market1501', 'dukemtmc', 'msmt17', 'cuhk03', 'veri776')


def run(*arguments):
  main(['prepare', *map(str, arguments)])


def error_of(capsys, *arguments):
  with pytest.raises(SystemExit) as caught:
    run(*arguments)
  assert caught.value.code == 2
  return capsys.readouterr().err


def read(root, layout=''):
  return read_layout(root, layout)


def content(index):
  """Split, bytes, identity and camera of every image, sorted."""
  rows = []
  for name, split in index.splits.items():
    for path, identity, camera in zip(split.paths, split.identity.tolist(), split.camera.tolist(), strict=True):
      with open(path, 'rb') as file:
        rows.append((name, file.read(), identity, camera))
  return sorted(rows)


@pytest.fixture
def market(tmp_path):
  """With junk, a distractor and multi-queries."""
  (tmp_path / 'market').mkdir()
  return write_market(tmp_path / 'market', multi_query=('0003_c1s1_000152_00.jpg',))


@pytest.mark.parametrize('layout', PUBLIC)
def test_to_release_keeps_all_images(tmp_path, layout):
  root = write_fake(tmp_path / 'data', layout)
  run('to-release', root, f'--out={tmp_path / "out"}')
  index = read(tmp_path / 'out')
  assert index.name == 'release' and content(index) == content(read(root))
  assert sorted(path.name for path in (tmp_path / 'out' / 'pytorch').iterdir()) == ['gallery', 'query', 'train_all']


def test_from_release_inverts_to_release(tmp_path, market):
  run('to-release', market, f'--out={tmp_path / "release"}')
  assert (tmp_path / 'release/pytorch/gallery/-1/-1_c1s1_000151_00.jpg').is_file()
  run('from-release', tmp_path / 'release', f'--out={tmp_path / "again"}')
  before, after = read(market), read(tmp_path / 'again')
  assert after.name == 'market1501' and content(before) == content(after)
  for name in SPLITS:  # the same file names
    assert [os.path.relpath(path, market) for path in before.splits[name].paths] == [
      os.path.relpath(path, tmp_path / 'again') for path in after.splits[name].paths
    ]


def test_from_release_renames_files_of_other_data_sets(tmp_path):
  root = write_fake(tmp_path / 'data', 'dukemtmc')
  run('to-release', root, f'--out={tmp_path / "release"}')
  run('from-release', tmp_path / 'release', f'--out={tmp_path / "again"}')
  assert read(tmp_path / 'again').name == 'market1501'
  assert content(read(tmp_path / 'again')) == content(read(root))


def test_from_release_refuses_cameras_with_two_digits(tmp_path, capsys):
  run('to-release', write_fake(tmp_path / 'data', 'veri776', {'train': (40, 2), 'query': (2, 2), 'gallery': (4, 2)}),
      f'--out={tmp_path / "release"}')  # fmt: skip
  assert "camera 20 does not fit into Market-1501's names" in error_of(
    capsys, 'from-release', tmp_path / 'release', f'--out={tmp_path / "again"}'
  )
  assert not (tmp_path / 'again').exists()


@pytest.mark.parametrize('files', ['copy', 'hardlink', 'symlink'])
def test_files_are_copied_or_linked(tmp_path, market, files):
  (tmp_path / 'linked').symlink_to(market)
  run('to-release', tmp_path / 'linked', f'--out={tmp_path / "out"}', f'--files={files}')
  path = tmp_path / 'out/pytorch/query/0003/0003_c1s1_000151_00.jpg'
  source = market / 'query' / path.name
  assert path.read_bytes() == source.read_bytes() and path.is_symlink() == (files == 'symlink')
  assert os.path.samefile(path, source) == (files != 'copy')


def test_files_of_the_same_name_get_different_names(tmp_path):
  for folder in ('a', 'b'):
    (tmp_path / folder).mkdir()
    write_image(tmp_path / folder / 'x.jpg', seed=ord(folder))
  (tmp_path / 'all.csv').write_text('path,identity,camera,split\na/x.jpg,Anna,1,train\nb/x.jpg,Anna,1,train\n')
  run('to-release', tmp_path / 'all.csv', f'--out={tmp_path / "out"}')
  assert sorted(os.listdir(tmp_path / 'out/pytorch/train_all/0001')) == ['0001_c1_x.jpg', '0001_c1_x_1.jpg']
  assert len(read(tmp_path / 'out').train) == 2


def test_nothing_is_written_after_a_failure(tmp_path, market, capsys):
  (market / 'query' / '0009_c1s1_000001_00.jpg').symlink_to('nowhere.jpg')
  assert '0009_c1s1_000001_00.jpg: copy to' in error_of(capsys, 'to-release', market, f'--out={tmp_path / "out"}')
  assert sorted(path.name for path in tmp_path.iterdir()) == ['market']
  assert 'already exists' in error_of(capsys, 'to-release', market, f'--out={market}')


class TestSplit:
  @pytest.fixture
  def data(self, tmp_path):
    (tmp_path / 'data').mkdir()
    names = tuple(
      f'{person:04}_c{camera}s1_{frame:06}_00.jpg'
      for person in range(1, 9)
      for frame, camera in enumerate((1, 1, 2) if person < 8 else (1, 1))
    )
    return write_market(tmp_path / 'data', train=names)

  def test_identities_are_held_out(self, tmp_path, data):
    out = tmp_path / 'tables' / 'val.csv'
    run('split', data, '--val-identities=3', '--seed=1', f'--out={out}')
    index, complete = read(out), read(data)
    assert index.num_identities == 5 and len(np.unique(index.gallery.identity)) == 3
    assert not set(index.train.identity) & set(index.gallery.identity)
    assert set(index.query.identity) <= set(index.gallery.identity)
    assert len(index.train) + len(index.gallery) == len(complete.train)
    assert set(map(os.path.realpath, index.train.paths)) < set(map(os.path.realpath, complete.train.paths))
    with out.open(newline='') as file:
      assert not any(os.path.isabs(row['path']) for row in csv.DictReader(file))

  def test_seed_selects_the_identities(self, tmp_path, data):
    texts = []
    for number, seed in enumerate((0, 0, 1, 2)):
      run('split', data, '--val-identities=3', f'--seed={seed}', f'--out={tmp_path / f"{number}.csv"}')
      texts.append((tmp_path / f'{number}.csv').read_text())
    assert texts[0] == texts[1] and len(set(texts)) > 1

  def test_table_passes_the_data_check(self, tmp_path, data):
    run('split', data, '--val-identities=6', f'--out={tmp_path / "val.csv"}')
    main(['check-data', f'--root={tmp_path / "val.csv"}'])  # exits with status 1 if there are problems

  @pytest.mark.parametrize('count', [0, 7, 8, -1])
  def test_impossible_numbers_of_identities_are_refused(self, tmp_path, data, capsys, count):
    message = error_of(capsys, 'split', data, f'--val-identities={count}', f'--out={tmp_path / "val.csv"}')
    assert f'cannot hold out {count} of 8' in message and not (tmp_path / 'val.csv').exists()

  def test_table_must_be_named_csv(self, tmp_path, data, capsys):
    assert 'must end in .csv' in error_of(capsys, 'split', data, '--val-identities=2', f'--out={tmp_path / "val"}')


class TestMerge:
  def test_identities_and_cameras_stay_different(self, tmp_path, market):
    others = [write_fake(tmp_path / layout, layout) for layout in ('msmt17', 'dukemtmc')]
    shutil.copytree(market, tmp_path / 'again')
    out = tmp_path / 'joint.csv'
    run('merge', market, *others, f'market1501={tmp_path / "again"}', f'--out={out}')
    parts, joint = [read(root) for root in (market, *others, tmp_path / 'again')], read(out)
    for name in SPLITS:
      assert len(joint.splits[name]) == sum(len(part.splits[name]) for part in parts)
    assert joint.num_identities == sum(part.num_identities for part in parts)
    assert joint.num_cameras == sum(part.num_cameras for part in parts)
    for number in (-1, 0):
      assert (joint.gallery.identity == number).sum() == 2
    names = set(joint.identity_names.values())
    assert {'market1501 0002', 'market1501-2 0002', 'msmt17 train 0000', 'dukemtmc 0001'} <= names

  def test_table_can_be_converted_to_folders(self, tmp_path, market):
    run('merge', market, write_fake(tmp_path / 'duke', 'dukemtmc'), f'--out={tmp_path / "joint.csv"}')
    run('to-release', tmp_path / 'joint.csv', f'--out={tmp_path / "out"}', '--files=hardlink')
    assert content(read(tmp_path / 'out')) == content(read(tmp_path / 'joint.csv'))


def test_data_fields_are_applied(tmp_path, capsys):
  root = write_fake(tmp_path / 'msmt', 'msmt17', {'train': (20, 4), 'query': (2, 2), 'gallery': (4, 2)})
  run('to-release', root, f'--out={tmp_path / "out"}', '--config.data.train_with_val=False')
  assert len(read(tmp_path / 'out').train) == 18
  assert 'only fields of data' in error_of(capsys, 'to-release', root, f'--out={tmp_path / "b"}', '--config.seed=1')


def test_real_crops_can_be_merged(tmp_path, shared_data_dir):
  roots = [shared_data_dir / name for name in ('market_mini', 'duke_mini', 'msmt17_mini')]
  run('merge', *roots, f'--out={tmp_path / "joint.csv"}')
  assert read(tmp_path / 'joint.csv').num_identities == 58 + 20 + 14
