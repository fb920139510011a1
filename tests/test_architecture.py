"""Holds the floors: a file imports from lower floors, from its own folder on the same floor, or what is named here."""

import ast
import pathlib
import re

import pytest

from dgnet_jax import main
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import leaves

REPO = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = REPO / 'dgnet_jax'

FLOORS = (
  (
    *('types', 'config', 'config_rules', 'config_file', 'console', 'files', 'progress', 'interruption'),
    'data.layouts',
  ),
  (
    *('losses.*', 'schedules', 'evaluation.*', 'data.index', 'data.synthetic*', 'data.images', 'data.contents'),
    'outputs',
    *('models.layers', 'models.norms', 'models.non_local', 'models.convolutions', 'partitioning', 'compilation'),
  ),
  (
    *('data.sampling', 'data.source', 'data.memory', 'data.pipeline', 'data.images', 'data.readers.*'),
    *('data.threads', 'data.remote'),
    *('augment', 'models.resnet', 'models.inception'),
    *(
      'models.structure_encoder',
      'models.decoder',
      'models.discriminator',
      'models.appearance_encoder',
      'models.edges',
    ),
  ),
  (
    'data.read',
    'data.image_sets',
    'data.open',
    'data.check',
    'data.given',
    'data.prepare',
    'data.tfds_builders',
    'data.device_feed',
    'models.factories',
    'models.build',
    'optimizers',
  ),
  ('train_state', 'objectives', 'teaching', 'inference', 'codes'),
  (
    *('train_step', 'teacher_step', 'checkpoints', 'metric_writer', 'interop.torch_*', 'interop.strict'),
    *('interop.pretrained', 'interop.release_config', 'interop.release_files', 'interop.release_names'),
    *('interop.release_optimizer', 'interop.release_sizes', 'interop.inception'),
  ),
  (
    *('export_model', 'exported_example', 'feature_spaces', 'similarity_report'),
    *('rendered_truth', 'truth_report'),
    *('trained', 'ranking_report', 'swap_report', 'train', 'train_teacher', 'evaluate', 'generate', 'bulk'),
    *('interop.release_import', 'interop.release_export'),
  ),
  ('main', 'api', 'ablation'),
  ('page.*',),
  ('cli', 'figures'),
)
# Within a floor and across folders.
NEIGHBOURS = {
  'config': {'config_rules'},
  'console': {'config'},
  'evaluation.match_ranks': {'partitioning'},
  'config_rules': {'data.layouts'},
  'config_file': {'config', 'config_rules'},
  'train': {'rendered_truth', 'train_teacher'},
  'swap_report': {'trained'},
  'truth_report': {'rendered_truth', 'similarity_report', 'trained'},
  'evaluate': {'ranking_report', 'swap_report', 'train_teacher', 'trained', 'truth_report'},
  'codes': {'inference'},
  'bulk': {'trained'},
  'generate': {'bulk', 'trained'},
  'export_model': {'trained'},
  'feature_spaces': {'train_teacher', 'trained'},
  'interop.release_import': {'train_teacher'},
  'interop.release_export': {'train_teacher'},
}


def module_name(path):
  return '.'.join(path.relative_to(PACKAGE).with_suffix('').parts)


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob('*.py')) if path.name != '__init__.py'}


def floor_of(module):
  for number, patterns in enumerate(FLOORS):
    if any(pathlib.PurePath(module).match(pattern) for pattern in patterns):
      return number
  raise AssertionError(f'{module} has no floor: give it one in {pathlib.Path(__file__).name}')


def imports_of(path):
  """(full name, whether at module level) of all that a file imports; `from a import b` counts as a and a.b."""
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


def rooms_of(path):
  """The modules of this package that a file imports."""
  names = {name.removeprefix('dgnet_jax.') for name, _ in imports_of(path)}
  return names & FILES.keys()


@pytest.mark.parametrize('module', FILES)
def test_floors(module):
  floor, folder = floor_of(module), module.rpartition('.')[0]
  for room in rooms_of(FILES[module]):
    same_folder = bool(folder) and room.rpartition('.')[0] == folder
    allowed = same_folder or room in NEIGHBOURS.get(module, ())
    assert floor_of(room) < floor or (floor_of(room) == floor and allowed), f'{module} imports {room}'


def test_no_file_imports_itself_in_a_round():
  open_files, done = [], set()

  def visit(module):
    assert module not in open_files, f'{" -> ".join([*open_files, module])}'
    if module not in done:
      open_files.append(module)
      for room in rooms_of(FILES[module]):
        visit(room)
      open_files.pop()
      done.add(module)

  for module in FILES:
    visit(module)


def test_neighbours_are_still_needed():
  for module, rooms in NEIGHBOURS.items():
    assert rooms <= rooms_of(FILES[module]), module


@pytest.mark.parametrize('module', FILES)
def test_big_libraries_stay_in_their_rooms(module):
  for name, at_top in imports_of(FILES[module]):
    library = name.split('.')[0]
    assert not name.startswith('flax.linen') or module.startswith('models.'), f'{module} imports {name}'
    assert library != 'tensorflow' or (module.startswith('data.') and not at_top), f'{module} imports {name}'
    assert library != 'torch', f'{module} imports {name}'


@pytest.mark.parametrize('module', FILES)
def test_pickles_are_only_taken_apart(module):
  """What `pickle` loads it may execute."""
  for name, _ in imports_of(FILES[module]):
    assert name.split('.')[0] not in ('pickle', '_pickle', 'dill', 'cloudpickle', 'marshal', 'shelve'), module


@pytest.mark.parametrize('path', sorted((REPO / 'configs').glob('*.py')), ids=lambda path: path.name)
def test_configs_run_as_they_say(path, monkeypatch):
  monkeypatch.chdir(REPO)
  command = re.search(r'^python -m dgnet_jax\.main (.*)$', ast.get_docstring(ast.parse(path.read_text())), re.MULTILINE)
  assert command, 'the run command belongs on top'
  options, _ = main.parse(command[1].split())
  assert options.config == f'configs/{path.name}'
  assert options.mode == 'train'


def test_every_field_is_read_somewhere():
  readers = [path.read_text() for module, path in FILES.items() if not module.startswith('config')]
  for name, _ in leaves(default_config()):
    word = re.compile(rf'[.\'"]{name.rsplit(".", 1)[-1]}\b')  # an attribute or a key
    assert any(word.search(text) for text in readers), f'nothing reads {name}'
