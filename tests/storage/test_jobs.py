"""The commands on a work folder on object storage, in this process."""

import json
import os
import signal
import time

import numpy as np
from PIL import Image
import pytest

from dgnet_jax import load
from dgnet_jax.cli import train as cli_train
from dgnet_jax.cli.main import main
from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.storage.local_copies import kept_in_step
from tests.data.folders import write_market
from tests.storage.fake import forget_copies, new_address, on_another_machine, stored
from tests.tiny_run import frozen, save_checkpoint, tiny_config


@pytest.fixture(scope='module')
def config():
  return frozen(tiny_config())


@pytest.fixture(scope='module')
def run(config, tmp_path_factory):
  """Address of a run with checkpoints of the steps 2 and 3; its folder on the machine that wrote it."""
  with pytest.MonkeyPatch.context() as monkeypatch:
    on_another_machine(monkeypatch, tmp_path_factory.mktemp('writer'))
    address = new_address()
    with kept_in_step(address) as copy:
      folder = copy.folder
      save_config(config, folder / SAVED_CONFIG)
      for step in (2, 3):
        save_checkpoint(config, folder, num_identities=4, step=step)
      (folder / 'metrics.jsonl').write_text(json.dumps({'step': 1, 'loss/total': 2.0}) + '\n')
    forget_copies()
    yield address, folder


def test_models_are_loaded_from_their_address(run):
  address, folder = run
  image = np.zeros((1, 32, 16, 3), np.uint8)
  embedding = load(folder, batch_size=1).embed(image)
  model = load(address, batch_size=1)
  assert np.array_equal(model.embed(image), embedding)
  assert model.workdir != folder
  assert {path.name for path in (model.workdir / 'checkpoints').iterdir()} == {'3'}
  assert load(f'{address}/checkpoints', batch_size=1).step == 3
  assert load(f'{address}/checkpoints/2/', batch_size=1).step == 2


@pytest.mark.parametrize('inside', ['/checkpoints/7', '/absent', '/checkpoints/2/state'])
def test_what_is_no_run_is_an_error(run, inside):
  with pytest.raises(UserError, match='not a work folder|no such folder|no checkpoint'):
    load(run[0] + inside, batch_size=1)


def test_commands_read_runs_from_their_address(run, tmp_path, capsys):
  address, folder = run
  Image.new('RGB', (16, 32)).save(tmp_path / 'a.png')
  main(['embed', address, str(tmp_path / 'a.png'), f'--out={tmp_path / "a.npz"}'])
  assert np.load(tmp_path / 'a.npz')['embedding'].shape[0] == 1
  main(['compare', address, str(folder)])
  main(['figures', 'curves', f'--workdir={address}', f'--out={tmp_path / "curves.png"}'])
  main(['report', address, f'--out={tmp_path / "report.html"}'])
  assert (tmp_path / 'curves.png').exists() and address in (tmp_path / 'report.html').read_text()
  assert address in capsys.readouterr().out


@pytest.mark.parametrize(
  'arguments',
  [
    ['export', 'ADDRESS', '--out=x'],
    ['compare', 'ADDRESS', 'ADDRESS'],
    ['report', 'ADDRESS', '--out=x.html'],
    ['figures', 'curves', '--workdir=ADDRESS', '--out=x.png'],
    ['replay', '--workdir=ADDRESS'],
    ['evaluate', '--workdir=ADDRESS'],
    ['embed', 'ADDRESS', 'a.png', '--out=x.npz'],
  ],
)
def test_messages_name_the_address(tmp_path, monkeypatch, capsys, arguments):
  """There is no run."""
  monkeypatch.chdir(tmp_path)
  Image.new('RGB', (16, 32)).save('a.png')
  address = new_address()
  with pytest.raises(SystemExit) as caught:
    main([argument.replace('ADDRESS', address) for argument in arguments])
  message = capsys.readouterr().err.splitlines()[-1]
  assert caught.value.code == 2 and address in message and 'object_storage' not in message


def test_data_sets_are_copied(tmp_path):
  (tmp_path / 'market').mkdir()
  write_market(tmp_path / 'market')
  address = new_address()
  with kept_in_step(address) as copy:
    (copy.folder / 'data').mkdir()
    write_market(copy.folder / 'data')
  found, expected = (
    open_dataset(DataConfig(layout='market1501', root=root), tmp_path)
    for root in (f'{address}/data', str(tmp_path / 'market'))
  )
  assert len(found.train) and found.train.identity.tolist() == expected.train.identity.tolist()


class TestWorkFolder:
  """What a job sees and leaves; the job itself is replaced."""

  @pytest.fixture
  def job(self, monkeypatch):
    """Runs `dgnet train` with a function in the place of the work, which gets the local work folder."""

    def start(address, work):
      monkeypatch.setattr(cli_train, '_dispatch', lambda mode, config, folder, step: work(folder.path))
      main(['train', '--config=synthetic', f'--workdir={address}'])

    return start

  def test_everything_is_stored(self, job, address, capsys):
    job(address, lambda folder: (folder / 'metrics.jsonl').write_text('{}\n'))
    content = stored(address)
    assert set(content) == {'config.json', 'run.json', 'log.txt', 'metrics.jsonl'}
    assert json.loads(content['run.json'])['starts'][0]['outcome'] == 'done'
    assert f'results in {address}' in content['log.txt'].decode()
    assert f'results in {address}' in capsys.readouterr().err

  def test_the_next_job_has_the_config_and_goes_on(self, job, address, monkeypatch, tmp_path):
    job(address, lambda folder: None)
    on_another_machine(monkeypatch, tmp_path / 'b')
    monkeypatch.setattr(cli_train, '_dispatch', lambda *_: None)
    main(['train', f'--workdir={address}'])
    assert len(json.loads(stored(address)['run.json'])['starts']) == 2
    assert stored(address)['log.txt'].decode().count('mode train') == 2

  @pytest.mark.parametrize(('error', 'status'), [(UserError('bad images in {}'), 2), (Interrupted('saved in {}'), 130)])
  def test_errors_name_the_address(self, job, address, capsys, error, status):
    def work(folder):
      raise type(error)(str(error).format(folder / 'x'))

    with pytest.raises(SystemExit) as caught:
      job(address, work)
    assert caught.value.code == status
    assert str(error).format(f'{address}/x') in capsys.readouterr().err
    if status == 2:
      assert str(error).format(f'{address}/x') in stored(address)['log.txt'].decode()

  def test_sigterm_outside_of_training_sends_what_there_is(self, job, address, capsys):
    def work(folder):
      (folder / 'evaluation.txt').write_text('half')
      os.kill(os.getpid(), signal.SIGTERM)
      time.sleep(10)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
      job(address, work)
    assert caught.value.code == 130 and 'stopped by SIGTERM' in capsys.readouterr().err
    assert stored(address)['evaluation.txt'] == b'half'
    assert json.loads(stored(address)['run.json'])['starts'][0]['outcome'] == 'interrupted'
    assert signal.getsignal(signal.SIGTERM) == before

  def test_a_folder_without_a_config_is_an_error(self, address, capsys):
    with pytest.raises(SystemExit) as caught:
      main(['train', f'--workdir={address}'])
    assert caught.value.code == 2
    assert f'there is no config.json in {address}' in capsys.readouterr().err
    assert stored(address) == {}
