"""The answers of the service equal those of the library."""

import pathlib
import shutil

import jax
import numpy as np
from PIL import Image
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

import dgnet_jax  # noqa: E402 (after the checks above)
from dgnet_jax.config.loading import save_config  # noqa: E402
from dgnet_jax.data.image_lists import as_image_list  # noqa: E402
from dgnet_jax.plots.figure_sheets import place_colours  # noqa: E402
from dgnet_jax.serving.errors import Refused  # noqa: E402
from dgnet_jax.serving.service import NUM_FRAMES, ModelService  # noqa: E402
from tests.tiny_run import frozen, save_checkpoint, tiny_config  # noqa: E402


def test_results_equal_those_of_the_library(model, service, images):
  a, b = (service.read(image.read_bytes(), image.name) for image in images[:2])
  expected = model.swap(structure_from=images[:2], appearance_from=images[1::-1]).astype(int)
  np.testing.assert_allclose(np.asarray(service.swap([(a, b), (b, a)]), int), expected, atol=1)
  for change, last in (('clothes', expected[0]), ('pose', expected[1])):
    (frames,) = service.interpolate([(change, a, b)])
    assert len(frames) == NUM_FRAMES
    np.testing.assert_allclose(frames[-1].astype(int), last, atol=1)
  features = service.embed([a, b])
  np.testing.assert_allclose(service.embeddings(features), model.embed(images[:2]), atol=1e-6)
  matches = service.rank(features, count=5)[1]
  expected = model.rank(images[1], images[0].parent, count=5)[0]
  assert [(match['path'], match['index']) for match in matches] == [
    (pathlib.Path(match.path).name, match.index) for match in expected
  ]
  assert matches[0]['score'] == pytest.approx(1, abs=1e-5)
  with Image.open(images[1]) as file:
    np.testing.assert_array_equal(service.thumbnail(matches[0]['index']), np.asarray(file))


def test_origins_are_those_of_the_library(fetching_model, service, images):
  fetching = ModelService(fetching_model, None)
  a, b = (fetching.read(image.read_bytes(), image.name) for image in images[:2])
  expected = fetching_model.trace(structure_from=[images[0], images[1]], appearance_from=[images[1], images[0]])
  traces = fetching.trace([(a, b), (b, a)])
  for i, trace in enumerate(traces):
    np.testing.assert_allclose(trace['place'], expected['place'][i], atol=1e-3)
    np.testing.assert_allclose(trace['fetched'].astype(int), expected['fetched'][i], atol=1)
    np.testing.assert_array_equal(trace['places'], place_colours(trace['place'][None])[0])
    for name in ('mask', 'trust'):
      assert trace[name].shape == trace['fetched'].shape and np.ptp(trace[name], axis=-1).max() == 0
      np.testing.assert_allclose(trace[name][..., 0], 255 * expected[name][i], atol=1)
  assert (traces[0]['place'] != traces[1]['place']).any()
  fetching.check_fetching()
  with pytest.raises(Refused, match='generator.design=adain'):
    service.check_fetching()


@pytest.mark.parametrize('batch_size', [1, 6])
def test_nothing_is_compiled_after_the_start(model, fetching_model, images, batch_size, caplog):
  for loaded in (model, fetching_model):
    service = ModelService(loaded.with_batch_size(batch_size), None)
    service.warm_up()
    person = service.read(images[0].read_bytes(), 'name')
    inputs = {'embed': person, 'swap': (person, person), 'trace': (person, person)}
    with jax.log_compiles():
      for name, function in service.functions.items():
        for size in function.sizes if name != 'trace' or loaded is fetching_model else ():
          for change in ('clothes', 'pose'):
            function.compute([inputs.get(name, (change, person, person))] * size)
    assert not [record for record in caplog.records if 'Compiling' in record.message]


def test_images_alone_and_together_give_the_same(service, model, images):
  people = [service.read(image.read_bytes(), image.name) for image in (*images, *images[:1])]
  alone = [service.embed([person])[0] for person in people]
  np.testing.assert_allclose(service.embed(people), alone, rtol=1e-5, atol=1e-6)
  pairs = list(zip(people, people[::-1], strict=True))
  swapped = np.asarray([service.swap([pair])[0] for pair in pairs], int)
  np.testing.assert_allclose(np.asarray(service.swap(pairs), int), swapped, atol=1)
  assert len({row.tobytes() for row in alone}) == len(images)


def test_paths_of_matches_omit_the_folders_above_the_gallery(model, images, tmp_path):
  for name in ('anna/1.jpg', 'ben/1.jpg'):
    (tmp_path / name).parent.mkdir()
    shutil.copy(images[0], tmp_path / name)
  service = ModelService(model, as_image_list([tmp_path / 'anna', tmp_path / 'ben']))
  features = service.embed([service.read(images[0].read_bytes(), 'name')])
  assert [match['path'] for match in service.rank(features, 16)[0]] == ['anna/1.jpg', 'ben/1.jpg']
  (tmp_path / 'ben' / '1.jpg').unlink()
  with pytest.raises(Refused, match='1.jpg'):
    service.thumbnail(1)


def test_what_a_service_lacks_is_named(model, images, tmp_path):
  service = ModelService(model, None)
  assert service.health()['gallery'] is None
  with pytest.raises(Refused, match='--gallery FOLDER'):
    service.rank(service.embed([service.read(images[0].read_bytes(), 'name')]), 16)
  config = tiny_config()
  config.joint = False
  save_checkpoint(frozen(config), tmp_path, num_identities=4, step=1)
  save_config(frozen(config), tmp_path / 'config.json')
  service = ModelService(dgnet_jax.load(tmp_path), None)
  service.warm_up()
  assert service.health()['model']['design'] is None
  with pytest.raises(Refused, match='no generator'):
    service.check_generator()
