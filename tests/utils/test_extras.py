"""The install commands in error messages agree with the extras of setup.cfg."""

import configparser
import pathlib

from packaging.requirements import Requirement
import pytest

from dgnet_jax.utils.extras import REQUIREMENTS, install_command

SETUP = pathlib.Path(__file__).resolve().parents[2] / 'setup.cfg'


def declared(extra):
  """The requirements of an extra that hold on this platform, without their markers."""
  parser = configparser.ConfigParser(interpolation=None)
  parser.read(SETUP)
  lines = [line for line in parser['options.extras_require'][extra].splitlines() if line and not line.startswith('#')]
  requirements = [Requirement(line) for line in lines]
  return {
    f'{requirement.name}{requirement.specifier}'
    for requirement in requirements
    if requirement.marker is None or requirement.marker.evaluate()
  }


@pytest.mark.parametrize('extra', REQUIREMENTS)
def test_requirements_equal_those_of_setup_cfg(extra):
  assert set(REQUIREMENTS[extra]) == declared(extra)


def test_command_names_every_requirement_of_every_extra():
  assert install_command('parquet') == 'pip install "pyarrow>=17.0"'
  assert install_command('export', 'parquet') == 'pip install "flatbuffers>=24.3" "pyarrow>=17.0"'
