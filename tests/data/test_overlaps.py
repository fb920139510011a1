"""People and images in two splits, and images of two identities."""

import pytest

from dgnet_jax.data.index import LabeledImage, make_index
from dgnet_jax.data.overlaps import digests, identity_problems, image_problems, quick_problems, without_training
from dgnet_jax.data.registry import read_layout
from tests.data.folders import write_images, write_market

PATHS = ('train/Anna/1.jpg', 'train/Ben/1.jpg', 'query/Cleo/1.jpg', 'gallery/Cleo/2.jpg', 'gallery/-1/1.jpg')


def index_of(**splits):
  """An index of (path, identity, camera) rows."""
  return make_index(
    'csv', 'r', {name: [LabeledImage(f'r/{row[0]}', *row[1:]) for row in rows] for name, rows in splits.items()}
  )


TRAIN = [('a', 'Anna', '1'), ('b', 'Ben', '1')]
QUERY = [('q', 'Cleo', '1')]
GALLERY = [('g', 'Cleo', '2'), ('j', 'junk', '1'), ('d', 'distractor', '1')]


def test_disjoint_splits_have_no_problem():
  assert not quick_problems(index_of(train=TRAIN, query=QUERY, gallery=GALLERY))


@pytest.mark.parametrize('split', ['query', 'gallery', 'multi_query'])
def test_people_in_train_and_a_test_split_are_named(split):
  splits = {'train': TRAIN, 'query': QUERY, 'gallery': GALLERY, 'multi_query': []}
  splits[split] = [*splits[split], ('x', 'Ben', '3')]
  (problem,) = quick_problems(index_of(**splits))
  assert problem.startswith('1 identities are in train and in the test splits (Ben)')
  assert not quick_problems(without_training(index_of(**splits)))


def test_junk_and_distractors_are_nobody():
  train = [*TRAIN, ('0', '0', '1')]  # an identity here, as in MSMT17
  assert not quick_problems(index_of(train=train, query=QUERY, gallery=GALLERY))


@pytest.mark.parametrize(
  ('splits', 'problems'),
  [
    (
      {'gallery': [*GALLERY, ('a', 'Cleo', '2')]},
      ['train and gallery share 1 images: a', '1 images have two identities'],
    ),
    ({'gallery': [*GALLERY, ('./a', 'junk', '2')]}, ['train and gallery share 1 images: a']),
    ({'gallery': [*GALLERY, ('q', 'Cleo', '2')]}, ['query and gallery share 1 images: q']),
    ({'gallery': [*GALLERY, ('q', 'Cleo', '1')]}, []),  # left out of the query's ranking
    ({'multi_query': [('q', 'Cleo', '1')]}, []),
    ({'multi_query': [('g', 'Cleo', '2')]}, []),  # a match of queries by other cameras only
    (
      {'multi_query': [('a', 'Cleo', '1')]},
      ['train and multi_query share', '1 images have two identities: a: Anna and Cleo'],
    ),
    ({'train': [*TRAIN, ('b', 'Anna', '1')]}, ['1 images have two identities: b: Anna and Ben']),
    ({'train': [*TRAIN, ('b', 'Ben', '1')]}, []),  # a copy within a split
    ({'gallery': [*GALLERY, ('g', 'junk', '2')]}, []),
    ({'gallery': [*GALLERY, ('g', 'distractor', '2')]}, ['1 images have two identities: g: distractor and Cleo']),
  ],
)
def test_images_that_are_listed_twice(splits, problems):
  found = quick_problems(index_of(**{'train': TRAIN, 'query': QUERY, 'gallery': GALLERY} | splits))
  assert len(found) == len(problems) and all(text in problem for text, problem in zip(problems, found, strict=True))


def test_copies_are_found_by_content(tmp_path):
  root = write_images(tmp_path, *PATHS)
  (root / 'gallery' / 'Cleo' / '3.jpg').write_bytes((root / PATHS[0]).read_bytes())
  (root / 'train' / 'Ben' / '2.jpg').hardlink_to(root / PATHS[0])
  (root / 'train' / 'Ben' / '3.jpg').write_bytes(b'')
  (root / 'train' / 'Ben' / '4.jpg').symlink_to('nowhere')  # unreadable, so unknown
  index = read_layout(root, 'folders')
  assert not quick_problems(index)
  assert image_problems(index, digests(index, threads=2)) == [
    'train and gallery share 1 images: train/Anna/1.jpg = gallery/Cleo/3.jpg',
    '1 images have two identities: train/Anna/1.jpg = train/Ben/2.jpg = gallery/Cleo/3.jpg: Anna and Ben and Cleo',
  ]


def test_market_has_no_problem(tmp_path):
  index = read_layout(write_market(tmp_path))
  assert not [*identity_problems(index), *image_problems(index, digests(index, threads=2))]
