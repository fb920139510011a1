"""The same over the network: moto's S3 server, with s3fs as users have it."""

import json
import os
import signal

import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.errors import UserError
from dgnet_jax.storage.lease import leased
from dgnet_jax.storage.remote_folder import RemoteFolder
from dgnet_jax.storage.run_files import MARKER
from tests.exhaustive import EXHAUSTIVE
from tests.storage.s3_server import s3_server
from tests.tiny_run import tiny_config
from tests.training.jobs import Job, contents, finish, new_run, run_config

pytest.importorskip('moto', reason='needs moto and flask, as in the extra test')


@pytest.fixture(scope='module')
def server():
  with s3_server() as environment:
    yield environment


@pytest.fixture
def folder(server, monkeypatch, tmp_path):
  for name, value in server.items():
    monkeypatch.setenv(name, value)
  return RemoteFolder(f's3://bucket/{tmp_path.name}')


@pytest.mark.filterwarnings('ignore::ResourceWarning')  # of botocore's sessions
def test_files_and_locks(folder, tmp_path):
  assert folder.list_files() == {}
  folder.write('a/b', b'one')
  first = folder.list_files()['a/b']
  folder.write('a/b', b'two')
  assert folder.list_files()['a/b'].version != first.version and first.size == 3
  content = os.urandom(6 * 2**20)
  (tmp_path / 'x').write_bytes(content)
  folder.upload(tmp_path / 'x', 'c')
  folder.download('c', tmp_path / 'y')
  assert (tmp_path / 'y').read_bytes() == content
  with pytest.raises(FileExistsError):
    folder.write('c', b'', only_new=True)
  with pytest.raises(FileNotFoundError):
    folder.read('absent')
  folder.remove('c')
  folder.remove('c')
  with leased(folder, lambda error: None):
    assert set(folder.list_files()) == {'a/b', 'dgnet.lock'}
  assert set(folder.list_files()) == {'a/b'}


@pytest.mark.filterwarnings('ignore::ResourceWarning')
def test_a_missing_bucket_is_named(folder, tmp_path):
  missing = RemoteFolder('s3://absent/run')
  for use in (missing.list_files, lambda: missing.write('a', b''), lambda: missing.upload(tmp_path / 'x', 'a')):
    (tmp_path / 'x').write_bytes(b'')
    with pytest.raises(UserError, match='s3://absent/run: there is no such bucket'):
      use()


@pytest.mark.long
@pytest.mark.filterwarnings('ignore::ResourceWarning')
@EXHAUSTIVE
def test_a_run_that_changes_machines_equals_an_unbroken_one(folder, server, tmp_path):
  """Two machines, of which one is lost; then a third, which is preempted; then the first two again, to the end."""
  config = run_config(tiny_config())
  finish(new_run(tmp_path, 'alone', config), devices=2)
  save_config(config, tmp_path / 'config.json')
  folder.upload(tmp_path / 'config.json', 'config.json')

  def job_on(*machines):
    """A job of as many processes, with two devices together."""
    caches = [server | {'XDG_CACHE_HOME': str(tmp_path / name)} for name in machines]
    count = len(machines)
    return Job(folder.address, processes=count, devices=2 // count, folder=tmp_path, environments=caches)

  def has_checkpoint(step):
    return f'checkpoints/{step}/{MARKER}' in folder.list_files()

  with job_on('a', 'b') as job:
    job.wait_until(lambda: has_checkpoint(10))
    job.processes[0].kill()
    assert job.statuses() == [-signal.SIGKILL, 1], job.texts()
  with job_on('c') as job:
    job.wait_for(r'\n2\d/40 ')
    job.processes[0].send_signal(signal.SIGTERM)
    assert job.statuses() == [130], job.texts()
    assert 'is gone; this one goes on' in job.texts()[0]
  with job_on('a', 'b') as job:
    assert job.statuses() == [0, 0], job.texts()
  assert folder.list_files().keys() >= {'log.txt', 'log.1.txt', 'evaluation/results.json'}
  assert contents(_downloaded(folder, tmp_path / 'run')) == contents(tmp_path / 'alone')
  assert [start.get('outcome') for start in json.loads(folder.read('run.json'))['starts']] == [
    None,
    'interrupted',
    'done',
  ]


def _downloaded(folder, target):
  for name in folder.list_files():
    (target / name).parent.mkdir(parents=True, exist_ok=True)
    folder.download(name, target / name)
  return target
