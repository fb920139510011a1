"""`dgnet calibrate`, and what uses its threshold."""

import json
import pathlib
import shutil

import numpy as np
import pytest

import dgnet_jax
from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import save_config
from dgnet_jax.data.image_lists import as_image_list
from dgnet_jax.errors import UserError
from dgnet_jax.inference.calibration import CALIBRATION, read_calibration
from dgnet_jax.serving.service import ModelService
from tests.tiny_run import frozen, save_checkpoint, tiny_config


@pytest.fixture(scope='module')
def run(tiny_run, tmp_path_factory):
  """A calibrated copy of the tiny run, with its data."""
  workdir = tmp_path_factory.mktemp('calibrated') / 'run'
  shutil.copytree(tiny_run[1], workdir)
  main(['calibrate', str(workdir), '--fpr', '0.1', '0.3'])
  return workdir


@pytest.fixture(scope='module')
def calibration(run):
  return json.loads((run / CALIBRATION).read_text())


def test_the_file_says_what_it_is_of(run, calibration, tiny_run):
  assert calibration['step'] == 7 and calibration['alpha'] == 0.5 and calibration['data']['test_split_of_run']
  assert calibration['data']['splits'] == ['query', 'gallery'] and calibration['num_identities'] == 5
  first, second = calibration['thresholds']
  assert (first['false_positive_rate'], second['false_positive_rate']) == (0.1, 0.3)
  assert first['score'] >= second['score'] and first['score_interval'][0] <= first['score_interval'][1]
  index = tiny_run[2]
  model = dgnet_jax.load(run)
  scores = model.embed(list(index.query.paths)) @ model.embed(list(index.gallery.paths)).T
  negative = (index.query.identity[:, None] != index.gallery.identity) & (index.gallery.identity >= 0)
  assert negative.sum() == calibration['num_negative_pairs']
  for threshold in (first, second):
    assert np.mean(scores[negative] >= threshold['score']) <= threshold['false_positive_rate']


def test_rank_says_who_is_the_same_person(run, calibration, tiny_run, capsys):
  query, gallery = tiny_run[2].query.paths[0], [tiny_run[2].query.paths[0], *tiny_run[2].gallery.paths]
  main(['rank', str(run), query, '--count=100', '--format=json', '--gallery', *gallery])
  found = json.loads(capsys.readouterr().out)
  score = calibration['thresholds'][0]['score']
  assert found['threshold'] == score
  matches = found['queries'][0]['matches']
  assert [match['same_person'] for match in matches] == [match['score'] >= score for match in matches]
  assert matches[0]['same_person'] and not matches[-1]['same_person']
  main(['rank', str(run), query, '--count=100', '--fpr=0.3', '--gallery', *gallery])
  lines = capsys.readouterr().out.splitlines()[1:]
  second = calibration['thresholds'][1]['score']
  assert sum('same person' in line for line in lines) == sum(match['score'] >= second for match in matches)


def test_a_threshold_of_another_checkpoint_or_alpha_is_not_used(run, tiny_run, lines):
  image = tiny_run[2].query.paths[0]
  model, older = dgnet_jax.load(run), dgnet_jax.load(run / 'checkpoints' / '3')
  assert model.rank(image, image)[0][0].same_person is True
  assert older.rank(image, image)[0][0].same_person is None
  assert model.rank(image, image, alpha=0.25)[0][0].same_person is None
  warnings = [line for line in lines if 'run `dgnet calibrate` again' in line]
  assert len(warnings) == 2 and 'of step 7 with alpha 0.5' in warnings[0]
  with pytest.raises(UserError, match=r'has the false-positive rates 0\.1, 0\.3, not 0\.2'):
    model.rank(image, image, false_positive_rate=0.2)
  assert dgnet_jax.load(tiny_run[1]).rank(image, image)[0][0].same_person is None


def test_the_server_says_it(run, tiny_run):
  service = ModelService(dgnet_jax.load(run), as_image_list(list(tiny_run[2].query.paths[:2])))
  image = service.read(pathlib.Path(tiny_run[2].query.paths[0]).read_bytes(), 'query')
  assert service.rank(service.embed([image]), count=1)[0][0]['same_person'] is True


def test_other_data_can_be_named(run, tmp_path, capsys, monkeypatch):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  shutil.copytree(workdir / 'synthetic_data', tmp_path / 'others')
  monkeypatch.chdir(tmp_path)
  main(['calibrate', str(workdir), '--alpha=0', '--fpr', '0.1', '1e-9', '--config.data.root=others'])
  printed = capsys.readouterr().out
  assert 'pairs of one person' in printed and printed.count('at least') == printed.count('at most') == 1
  values = json.loads((workdir / CALIBRATION).read_text())
  assert values['alpha'] == 0 and values['data']['root'] == str(tmp_path / 'others')
  assert not values['data']['test_split_of_run'] and values['data']['layout'] == 'market1501'


def test_evaluate_measures_the_threshold(run, calibration, tmp_path):
  workdir = tmp_path / 'run'
  shutil.copytree(run, workdir)
  main(['evaluate', f'--workdir={workdir}'])
  found = json.loads((workdir / 'evaluation' / 'results.json').read_text())['same_person']
  threshold = calibration['thresholds'][0]
  assert found['score'] == threshold['score'] and found['false_positive_rate'] <= 0.1
  assert found['true_positive_rate'] == pytest.approx(threshold['true_positive_rate'])


def test_a_missing_value_is_named(run, calibration, tmp_path):
  (tmp_path / CALIBRATION).write_text(json.dumps({name: calibration[name] for name in calibration if name != 'alpha'}))
  with pytest.raises(UserError, match="'alpha' is missing"):
    read_calibration(tmp_path)


@pytest.mark.parametrize('text', ['', '[]', '{"format": 1}', '{"format": 1, "thresholds": [{}]}'])
def test_damaged_calibrations_are_named(tiny_run, tmp_path, text):
  shutil.copytree(tiny_run[1] / 'checkpoints' / '7', tmp_path / 'checkpoints' / '7')
  (tmp_path / CALIBRATION).write_text(text)
  with pytest.raises(UserError, match=r'calibration\.json: cannot be read'):
    dgnet_jax.load(tmp_path).threshold()


def test_wrong_rates_and_fields_are_refused(tiny_run, capsys):
  for arguments, problem in (
    (['--fpr=1'], 'below 1'),
    (['--config.seed=1'], 'only fields of data'),
    (['--config.data.val_identities=2'], 'was decided when it was trained'),
  ):
    with pytest.raises(SystemExit, match='2'):
      main(['calibrate', str(tiny_run[1]), *arguments])
    assert problem in capsys.readouterr().err


def test_held_out_people_are_used_if_there_are_some(tmp_path):
  config = tiny_config()
  config.data.val_identities = 2
  config.data.synthetic.num_train_identities = 6
  save_config(frozen(config), tmp_path / 'config.json')
  save_checkpoint(frozen(config), tmp_path, num_identities=4, step=7)
  main(['calibrate', str(tmp_path), '--fpr=0.2'])
  values = json.loads((tmp_path / CALIBRATION).read_text())
  assert values['data']['splits'] == ['validation'] and not values['data']['test_split_of_run']
  assert values['num_identities'] == 2


@pytest.mark.parametrize('name', ['synthetic', 'model.safetensors'])
def test_a_model_without_a_work_folder_cannot_be_calibrated(tmp_path, monkeypatch, capsys, name):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'model.safetensors').write_bytes(b'x')
  with pytest.raises(SystemExit, match='2'):
    main(['calibrate', name])
  assert f'{name}: a calibration is kept in the work folder of a run' in capsys.readouterr().err
