"""Local copies of a folder on object storage, as jobs and readers on several machines have them."""

from dgnet_jax.storage.mirror import COPY, Mirror
from dgnet_jax.storage.remote_folder import StorageError
from dgnet_jax.storage.run_files import MARKER, everything, newest_checkpoints


def machine(remote, tmp_path, name):
  """The copy that the next job of a machine goes on from."""
  mirror = Mirror(remote, tmp_path / name / 'market')
  mirror.take_over()
  return mirror


def reader(remote, tmp_path, name, wanted=newest_checkpoints):
  """A copy of a process that only reads."""
  mirror = Mirror(remote, tmp_path / name / 'market')
  mirror.fetch(wanted)
  return mirror


def write(mirror, name, text='content'):
  path = mirror.folder / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(text)


def write_checkpoint(mirror, step, text='content', folder='checkpoints'):
  for name in ('state/d/1', 'state/manifest', MARKER):
    write(mirror, f'{folder}/{step}/{name}', text)


def contents(mirror):
  return {
    str(path.relative_to(mirror.folder)): path.read_bytes()
    for path in mirror.folder.rglob('*')
    if path.is_file() and path.name != COPY
  }


def elsewhere_copy(remote, folder):
  """What another machine fetches, which sends nothing."""
  mirror = Mirror(remote, folder / 'market')
  mirror.fetch(everything)
  return mirror


def failing_at(number, remote, monkeypatch):
  """From now on the request of this number fails, and all later ones, as if the process had been killed there."""
  requests = []

  def failing(name):
    method = getattr(remote, name)

    def request(*arguments):
      requests.append(name)
      if len(requests) > number:
        raise StorageError('no network')
      return method(*arguments)

    return request

  context = monkeypatch.context()
  patched = context.__enter__()
  for name in ('upload', 'remove', 'write'):
    patched.setattr(remote, name, failing(name))
  return context, requests
