"""A page of the tiny run."""

import pathlib

import pytest

import dgnet_jax
from dgnet_jax.data.image_lists import as_image_list
from dgnet_jax.page.service import PageService


@pytest.fixture(scope='module')
def images(tiny_run):
  return [pathlib.Path(path) for path in tiny_run[2].query.paths[::2][:3]]


@pytest.fixture(scope='module')
def model(tiny_run):
  return dgnet_jax.load(tiny_run[1])


@pytest.fixture(scope='module')
def service(model, images):
  return PageService(model, as_image_list([images[0].parent]))


@pytest.fixture(scope='module')
def page(service):
  from tests.page.served_page import served  # late: it needs the extra `page`

  with served(service) as address:
    yield address
