"""The library on the user's own images: results equal those of evaluation, without its data."""

import functools
import pathlib
import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import dgnet_jax
from dgnet_jax.api import Model
from dgnet_jax.config.loading import complete_config
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation.embeddings import FINE_ONLY, Embeddings
from dgnet_jax.evaluation.ranking import best_matches
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.training.checkpoints import Checkpoints
from tests.inference.linear_networks import HEIGHT, WIDTH, NestedCodes, linear_predictor, random_images
from tests.tiny_run import correspondence_config, frozen, save_checkpoint, tiny_config

SIZE = (32, 16)


@pytest.fixture(scope='module')
def model(tiny_run, tmp_path_factory):
  """Loaded from a copy of the checkpoints alone: no data, no config.json, no teacher."""
  _, workdir, _ = tiny_run
  folder = tmp_path_factory.mktemp('copy') / 'run'
  shutil.copytree(workdir / 'checkpoints', folder / 'checkpoints')
  return dgnet_jax.load(folder)


@pytest.fixture(scope='module')
def images(tiny_run):
  _, _, index = tiny_run
  return list(index.query.paths[::2][:5])


def assert_close(a, b):
  np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)


def test_load_takes_the_newest_checkpoint_or_the_named_one(tiny_run, model):
  _, workdir, _ = tiny_run
  assert (model.step, model.num_identities, model.image_size_hw) == (7, 4, SIZE)
  assert 'step 7' in repr(model)
  older = dgnet_jax.load(workdir / 'checkpoints' / '3')
  assert older.step == 3 and older.workdir == workdir and older.config.seed == 0
  assert dgnet_jax.load(workdir / 'checkpoints').step == 7


