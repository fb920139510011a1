"""Identities that are held out for validation."""

import shutil

import numpy as np
import pytest

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.holdout import hold_out
from dgnet_jax.data.index import LabeledImage, make_index
from dgnet_jax.data.matches import has_match
from dgnet_jax.errors import UserError
from tests.data.folders import write_image

# Identity and cameras of its images, in order of their paths.
PEOPLE = {
  'ann': 'aabbb',
  'ben': 'ab',
  'cleo': 'aaaa',
  'dan': 'abc',
  'eve': 'aab',
  'fay': 'bbcc',
  'gus': 'a',
}
CAN_BE_RANKED = {'ann', 'ben', 'dan', 'eve', 'fay'}


def index_of(people, names=lambda identity, i: f'{identity}_{i}.jpg'):
  images = [
    LabeledImage(names(identity, i), identity, camera)
    for identity, cameras in people.items()
    for i, camera in enumerate(cameras)
  ]
  others = [LabeledImage('q.jpg', 'someone', 'a')], [LabeledImage('g.jpg', 'someone', 'b')]
  return make_index('folders', 'photos', {'train': images, 'query': others[0], 'gallery': others[1]})


def people_in(index, split):
  return {index.identity_names[identity] for identity in split.identity.tolist()}


class TestHoldOut:
  @pytest.mark.parametrize('count', [1, 3, 5])
  def test_divides_images_by_identity(self, count):
    index = hold_out(whole := index_of(PEOPLE), count)
    query, gallery = index.validation.query, index.validation.gallery
    assert people_in(index, query) == people_in(index, gallery) <= CAN_BE_RANKED
    assert len(people_in(index, query)) == count
    assert people_in(index, index.train) == set(PEOPLE) - people_in(index, query)
    assert sorted(index.train.paths + query.paths + gallery.paths) == sorted(whole.train.paths)
    for split in (index.train, query, gallery):
      for path, identity, camera in zip(split.paths, split.identity, split.camera, strict=True):
        i = whole.train.paths.index(path)
        assert (identity, camera) == (whole.train.identity[i], whole.train.camera[i])
    assert has_match(query, gallery).all()
    assert index.query is whole.query and index.gallery is whole.gallery  # the test splits stay

  def test_a_query_is_an_image_by_each_camera_that_leaves_others(self):
    validation = hold_out(index_of(PEOPLE), 5).validation
    assert set(validation.query.paths) == {
      *('ann_0.jpg', 'ann_2.jpg'),
      'ben_0.jpg',  # each camera has one image: that by the first is the query
      'dan_0.jpg',
      'eve_0.jpg',
      *('fay_0.jpg', 'fay_2.jpg'),
    }

  def test_fewer_identities_are_a_part_of_more_and_order_does_not_matter(self):
    held = [people_in(index := hold_out(index_of(PEOPLE), n), index.validation.query) for n in range(1, 6)]
    assert all(fewer < more for fewer, more in zip(held, held[1:], strict=False))
    turned = index_of(dict(reversed(PEOPLE.items())), names=lambda identity, i: f'{9 - ord(identity[0])}_{i}.jpg')
    assert people_in(turned, hold_out(turned, 2).validation.query) == held[1]

  def test_classes_are_numbered_anew(self):
    index = hold_out(index_of(PEOPLE), 3)
    assert index.num_identities == 4
    assert sorted(set(index.train.classes.tolist())) == [0, 1, 2, 3]

  def test_unknown_cameras(self):
    index = hold_out(index_of({name: 'a' * len(cameras) for name, cameras in PEOPLE.items()}), 4)
    query, gallery = index.validation.query, index.validation.gallery
    assert len(query) == 4 and has_match(query, gallery).all()
    assert 'gus' not in people_in(index, query)

  @pytest.mark.parametrize(
    ('people', 'count', 'most', 'reason'),
    [
      (PEOPLE, 6, 5, 'of 7 training identities in photos 5 have images by two cameras'),
      ({'ann': 'ab', 'ben': 'ab', 'cleo': 'ab'}, 2, 1, '2 must be left to train on'),
      ({'ann': 'aa', 'ben': 'bb', 'cleo': 'c'}, 1, 0, '0 have images by two cameras'),
      ({'ann': 'a', 'ben': 'a', 'cleo': 'a'}, 1, 0, '0 have two images'),
    ],
  )
  def test_too_few_identities(self, people, count, most, reason):
    with pytest.raises(UserError, match=f'data.val_identities={count}: .*{reason}.*at most {most}$'):
      hold_out(index_of(people), count)


class TestTracks:
  @pytest.fixture
  def index(self):
    """Ann has two tracks by the first camera and one by the second, Ben one by each."""
    tracks = {'ann': ('a1', 'a2', 'b1'), 'ben': ('a1', 'b1'), 'cleo': ('a1',), 'dan': ('a1',)}
    images = [
      LabeledImage(f'{identity}_{track}_{i}.jpg', identity, track[0], f'{identity}_{track}')
      for identity, names in tracks.items()
      for track in names
      for i in range(3)
    ]
    return make_index('mars', 'videos', {'train': images})

  def test_are_known_and_whole(self, index):
    held = hold_out(index, 2)
    query, gallery = held.validation.query, held.validation.gallery
    assert {path[:-6] for path in query.paths} == {'ann_a1', 'ben_a1'}
    assert len(query) == 2 * 3 and len(gallery) == 3 * 3 and has_match(query, gallery).all()
    for split in (held.train, query, gallery):
      by_track = {}
      for path, track in zip(split.paths, split.track.tolist(), strict=True):
        by_track.setdefault(track, []).append(path[:-6])
      assert all(len(names) == 3 and len(set(names)) == 1 for names in by_track.values())

  def test_one_track_cannot_be_divided(self, index):
    by_one = [LabeledImage(path, path[:3], 'a', path[:6]) for path in index.train.paths if '_a' in path]
    with pytest.raises(UserError, match='of 4 training identities in videos 1 have two tracks'):
      hold_out(make_index('mars', 'videos', {'train': by_one}), 2)


class TestOpenDataset:
  @pytest.fixture
  def photos(self, tmp_path):
    for split, people in {'train': ('ann', 'ben', 'cleo'), 'query': ('x',), 'gallery': ('x',)}.items():
      for identity in people:
        (tmp_path / split / identity).mkdir(parents=True)
        for i in range(2):
          write_image(tmp_path / split / identity / f'{split}{i}.png')
    return DataConfig(layout='folders', root=str(tmp_path), val_identities=1)

  def test_holds_out_if_the_training_split_is_needed(self, photos, tmp_path):
    index = open_dataset(photos, tmp_path)
    assert index.num_identities == 2 and len(index.validation.query) == 1 and len(index.validation.gallery) == 1
    assert np.intersect1d(index.train.identity, index.validation.query.identity).size == 0

  def test_without_test_images_names_the_split_that_can_be_evaluated(self, photos, tmp_path, lines):
    shutil.rmtree(tmp_path / 'query')
    open_dataset(photos, tmp_path)
    expected = 'only the held-out identities can be evaluated (--config.evaluation.split=validation): '
    assert any(line.startswith(expected) for line in lines)
    assert not any('but not evaluated' in line for line in lines)

  def test_leaves_the_test_splits_alone(self, photos, tmp_path):
    index = open_dataset(photos, tmp_path, needs=('query', 'gallery'))
    assert index.num_identities == 3 and index.validation is None
