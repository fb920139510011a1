"""Runs to generate images from."""

import dataclasses

import pytest

from dgnet_jax.generation.generate import generate


class Run:
  """A copy of the tiny run's config, whose checkpoints and data any number of work folders share."""

  def __init__(self, tiny_run, folder):
    self.config, self._original, self.index = tiny_run
    self._folder = folder

  def generate(self, name='run', **fields):
    """Generates images in the work folder `name` with `fields` of config.generation, which stay set."""
    workdir = self._folder / name
    workdir.mkdir(exist_ok=True)
    for part in ('checkpoints', 'synthetic_data'):
      if not (workdir / part).exists():
        (workdir / part).symlink_to(self._original / part)
    self.config = dataclasses.replace(self.config, generation=dataclasses.replace(self.config.generation, **fields))
    return generate(self.config, workdir)


@pytest.fixture
def run(tiny_run, tmp_path):
  return Run(tiny_run, tmp_path)
