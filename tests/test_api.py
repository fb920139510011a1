"""The library on people's own images: the numbers of evaluation, without its data."""

import shutil
import subprocess
import sys

import numpy as np
from PIL import Image
import pytest

import dgnet_jax
from dgnet_jax.api import find_checkpoints
from dgnet_jax.config.loading import complete_config
from dgnet_jax.data.lazy_images import ImageFiles
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation import ranking
from dgnet_jax.inference.trained import load_trained
from dgnet_jax.training.checkpoints import Checkpoints

SIZE = (32, 16)


@pytest.fixture(scope='module')
def model(tiny_run, tmp_path_factory):
  """From a copy of the checkpoints alone: no data, no config.json, no teacher."""
  _, workdir, _ = tiny_run
  folder = tmp_path_factory.mktemp('copy') / 'run'
  shutil.copytree(workdir / 'checkpoints', folder / 'checkpoints')
  return dgnet_jax.load(folder)


@pytest.fixture(scope='module')
def images(tiny_run):
  _, _, index = tiny_run
  return list(index.query.paths[::2][:5])


def close(a, b):
  np.testing.assert_allclose(a.astype(int), b.astype(int), atol=1)


def test_what_is_loaded(tiny_run, model):
  _, workdir, _ = tiny_run
  assert (model.step, model.num_identities, model.image_size_hw) == (7, 4, SIZE)
  assert 'step 7' in repr(model)
  older = dgnet_jax.load(workdir / 'checkpoints' / '3')
  assert older.step == 3 and older.workdir == workdir and older.config.seed == 0
  assert dgnet_jax.load(workdir / 'checkpoints').step == 7


def test_embeddings_are_those_of_evaluation(tiny_run, model, images):
  config, workdir, _ = tiny_run
  expected = load_trained(config, workdir).embed(ImageFiles(images, SIZE))
  np.testing.assert_allclose(model.embed(images), expected, rtol=1e-5, atol=1e-6)
  np.testing.assert_array_equal(model.embed(images), model.embed(images))


def test_one_image_in_every_form(model, images):
  expected = model.embed(images)[:1]
  with Image.open(images[0]) as image:
    array = np.asarray(image)
    for form in (images[0], [images[0]], image, array, array[None]):
      np.testing.assert_array_equal(model.embed(form), expected)


def test_swap(tiny_run, model, images):
  config, workdir, _ = tiny_run
  structures, appearances = ImageFiles(images[:3], SIZE), ImageFiles(images[2:], SIZE)
  expected = next(load_trained(config, workdir).swap_images(structures, appearances))
  made = model.swap(structure_from=images[:3], appearance_from=images[2:])
  assert made.dtype == np.uint8
  close(made, expected)
  close(model.swap(structure_from=images[1], appearance_from=images[3]), expected[1:2])


def test_swap_grid_holds_every_swap(model, images):
  grid = model.swap_grid(structure_from=images[:2], appearance_from=images[2:])
  assert grid.shape == (2, 3, *SIZE, 3)
  for i in range(2):
    close(grid[i], model.swap(structure_from=images[i], appearance_from=images[2:]))


def test_interpolation_ends_in_the_swaps(model, images):
  a, b, c = images[:3]
  clothes = model.interpolate(structure_from=a, appearance_from=[b, c], steps=5)
  close(clothes[[0, -1]], model.swap(structure_from=a, appearance_from=[b, c]))
  pose = model.interpolate(structure_from=[a, b], appearance_from=c, steps=4)
  close(pose[[0, -1]], model.swap(structure_from=[a, b], appearance_from=c))
  assert len(clothes) == 5 and len(pose) == 4
  code = model.appearance_code([b, c]).mean(axis=0, keepdims=True)
  close(clothes[2], model.decode(model.structure_code(a), code)[0])


