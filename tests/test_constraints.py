"""The versions in constraints/ fit setup.cfg, and the CI workflow tests each of them with its version of Python."""

import configparser
import re

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
import pytest
import yaml

from tests.conftest import REPO

FILES = sorted((REPO / 'constraints').glob('*.txt'))
FLOOR = REPO / 'constraints' / 'python3.11-floor.txt'


def setup_cfg():
  parser = configparser.ConfigParser()
  parser.read(REPO / 'setup.cfg')
  return parser


def requirements():
  """What `pip install '.[test]'` requires on Linux, where the constraints were made."""
  setup = setup_cfg()
  text = setup['options']['install_requires'] + setup['options.extras_require']['test']
  lines = [line for line in text.splitlines() if line and not line.startswith('#')]
  found = [Requirement(line) for line in lines]
  linux = {'sys_platform': 'linux', 'platform_machine': 'x86_64'}
  return [requirement for requirement in found if requirement.marker is None or requirement.marker.evaluate(linux)]


def pinned(path):
  """Version of each package in a file of constraints, which has nothing but a comment and exact versions."""
  lines = [line for line in path.read_text().splitlines() if not line.startswith('#')]
  versions = dict(line.split('==') for line in lines)
  assert len(versions) == len(lines)
  return {canonicalize_name(name): version for name, version in versions.items()}


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
def test_versions_are_allowed(path):
  versions = pinned(path)
  for requirement in requirements():
    assert versions[canonicalize_name(requirement.name)] in requirement.specifier, requirement


def test_floor_is_that_of_setup_cfg():
  """The lowest release that the other packages allow: 24.3.25 of flatbuffers>=24.3, because TensorFlow needs that."""
  versions = pinned(FLOOR)
  for requirement in requirements():
    (bound,) = requirement.specifier
    assert bound.operator == '>='
    assert versions[canonicalize_name(requirement.name)] in SpecifierSet(f'=={bound.version}.*'), requirement


def test_workflow_and_classifiers_have_every_version():
  workflow = yaml.safe_load((REPO / '.github' / 'workflows' / 'ci.yml').read_text())
  jobs = workflow['jobs']['versions']['strategy']['matrix']['include']
  assert sorted(job['versions'] for job in jobs) == sorted(path.stem for path in FILES)
  assert all(job['versions'].split('-')[0] == f'python{job["python"]}' for job in jobs)
  classified = re.findall(r'Python :: (3\.\d+)', setup_cfg()['metadata']['classifiers'])
  assert classified == sorted({job['python'] for job in jobs})


def test_workflow_runs_the_test_line_of_the_readme():
  workflow = yaml.safe_load((REPO / '.github' / 'workflows' / 'ci.yml').read_text())
  commands = [step['run'] for step in workflow['jobs']['versions']['steps'] if 'run' in step]
  (line,) = re.findall(r'^    python3\.11 -m venv .*pytest.*', (REPO / 'README.md').read_text(), re.MULTILINE)
  assert line.replace('.venv/bin/', '').endswith(commands[-1])
