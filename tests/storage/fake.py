"""Object storage within this process: fsspec's memory://, and an S3 server of moto's."""

import itertools

import fsspec

from dgnet_jax.storage import local_copies, remote_folder
from dgnet_jax.storage.mirror import COPY

remote_folder.EXTRAS['memory'] = ''  # for users, what is stored there would be gone with the process
_numbers = itertools.count()


def new_address():
  """An address of memory storage that nothing is stored at."""
  return f'memory://bucket/{next(_numbers)}/runs/market'


def on_another_machine(monkeypatch, folder):
  """From here on this process has the local copies, and the cache, of another machine."""
  forget_copies()
  monkeypatch.setenv('XDG_CACHE_HOME', str(folder))


def forget_copies():
  """Ends what the exit of a process ends."""
  local_copies._until_exit.close()
  local_copies._held.clear()


def stored(address):
  """Content of each file in a folder of memory storage, by name, without the name of the copy that was sent."""
  files, root = fsspec.core.url_to_fs(address)
  return {name: files.cat_file(path) for path in files.find(root) if (name := path.removeprefix(f'{root}/')) != COPY}
