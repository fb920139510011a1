"""A server of the tiny run."""

import pathlib

import pytest

import dgnet_jax
from dgnet_jax.config.loading import save_config
from dgnet_jax.data.image_lists import as_image_list
from tests.tiny_run import correspondence_config, frozen, save_checkpoint


@pytest.fixture(scope='module')
def images(tiny_run):
  return [pathlib.Path(path) for path in tiny_run[2].query.paths[::2][:3]]


@pytest.fixture(scope='module')
def model(tiny_run):
  return dgnet_jax.load(tiny_run[1])


@pytest.fixture(scope='module')
def service(model, images):
  from dgnet_jax.serving.service import ModelService  # late: it needs the extra `serve`

  return ModelService(model, as_image_list([images[0].parent]))


@pytest.fixture(scope='module')
def page(service):
  from tests.serving.http_client import served  # late: it needs the extra `serve`

  with served(service, page=True) as address:
    yield address


@pytest.fixture(scope='module')
def fetching_model(tmp_path_factory):
  """A model of design correspondence, whose weights are random."""
  config, workdir = frozen(correspondence_config()), tmp_path_factory.mktemp('fetching')
  save_checkpoint(config, workdir, num_identities=4, step=1)
  save_config(config, workdir / 'config.json')
  return dgnet_jax.load(workdir, batch_size=1)