def test_rank_is_the_ranking_of_evaluation(tiny_run, model, images):
  config, _, index = tiny_run
  queries, gallery = model.embed(images), model.embed(list(index.gallery.paths))
  nobody = np.full(len(images), -2), np.full(len(images), -2)  # no gallery image is left out or right
  strangers = np.zeros(len(gallery), int), np.zeros(len(gallery), int)
  for alpha in (None, 0.0, ranking.FINE_ONLY, 2.0):
    weight = config.evaluation.alpha if alpha is None else alpha
    best = ranking.best_matches(queries, *nobody, gallery, *strangers, alpha=weight, count=6)
    found = model.rank(images, list(index.gallery.paths), alpha=alpha, count=6)
    for matches, expected in zip(found, best, strict=True):
      assert [match.index for match in matches] == expected.tolist()
      assert [match.path for match in matches] == [index.gallery.paths[j] for j in expected]


def test_the_same_image_scores_one(model, images):
  (matches,) = model.rank(images[1], images)
  assert (matches[0].path, matches[0].index) == (images[1], 1) and len(matches) == len(images)
  assert matches[0].score == pytest.approx(1, abs=1e-5)
  scores = [match.score for match in matches]
  assert scores == sorted(scores, reverse=True) and min(scores) >= -1


def test_a_gallery_embedded_once_ranks_alike(model, images):
  gallery = model.gallery(images[1:])
  assert gallery.paths == tuple(images[1:]) and gallery.embeddings.shape[0] == 4
  for alpha in (None, 0.0):
    assert model.rank(images[:2], gallery, alpha=alpha) == model.rank(images[:2], images[1:], alpha=alpha)


def test_activation_is_a_length_at_every_place(model, images):
  activation = model.activation(images)
  assert activation.shape[0] == len(images) and activation.ndim == 3
  assert activation.min() >= 0 and activation.std() > 0


def test_mistakes_are_told(tiny_run, model, images, tmp_path):
  _, workdir, _ = tiny_run
  with pytest.raises(UserError, match='absent.jpg'):
    model.embed([images[0], 'absent.jpg'])
  with pytest.raises(UserError, match='2 structures and 3 appearances'):
    model.swap(structure_from=images[:2], appearance_from=images[2:])
  with pytest.raises(UserError, match='1 structures, 1 appearances'):
    model.interpolate(structure_from=images[0], appearance_from=images[1])
  with pytest.raises(UserError, match='alpha=-3'):
    model.rank(images[0], images, alpha=-3)
  with pytest.raises(UserError, match='count=0'):
    model.rank(images[0], images, count=0)
  with pytest.raises(UserError, match='no such folder'):
    dgnet_jax.load(workdir / 'absent')
  with pytest.raises(UserError, match='no work folder of a run'):
    dgnet_jax.load(workdir / 'synthetic_data')
  (tmp_path / 'checkpoints' / '5').mkdir(parents=True)
  with pytest.raises(UserError, match='step 5 is damaged'):
    dgnet_jax.load(tmp_path / 'checkpoints' / '5')


def test_other_styles_have_no_alpha(tiny_run, model, images, monkeypatch):
  config, _, _ = tiny_run
  normal = config.copy_and_resolve_references()
  normal.reid.style = 'normal'
  monkeypatch.setattr(model, 'config', normal)
  assert model.rank(images[0], images)[0][0].score == pytest.approx(2, abs=1e-5)  # two pieces taken for one
  with pytest.raises(UserError, match='style normal has none'):
    model.rank(images[0], images, alpha=0.5)


def test_a_run_older_than_a_field(tiny_run):
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


def test_paths_of_checkpoints(tmp_path, monkeypatch):
  (tmp_path / 'run' / 'checkpoints' / '12').mkdir(parents=True)
  assert find_checkpoints(tmp_path / 'run') == (tmp_path / 'run', tmp_path / 'run' / 'checkpoints', None)
  monkeypatch.chdir(tmp_path / 'run' / 'checkpoints')
  assert find_checkpoints('12') == (tmp_path / 'run', tmp_path / 'run' / 'checkpoints', 12)


def test_the_package_is_light():
  code = (
    'import sys, dgnet_jax\n'
    'assert dgnet_jax.__version__ and not hasattr(dgnet_jax, "nothing")\n'
    'print([m for m in ("jax", "numpy", "PIL", "ml_collections") if m in sys.modules])'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert result.stdout.strip() == '[]'
