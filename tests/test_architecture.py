"""The import graph: a module imports only from lower layers and from its own folder, and there are no import cycles."""

import ast
import pathlib
import re

import pytest

from dgnet_jax.cli.arguments import read_config
from dgnet_jax.cli.command import parse
from dgnet_jax.cli.main import COMMANDS
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import leaves

REPO = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = REPO / 'dgnet_jax'

# From the bottom up. An entry is a module or a folder with all that is in it; the longest that fits a module counts.
LAYERS = (
  ('types', 'errors', 'data.layouts'),
  ('utils',),
  ('storage',),
  ('pixels', 'config', 'sharding'),
  ('losses', 'models', 'evaluation', 'plots'),
  ('data',),
  ('interop',),
  ('training',),
  ('inference', 'interop.release'),
  ('gallery',),
  ('api',),
  ('serving',),
  ('generation',),
  ('reports',),
  ('benchmarks',),
  ('main', 'cli'),
)
# The entry points may use each other: the command line starts the main job.
ENTRY_POINTS = ('main', 'cli')


def module_name(path):
  return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob('*.py')) if path.name != '__init__.py'}


def place_of(module):
  """The number of a module's layer, and the entry of LAYERS that it belongs to."""
  entries = [
    (entry, number)
    for number, layer in enumerate(LAYERS)
    for entry in layer
    if module == entry or module.startswith(f'{entry}.')
  ]
  assert entries, f'{module} is in no layer: add its folder to LAYERS in {pathlib.Path(__file__).name}'
  entry, number = max(entries, key=lambda entry: len(entry[0]))
  return number, entry


def imports_of(path):
  """(full name, whether at module level) of everything a file imports; `from a import b` counts as a and a.b."""
  tree = ast.parse(path.read_text())
  top = set(map(id, tree.body))
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      names = [str(node.module), *(f'{node.module}.{alias.name}' for alias in node.names)]
    else:
      continue
    yield from ((name, id(node) in top) for name in names)


def own_imports(path):
  """The modules of this package that a file imports, anywhere in it."""
  names = {name.removeprefix('dgnet_jax.') for name, _ in imports_of(path)}
  return names & MODULES.keys()


@pytest.mark.parametrize('module', MODULES)
def test_no_import_runs_upwards(module):
  layer, entry = place_of(module)
  for imported in own_imports(MODULES[module]):
    other_layer, other_entry = place_of(imported)
    allowed = other_layer < layer or other_entry == entry or {entry, other_entry} <= set(ENTRY_POINTS)
    assert allowed, f'{module} imports {imported}'


def test_documentation_lists_the_layers():
  table = (
    (REPO / 'docs' / 'architecture.md').read_text().split('| layer | contents |\n| --- | --- |\n')[1].split('\n\n')[0]
  )
  cells = [row.split('|')[1] for row in table.splitlines()]
  documented = tuple(tuple(name.rstrip('/') for name in re.findall('`([^`]+)`', cell)) for cell in cells)
  assert documented == LAYERS


def test_no_import_cycle():
  path, done = [], set()

  def visit(module):
    assert module not in path, f'{" -> ".join([*path, module])}'
    if module not in done:
      path.append(module)
      for imported in own_imports(MODULES[module]):
        visit(imported)
      path.pop()
      done.add(module)

  for module in MODULES:
    visit(module)


@pytest.mark.parametrize('module', MODULES)
def test_large_libraries_stay_in_their_folders(module):
  for name, at_top in imports_of(MODULES[module]):
    library = name.split('.')[0]
    assert not name.startswith('flax.linen') or module.startswith('models.'), f'{module} imports {name}'
    allowed = (module.startswith('data.') or module == 'inference.tflite') and not at_top
    assert library != 'tensorflow' or allowed, f'{module} imports {name}'
    assert library != 'torch', f'{module} imports {name}'


@pytest.mark.parametrize('module', MODULES)
def test_nothing_unpickles(module):
  """Loading a pickle can execute code."""
  for name, _ in imports_of(MODULES[module]):
    assert name.split('.')[0] not in ('pickle', '_pickle', 'dill', 'cloudpickle', 'marshal', 'shelve'), module


def functions_of(path):
  return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


@pytest.mark.parametrize('module', MODULES)
def test_at_most_seven_parameters(module):
  for function in functions_of(MODULES[module]):
    parameters = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    names = [parameter.arg for parameter in parameters if parameter.arg not in ('self', 'cls')]
    assert len(names) <= 7, f'{module}.{function.name} takes {", ".join(names)}'


@pytest.mark.parametrize('module', MODULES)
def test_files_and_functions_stay_short(module):
  lines = MODULES[module].read_text().splitlines()
  assert len(lines) <= 350, f'{module}: {len(lines)} lines'
  for function in functions_of(MODULES[module]):
    length = function.end_lineno - function.lineno + 1
    docstring = ast.get_docstring(function, clean=False) or ''
    length -= docstring.count('\n') + 1 if docstring else 0
    assert length <= 60, f'{module}.{function.name}: {length} lines'


@pytest.mark.parametrize('path', sorted((REPO / 'configs').glob('[!_]*.py')), ids=lambda path: path.name)
def test_configs_run_as_they_say(path, monkeypatch):
  monkeypatch.chdir(REPO)
  command = re.search(r'^dgnet train (.*)$', ast.get_docstring(ast.parse(path.read_text())), re.MULTILINE)
  assert command, 'a config starts with its run command'
  options = parse(COMMANDS['train'], command[1].split())
  assert options.config == path.stem
  read_config(options)  # validates it


def test_every_field_is_read_somewhere():
  readers = [path.read_text() for module, path in MODULES.items() if not module.startswith('config.')]
  for name, _ in leaves(default_config()):
    word = re.compile(rf'[.\'"]{name.rsplit(".", 1)[-1]}\b')  # an attribute or a key
    assert any(word.search(text) for text in readers), f'nothing reads {name}'