def test_embeddings_are_those_of_evaluation_at_length_one(tiny_run, model, images):
  config, workdir, _ = tiny_run
  halves = load_predictor(config, workdir).embed(ImageFiles(images, SIZE)).reshape(len(images), 2, -1)
  for alpha, shares in ((None, (2 / 3, 1 / 3)), (0.0, (1, 0)), (FINE_ONLY, (0, 1)), (3.0, (1 / 4, 3 / 4))):
    embeddings = model.embed(images, alpha=alpha)
    np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-6)
    expected = (halves * np.sqrt(shares)[:, None]).reshape(embeddings.shape)
    np.testing.assert_allclose(embeddings, expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(model.embed(images), model.embed(images))


@pytest.mark.parametrize('alpha', [None, 0.0, FINE_ONLY, 2.0])
def test_dot_products_of_embeddings_are_the_scores(model, images, alpha):
  scores = model.embed(images, alpha=alpha) @ model.embed(images, alpha=alpha).T
  for query, matches in zip(scores, model.rank(images, images, alpha=alpha), strict=True):
    np.testing.assert_allclose([match.score for match in matches], query[[m.index for m in matches]], atol=1e-6)
    assert matches[0].score == pytest.approx(1, abs=1e-6)


def test_an_image_is_a_path_a_pil_image_or_an_array(model, images):
  expected = model.embed(images)[:1]
  with Image.open(images[0]) as image:
    array = np.asarray(image)
    for form in (images[0], [images[0]], image, array, array[None]):
      np.testing.assert_array_equal(model.embed(form), expected)


def test_swap_equals_that_of_the_predictor(tiny_run, model, images):
  config, workdir, _ = tiny_run
  structures, appearances = ImageFiles(images[:3], SIZE), ImageFiles(images[2:], SIZE)
  expected = load_predictor(config, workdir).swap(structure_from=structures, appearance_from=appearances)
  swapped = model.swap(structure_from=images[:3], appearance_from=images[2:])
  assert swapped.dtype == np.uint8
  assert_close(swapped, expected)
  assert_close(model.swap(structure_from=images[1], appearance_from=images[3]), expected[1:2])


def test_iter_swap_yields_single_images(model, images):
  expected = model.swap(structure_from=images[0], appearance_from=images[:3])
  swaps = model.iter_swap(structure_from=images[0], appearance_from=images[:3])
  np.testing.assert_array_equal(next(swaps), expected[0])
  assert len(list(swaps)) == 2


def test_iter_swap_raises_at_the_call(tiny_run, images):
  model = dgnet_jax.load(tiny_run[1])
  with pytest.raises(UserError, match='2 structures and 3 appearances'):
    model.iter_swap(structure_from=images[:2], appearance_from=images[2:])
  with pytest.raises(UserError, match=r'absent\.jpg'):
    model.iter_swap(structure_from=images[0], appearance_from='absent.jpg')
  without_generator = Model(linear_predictor(generator=None), model.config, model.workdir)
  with pytest.raises(UserError, match='no generator'):
    without_generator.iter_swap(structure_from=images[0], appearance_from=images[0])


def test_swap_grid_contains_every_swap(model, images):
  grid = model.swap_grid(structure_from=images[:2], appearance_from=images[2:])
  assert grid.shape == (2, 3, *SIZE, 3)
  for i in range(2):
    assert_close(grid[i], model.swap(structure_from=images[i], appearance_from=images[2:]))


def test_a_gallery_on_disk_ranks_as_one_in_memory(model, images, tmp_path):
  pytest.importorskip('pyarrow')
  model.store_gallery(tmp_path, images[1])  # a single path
  model.store_gallery(tmp_path, images[1:], dgnet_jax.BuildOptions(identity_pattern='^(?P<identity>[0-9]+)_'))
  stored, memory = dgnet_jax.open_gallery(tmp_path), model.gallery(images[1:])
  assert stored.paths == memory.paths and len(stored) == 4
  np.testing.assert_allclose(stored.features, memory.features, atol=1e-6)
  for alpha in (None, FINE_ONLY):
    a, b = (model.rank(images[0], gallery, alpha=alpha, count=3)[0] for gallery in (stored, memory))
    assert [match.path for match in a] == [match.path for match in b] and len(a) == 3
    np.testing.assert_allclose([match.score for match in a], [match.score for match in b], atol=1e-6)
  assert a[0].identity == pathlib.Path(a[0].path).name[:4] and b[0].identity == '' and a[0].same_person is None


def test_interpolation_ends_at_the_swaps(model, images):
  a, b, c = images[:3]
  clothes = model.interpolate(structure_from=a, appearance_from=[b, c], steps=5)
  assert_close(clothes[[0, -1]], model.swap(structure_from=a, appearance_from=[b, c]))
  pose = model.interpolate(structure_from=[a, b], appearance_from=c, steps=4)
  assert_close(pose[[0, -1]], model.swap(structure_from=[a, b], appearance_from=c))
  assert len(clothes) == 5 and len(pose) == 4
  code = model.appearance_code([b, c]).mean(axis=0, keepdims=True)
  assert_close(clothes[2], model.decode(model.structure_code(a), code)[0])


def test_codes_may_be_pytrees(tmp_path):
  config = tiny_config()
  config.data.image_size_hw = (HEIGHT, WIDTH)
  model = Model(linear_predictor(networks=NestedCodes()), frozen(config), tmp_path)
  structures, appearances = list(random_images(2)), list(random_images(3, seed=1))
  grid = model.swap_grid(structure_from=structures, appearance_from=appearances)
  for i in range(2):
    assert_close(grid[i], model.swap(structure_from=structures[i], appearance_from=appearances))
  frames = model.interpolate(structure_from=structures, appearance_from=appearances[0], steps=3)
  assert_close(frames[[0, -1]], grid[:, 0])


@pytest.fixture(scope='module')
def fetching_model(tmp_path_factory):
  """A run of the other design of the generator."""
  workdir = tmp_path_factory.mktemp('correspondence')
  save_checkpoint(frozen(correspondence_config()), workdir, num_identities=4, step=1)
  return dgnet_jax.load(workdir)


class TestFetchedClothes:
  def test_grid_and_interpolation_contain_the_swaps(self, fetching_model, images):
    model, (a, b, c) = fetching_model, images[:3]
    grid = model.swap_grid(structure_from=[a, b], appearance_from=[b, c])
    assert_close(grid[0], model.swap(structure_from=a, appearance_from=[b, c]))
    clothes = model.interpolate(structure_from=a, appearance_from=[b, c], steps=5)
    assert_close(clothes[[0, -1]], grid[0])
    assert not np.array_equal(clothes[2], clothes[0]) and not np.array_equal(clothes[2], clothes[-1])
    pose = model.interpolate(structure_from=[a, b], appearance_from=c, steps=3)
    assert_close(pose[[0, -1]], grid[:, 1])

  def test_trace_says_where_the_pixels_of_a_swap_come_from(self, fetching_model, images):
    a, b = images[:2]
    trace = fetching_model.trace(structure_from=[a, b], appearance_from=[b, a])
    assert_close(trace['image'], fetching_model.swap(structure_from=[a, b], appearance_from=[b, a]))
    assert trace['place'].shape == (2, *SIZE, 2) and trace['fetched'].shape == (2, *SIZE, 3)
    for name in ('mask', 'trust'):
      assert trace[name].shape == (2, *SIZE) and 0 <= trace[name].min() and trace[name].max() <= 1
    # Where nothing is generated, the structure image is left.
    kept = trace['mask'] < 1e-3
    assert_close(trace['image'][kept], fetching_model.pixels([a, b])[kept])

  def test_several_images_of_one_person_dress_every_structure(self, fetching_model, images):
    model, (a, b, c) = fetching_model, images[:3]
    together = model.swap(structure_from=[a, b, c], appearance_from=[b, c], one_person=True)
    assert together.shape == (3, *SIZE, 3)
    alone = model.swap(structure_from=[a, b, c], appearance_from=c)
    assert_close(model.swap(structure_from=[a, b, c], appearance_from=c, one_person=True), alone)
    structures, donors = model.pixels([a, b, c]), np.stack([model.pixels([b, c])] * 3)
    assert_close(model._predictor.swap_several(structure_from=structures, appearance_from=donors), together)
    assert_close(model.swap(structure_from=[a, b, c], appearance_from=[c, c], one_person=True), alone)
    assert not np.array_equal(together, alone)

  def test_another_design_cannot_be_traced(self, model, images):
    with pytest.raises(UserError, match='correspondence'):
      model.trace(structure_from=images[:1], appearance_from=images[1:2])

  def test_numbers_of_traced_images_must_be_equal(self, fetching_model, images):
    with pytest.raises(UserError, match='equal'):
      fetching_model.trace(structure_from=images[:1], appearance_from=images[:2])


def test_appearance_codes_of_one_person_are_averaged(model, images):
  a, b, c = images[:3]
  together = model.swap(structure_from=[a, b], appearance_from=[b, c], one_person=True)
  code = np.repeat(model.appearance_code([b, c]).mean(axis=0, keepdims=True), 2, axis=0)
  assert_close(together, model.decode(model.structure_code([a, b]), code))


def test_ranking_equals_that_of_evaluation(tiny_run, model, images):
  config, _, index = tiny_run
  distractors = (np.zeros(len(paths), int) for paths in (images, index.gallery.paths))  # nothing is junk
  query, gallery = (
    Embeddings(model.gallery(list(paths)).features, zeros, zeros)
    for paths, zeros in zip((images, index.gallery.paths), distractors, strict=True)
  )
  for alpha in (None, 0.0, FINE_ONLY, 2.0):
    weight = config.evaluation.alpha if alpha is None else alpha
    best = best_matches(query, gallery, alpha=weight, count=6)
    rankings = model.rank(images, list(index.gallery.paths), alpha=alpha, count=6)
    for matches, expected in zip(rankings, best, strict=True):
      assert [match.index for match in matches] == expected.tolist()
      assert [match.path for match in matches] == [index.gallery.paths[j] for j in expected]


def test_the_same_image_scores_one(model, images):
  (matches,) = model.rank(images[1], images)
  assert (matches[0].path, matches[0].index) == (images[1], 1) and len(matches) == len(images)
  assert matches[0].score == pytest.approx(1, abs=1e-5)
  scores = [match.score for match in matches]
  assert scores == sorted(scores, reverse=True) and min(scores) >= -1


def test_an_embedded_gallery_gives_the_same_ranking(model, images):
  gallery = model.gallery(images[1:])
  assert gallery.paths == tuple(images[1:]) and gallery.features.shape[0] == 4
  for alpha in (None, 0.0):
    assert model.rank(images[:2], gallery, alpha=alpha) == model.rank(images[:2], images[1:], alpha=alpha)


def test_activation_is_a_norm_at_each_pixel(model, images):
  activation = model.activation(images)
  assert activation.shape == (len(images), *SIZE) and activation.min() >= 0 and activation.std() > 0
  mirrored = model.activation(model.pixels(images)[:, :, ::-1])
  np.testing.assert_allclose(mirrored, activation[:, :, ::-1], rtol=1e-3, atol=1e-4 * activation.max())


def test_mistakes_raise_user_errors(tiny_run, model, images, tmp_path):
  _, workdir, _ = tiny_run
  with pytest.raises(UserError, match=r'absent\.jpg'):
    model.embed([images[0], 'absent.jpg'])
  with pytest.raises(UserError, match='1 structures and 1 appearances in 8 steps'):
    model.interpolate(structure_from=images[0], appearance_from=images[1])
  with pytest.raises(UserError, match='alpha=-3'):
    model.rank(images[0], images, alpha=-3)
  with pytest.raises(UserError, match='alpha=nan'):
    model.embed(images[0], alpha=np.nan)
  with pytest.raises(UserError, match='count=0'):
    model.rank(images[0], images, count=0)
  with pytest.raises(UserError, match='no such folder'):
    dgnet_jax.load(workdir / 'absent')
  with pytest.raises(UserError, match='not a work folder or a checkpoint'):
    dgnet_jax.load(workdir / 'synthetic_data')
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  with pytest.raises(UserError, match='step 5 is damaged'):
    dgnet_jax.load(tmp_path / 'checkpoints' / '5')


def test_alpha_is_refused_for_styles_without_a_fine_grained_half(tiny_run, images):
  model = dgnet_jax.load(tiny_run[1])
  config = tiny_config()
  config.reid.style = 'normal'
  model.config = frozen(config)
  assert np.square(model.embed(images[0])).sum() == pytest.approx(2, abs=1e-5)  # two halves, taken for one vector
  for function in (model.embed, functools.partial(model.rank, images[0])):
    with pytest.raises(UserError, match='style normal does not have'):
      function(images, alpha=0.5)


def test_configs_of_older_runs_are_completed(tiny_run):
  config, workdir, _ = tiny_run
  checkpoints = Checkpoints(workdir / 'checkpoints')
  saved = checkpoints.saved_config(3)
  checkpoints.close()
  assert complete_config(saved) == config
  del saved['evaluation'], saved['data']['boxes']
  completed = complete_config(saved)
  assert completed.data.boxes == 'detected' and completed.evaluation.batch_size == 64
  assert completed.data.image_size_hw == SIZE
  saved['reid'] = 3
  with pytest.raises(UserError, match='reid'):
    complete_config(saved)


def run_python(code):
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  return result.stdout.strip()


def test_exceptions_are_importable_without_heavy_libraries():
  code = (
    'import sys, dgnet_jax\n'
    'from dgnet_jax import ConfigError, Interrupted, MissingSplit, UserError\n'
    'assert issubclass(ConfigError, UserError) and issubclass(MissingSplit, UserError)\n'
    'assert dgnet_jax.__version__ and not hasattr(dgnet_jax, "nothing")\n'
    'assert {"load", "Model", "UserError"} <= set(dir(dgnet_jax))\n'
    'print([m for m in ("jax", "numpy", "PIL", "ml_collections", "dgnet_jax.api") if m in sys.modules])'
  )
  assert run_python(code) == '[]'


def test_all_public_names_are_importable():
  for name in dgnet_jax.__all__:
    assert getattr(dgnet_jax, name).__name__ == name
