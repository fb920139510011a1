"""`dgnet examples` writes people that the packaged model can be tried on."""

import numpy as np
from PIL import Image
import pytest

import dgnet_jax
from dgnet_jax.cli.main import main
from dgnet_jax.data.synthetic.examples import IMAGES_PER_PERSON, NUM_PEOPLE


def test_writes_images_by_person_and_camera(tmp_path):
  main(['examples', f'--out={tmp_path / "people"}'])
  files = sorted((tmp_path / 'people').rglob('*.jpg'))
  assert len(files) == NUM_PEOPLE * IMAGES_PER_PERSON
  assert files[0].relative_to(tmp_path).as_posix() == 'people/person_01/camera_1.jpg'
  images = [np.asarray(Image.open(file)) for file in files]
  assert {image.shape for image in images} == {(128, 64, 3)}
  assert len({image.tobytes() for image in images}) == len(images)


def test_existing_folders_are_refused(tmp_path, capsys):
  with pytest.raises(SystemExit, match='2'):
    main(['examples', f'--out={tmp_path}'])
  assert 'exists already' in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_examples_are_cached(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  folder = dgnet_jax.example_images()
  times = [file.stat().st_mtime_ns for file in sorted(folder.rglob('*.jpg'))]
  assert len(times) == NUM_PEOPLE * IMAGES_PER_PERSON and folder.is_relative_to(tmp_path)
  assert dgnet_jax.example_images() == folder
  assert [file.stat().st_mtime_ns for file in sorted(folder.rglob('*.jpg'))] == times
