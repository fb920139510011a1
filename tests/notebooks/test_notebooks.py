"""The notebooks run from top to bottom, and what is saved in them is what they print."""

import os
import re

from nbclient import NotebookClient
import nbformat
import pytest

from tests.conftest import REPO

NOTEBOOKS = sorted((REPO / 'docs' / 'notebooks').glob('*.ipynb'))
MAX_BYTES = 400_000
PRIVATE = re.compile(r'/(home|root|tmp|Users|work|opt|usr|var)/|[A-Z]:\\|site-packages')

each_notebook = pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
  return [cell for cell in notebook.cells if cell.cell_type == 'code']


def output_kinds(cell):
  """What a cell shows, in order: images, printed text and values."""
  kinds = [sorted(output.get('data', {output.get('name'): ''})) for output in cell.outputs]
  return [kind for number, kind in enumerate(kinds) if not number or kind != kinds[number - 1]]  # prints may be split


def test_both_notebooks_are_there():
  assert [path.stem for path in NOTEBOOKS] == ['first_look', 'your_own_code']


@each_notebook
def test_saved_notebook_is_valid_small_and_in_order(path):
  notebook = nbformat.read(path, as_version=4)
  nbformat.validate(notebook)
  assert path.stat().st_size <= MAX_BYTES
  cells = code_cells(notebook)
  assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
  outputs = [output for cell in cells for output in cell.outputs]
  assert any('image/jpeg' in output.get('data', {}) for output in outputs)
  assert not [output for output in outputs if output.output_type == 'error' or output.get('name') == 'stderr']


@each_notebook
def test_saved_notebook_says_nothing_about_the_machine(path):
  notebook = nbformat.read(path, as_version=4)
  assert set(notebook.metadata) == {'kernelspec', 'language_info'} and not any(cell.metadata for cell in notebook.cells)
  for cell in code_cells(notebook):
    text = '\n'.join(str(output.get('text', output.get('data', {}).get('text/plain', ''))) for output in cell.outputs)
    assert not PRIVATE.search(text), text


@pytest.mark.long
@each_notebook
def test_notebook_runs(path, tmp_path, monkeypatch):
  """In a new kernel with one device, an empty cache and no network; warnings would be printed, and so be found."""
  for name, value in {
    'XDG_CACHE_HOME': tmp_path / 'cache',
    'IPYTHONDIR': tmp_path / 'ipython',
    'TMPDIR': tmp_path / 'temporary',
    'PYTHONPATH': os.pathsep.join([str(REPO), *filter(None, [os.environ.get('PYTHONPATH')])]),
    'XLA_FLAGS': '',
    # A package that asks the network anyway meets a port where nobody listens.
    'http_proxy': 'http://127.0.0.1:9',
    'https_proxy': 'http://127.0.0.1:9',
    'no_proxy': '127.0.0.1,localhost',
  }.items():
    monkeypatch.setenv(name, str(value))
  (tmp_path / 'run').mkdir()
  (tmp_path / 'temporary').mkdir()
  saved, executed = (nbformat.read(path, as_version=4) for _ in range(2))
  client = NotebookClient(
    executed, timeout=600, kernel_name='python3', resources={'metadata': {'path': tmp_path / 'run'}}
  )
  client.execute()
  for cell, cell_as_saved in zip(code_cells(executed), code_cells(saved), strict=True):
    assert not [output for output in cell.outputs if output.get('name') == 'stderr'], cell.source
    assert output_kinds(cell) == output_kinds(cell_as_saved), cell.source
  assert not list((tmp_path / 'run').iterdir())
