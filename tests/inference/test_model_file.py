"""A trained model in one file, and the one that comes with the package."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors
import safetensors.numpy

import dgnet_jax
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.config.validation import leaves
from dgnet_jax.data.synthetic.examples import write_examples
from dgnet_jax.errors import UserError
from dgnet_jax.inference.model_file import KEY
from dgnet_jax.reports.sharing import export_file
from dgnet_jax.utils.paths import packaged_models
from tests.tiny_run import correspondence_config, frozen, save_checkpoint, tiny_config


def write_run(folder, config, step=7):
  save_config(frozen(config), folder / SAVED_CONFIG)
  save_checkpoint(frozen(config), folder, num_identities=3, step=step)
  return folder


def with_config(description, section, **fields):
  config = description['config']
  return description | {'config': config | {section: config[section] | fields}}


@pytest.fixture(scope='module')
def images():
  return np.random.default_rng(0).integers(0, 256, (3, 32, 16, 3), np.uint8)


@pytest.fixture(scope='module')
def file(tmp_path_factory):
  folder = tmp_path_factory.mktemp('run')
  export_file(write_run(folder, tiny_config()), folder / 'model.safetensors')
  return folder / 'model.safetensors'


@pytest.mark.parametrize('make_config', [tiny_config, correspondence_config])
def test_a_file_gives_the_results_of_its_run(tmp_path, images, make_config):
  run, path = write_run(tmp_path, make_config()), tmp_path / 'model.safetensors'
  export_file(run, path)
  saved, read = dgnet_jax.load(run), dgnet_jax.load(path)
  assert (read.step, read.num_identities, read.workdir) == (7, 3, path)
  assert dataclasses.replace(read.config, data=saved.config.data) == saved.config
  np.testing.assert_array_equal(read.embed(images), saved.embed(images))
  swapped = [model.swap(structure_from=images, appearance_from=images[::-1]) for model in (read, saved)]
  np.testing.assert_array_equal(*swapped)


def test_a_run_without_generator(tmp_path, images):
  config = tiny_config()
  config.joint = False
  export_file(write_run(tmp_path, config), tmp_path / 'model.safetensors')
  model = dgnet_jax.load(tmp_path / 'model.safetensors')
  np.testing.assert_array_equal(model.embed(images), dgnet_jax.load(tmp_path).embed(images))
  with pytest.raises(UserError, match='joint=False'):
    model.swap(structure_from=images, appearance_from=images)
  with safetensors.safe_open(tmp_path / 'model.safetensors', 'np') as opened:
    assert not any(name.startswith('generator/') for name in opened.keys())


def test_no_path_of_the_run_is_in_the_file(tmp_path):
  config, home = tiny_config(), '/home/alice/'
  config.data.root, config.data.layout = f'{home}photos', 'folders'
  config.data.camera_pattern = config.data.identity_pattern = ''
  config.teacher.checkpoint = config.teacher.pretrained = config.reid.pretrained = f'{home}weights.pth'
  config.log.wandb_project = 'alice'
  export_file(write_run(tmp_path, config), tmp_path / 'model.safetensors')
  assert b'alice' not in (tmp_path / 'model.safetensors').read_bytes()
  assert dgnet_jax.load(tmp_path / 'model.safetensors').config.data.layout == 'folders'


@pytest.mark.parametrize('file', packaged_models().values(), ids=str)
def test_no_path_is_in_a_model_of_the_package(file):
  with safetensors.safe_open(file, 'np') as opened:
    description = json.loads(opened.metadata()[KEY])
  texts = [value for _, value in leaves(description) if isinstance(value, str)]
  assert texts and not [text for text in texts if '/' in text or '\\' in text]


def test_a_file_is_exported_again_with_what_it_says(tmp_path, images):
  export_file('synthetic', tmp_path / 'copy.safetensors')
  found = [
    json.loads(safetensors.safe_open(path, 'np').metadata()[KEY])
    for path in (tmp_path / 'copy.safetensors', packaged_models()['synthetic'])
  ]
  assert found[0]['about'] == found[1]['about']
  models = [dgnet_jax.load(path) for path in (tmp_path / 'copy.safetensors', 'synthetic')]
  np.testing.assert_array_equal(*(model.embed(images) for model in models))


def test_one_checkpoint_of_several_is_exported(tmp_path):
  write_run(tmp_path, tiny_config(), step=5)
  write_run(tmp_path, tiny_config(), step=7)
  export_file(tmp_path / 'checkpoints' / '5', tmp_path / 'model.safetensors')
  assert dgnet_jax.load(tmp_path / 'model.safetensors').step == 5


@pytest.mark.parametrize(('measured', 'known'), [(7, True), (6, False)])
def test_results_of_this_step_are_stored(tmp_path, measured, known):
  write_run(tmp_path, tiny_config())
  (tmp_path / 'evaluation').mkdir()
  results = {'step': measured, 'single_query': {'both': {'rank_1': 0.5, 'mAP': 0.25}}}
  (tmp_path / 'evaluation' / 'results.json').write_text(json.dumps(results))
  export_file(tmp_path, tmp_path / 'model.safetensors')
  with safetensors.safe_open(tmp_path / 'model.safetensors', 'np') as opened:
    about = json.loads(opened.metadata()[KEY])['about']
  assert (about['results'].get('evaluation', {}).get('both: mAP, %') == 25) == known == bool(about['results'])
  assert 'host' not in about['setup'] and 'platform' not in about['setup']


class TestBadFiles:
  def changed(self, file, path, change_arrays=lambda arrays: arrays, change_metadata=lambda metadata: metadata):
    with safetensors.safe_open(file, 'np') as opened:
      arrays, metadata = {name: opened.get_tensor(name) for name in opened.keys()}, opened.metadata()
    path.write_bytes(safetensors.numpy.save(change_arrays(arrays), change_metadata(metadata)))
    return path

  @pytest.mark.parametrize(
    ('change', 'reason'),
    [
      (lambda description: description | {'format': 2}, 'of format 2; this version reads format 1'),
      (lambda description: description | {'format': '\x1b[31m' * 10**6}, r"of format '\\x1b.{0,60}\.\.\. "),
      (lambda description: description | {'step': -1}, 'step is -1'),
      (lambda description: description | {'step': ['x'] * 10**6}, r'step is .{0,60}\.\.\. '),
      (lambda description: description | {'num_identities': 10**12}, 'num_identities is 1000000000000'),
      (lambda description: description | {'num_identities': True}, 'num_identities is True'),
      (lambda description: description | {'config': []}, 'config or about is no table'),
      (lambda description: description | {'config': {'seed': 'x'}}, 'seed'),
      (lambda description: description | {'config': {'\x1b[31m': 1}}, r'  \\x1b\[31m: no such field'),
      (
        lambda description: with_config(description, 'reid', stage_sizes=[10**6, 1]),
        'reid.stage_sizes asks for more than the [0-9]+ arrays in the file',
      ),
      (
        lambda description: with_config(description, 'data', image_size_hw=[2**14, 2**14]),
        'more than 4,194,304 pixels',
      ),
      (lambda description: {}, 'damaged'),
      (lambda description: [], 'damaged'),
      (lambda description: description | {'num_identities': 4}, 'arrays that are not those of its config'),
    ],
  )
  def test_description(self, file, tmp_path, change, reason):
    def changed(metadata):
      return {KEY: json.dumps(change(json.loads(metadata[KEY])))}

    with pytest.raises(UserError, match=f'(?s)bad.safetensors.*{reason}'):
      dgnet_jax.load(self.changed(file, tmp_path / 'bad.safetensors', change_metadata=changed))

  @pytest.mark.parametrize(
    'change',
    [
      lambda arrays: dict(list(arrays.items())[1:]),
      lambda arrays: arrays | {'reid/extra': np.zeros(1, np.float32)},
      lambda arrays: {name: array.astype(np.float16) for name, array in arrays.items()},
      lambda arrays: {name: array * np.float32(np.nan) for name, array in arrays.items()},
      lambda arrays: {name.replace('reid/', 'teacher/'): array for name, array in arrays.items()},
    ],
  )
  def test_arrays(self, file, tmp_path, change):
    with pytest.raises(UserError, match='bad.safetensors: arrays that are not those of its config, or not finite: '):
      dgnet_jax.load(self.changed(file, tmp_path / 'bad.safetensors', change_arrays=change))

  @pytest.mark.parametrize('name', ['reid/\x1b[31m\nx', 'x' * 200])
  def test_names_of_arrays_are_shown_on_one_line(self, file, tmp_path, name):
    path = self.changed(file, tmp_path / 'bad.safetensors', lambda arrays: arrays | {name: np.zeros(1)})
    with pytest.raises(UserError) as caught:
      dgnet_jax.load(path)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 250 + len(str(tmp_path))

  def test_the_header_is_bounded(self, tmp_path):
    path = tmp_path / 'bad.safetensors'
    for names in ([str(i) for i in range(10_001)], ['\x1b' * 301]):
      path.write_bytes(safetensors.numpy.save({name: np.zeros(0, np.float32) for name in names}))
      with pytest.raises(UserError, match='more than 10000 arrays, or a name of more than 300 characters'):
        dgnet_jax.load(path)

  def test_other_files(self, tmp_path):
    path = tmp_path / 'bad.safetensors'
    with pytest.raises(UserError, match='no such file'):
      dgnet_jax.load(path)
    path.write_bytes(safetensors.numpy.save({'x': np.zeros(3)}))
    with pytest.raises(UserError, match='not a model of dgnet_jax; `dgnet export RUN .* writes one'):
      dgnet_jax.load(path)
    path.write_bytes(b'\xff' * 100)
    with pytest.raises(UserError, match='damaged, or not a safetensors file'):
      dgnet_jax.load(path)

  def test_a_step_cannot_be_chosen(self, file):
    with pytest.raises(UserError, match='is one model; name the work folder of a run to choose step best'):
      dgnet_jax.load(file, step='best')


class TestPackagedModel:
  def test_is_loaded_by_its_name(self):
    model = dgnet_jax.load('synthetic')
    assert model.step == 2000 and model.config.generator.design == 'correspondence'
    assert 'market' not in packaged_models()
    with pytest.raises(UserError, match='market: no such folder'):
      dgnet_jax.load('market')

  def test_a_folder_of_that_name_comes_first(self, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'synthetic').mkdir()
    write_run(tmp_path / 'synthetic', tiny_config())
    assert dgnet_jax.load('synthetic').step == 7

  def test_finds_people(self, tmp_path):
    """Each image by the first camera, among those by the other cameras; one of twelve would be chance."""
    people = write_examples(tmp_path / 'people')
    model = dgnet_jax.load('synthetic')
    queries = sorted(people.glob('*/camera_1.jpg'))
    gallery = sorted(set(people.glob('*/*.jpg')) - set(queries))
    best = [matches[0].path for matches in model.rank(queries, gallery, count=1)]
    right = [query.parent.name in path for query, path in zip(queries, best, strict=True)]
    assert np.mean(right) >= 0.6

  def test_says_where_it_is_from(self):
    with safetensors.safe_open(packaged_models()['synthetic'], 'np') as opened:
      about = json.loads(opened.metadata()[KEY])['about']
    assert about['results']['evaluation']['both: mAP, %'] > 60
    assert about['setup']['training data'].endswith('1024 images of 64 identities')
