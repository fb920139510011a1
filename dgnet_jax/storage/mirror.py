"""A local copy of a folder on object storage: fetched once, and sent back as its files change.

What fits local files only (appending, renaming, locks, memory maps) works on the copy. The storage never shows half of
anything that matters: a file is replaced whole, the files of a checkpoint come after the files beside it, and the one
that completes the checkpoint (`MARKER`) comes last.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
import contextlib
import logging
import os
import pathlib
import re
import shutil
import threading
from typing import NamedTuple

from dgnet_jax.storage.remote_folder import RemoteFile, RemoteFolder
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.bounded_files import read_json
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

MARKER = '_CHECKPOINT_METADATA'  # of Orbax, in each complete checkpoint
CHECKPOINT = re.compile(r'(?P<folder>(?P<parent>(?:.+/)?checkpoints)/(?P<step>[0-9]{1,18}))/.+')
# What stays on this machine: data that are copied or rendered again elsewhere, locks, files that are being written, and
# the logs of further processes, which these send themselves.
OWN = re.compile(
  r'(synthetic_data|data_cache)/.*|(.*/)?(\.(.+\.)?[0-9a-f]{8}\.part|\.[a-z_.]*lock|\.shared_[^/]*|dgnet\.lock'
  r'|\.replaced_[^/]*|[^/]*\.orbax-checkpoint-tmp[^/]*|log\.[0-9]+\.txt)(/.*)?'
)
REPLACED = '.replaced_'  # in the names of checkpoints that are being replaced
THREADS = 16
MIB = 2**20


class Sent(NamedTuple):
  """A file that was the same on this machine and on the storage.

  Attributes:
    size: bytes, of the local file.
    modified: of the local file, in ns.
    version: `RemoteFile.version`.
  """

  size: int
  modified: int
  version: str


class Mirror:
  """A local folder and its counterpart on object storage."""

  def __init__(self, remote: RemoteFolder, folder: pathlib.Path) -> None:
    """Args:
    remote: the folder on object storage.
    folder: the local copy, which only this object writes for the storage. What was the same in both is kept beside it.
    """
    self.remote = remote
    self.folder = folder
    self._record = folder.with_name(f'{folder.name}.json')
    self._sent = _read_record(self._record) if folder.is_dir() else {}
    self._sending = threading.Lock()

  def fetch(self, wanted: Callable[[Collection[str]], Collection[str]]) -> None:
    """Makes the copy what the storage has.

    A checkpoint that is not complete on the storage is left out. What a killed job of this machine wrote and did not
    send is kept, unless the folder was changed from elsewhere since.

    Args:
      wanted: selects from the names of all files on the storage.

    Raises:
      UserError: the storage cannot be read, or has no such bucket.
      OSError: the copy cannot be written.
    """
    listed = _complete(self.remote.list_files())
    chosen = {name: listed[name] for name in wanted(listed)}
    self.folder.mkdir(parents=True, exist_ok=True)
    local = dict(self._scan())
    unsent = self._unsent(local)
    is_as_sent = all(name in listed and listed[name].version == sent.version for name, sent in self._sent.items())
    if unsent and is_as_sent and all(name in self._sent for name in chosen):
      logger.info(f'{self.remote.address}: going on from files of this machine that were not sent yet')
      return
    if unsent:
      logger.warning(
        f'{self.remote.address}: going on from what is stored there; {len(unsent)} files of an earlier job on this '
        'machine, which it did not send completely, are dropped'
      )
    for name in local:
      if name not in listed:
        (self.folder / name).unlink(missing_ok=True)
    missing = [name for name, file in chosen.items() if not self._has(name, file, local)]
    self._download(missing, listed)
    self._sent = {name: sent for name, sent in self._sent.items() if name in listed and name not in unsent}
    self._remember({name: listed[name] for name in missing}, dict(self._scan()))
    _remove_empty_folders(self.folder)

  def send(self) -> None:
    """Sends what has changed since the last time, and removes what is gone.

    Raises:
      StorageError: the storage cannot be reached; the next call sends everything again.
    """
    with self._sending:
      self._send()

  def _send(self) -> None:
    local = dict(self._scan())
    changed = [name for name, stat in local.items() if self._sent.get(name, ())[:2] != stat]
    gone = [name for name in self._sent if name not in local]
    if self._is_replacing():  # a checkpoint has another name until its replacement is complete
      gone = [name for name in gone if not CHECKPOINT.fullmatch(name)]
    if not changed and not gone:
      return
    touched = _folders((*changed, *gone))
    # From here on these checkpoints are incomplete, until their marker comes back.
    self._in_parallel(self.remote.remove, [f'{folder}/{MARKER}' for folder in touched])
    markers = {f'{folder}/{MARKER}' for folder in touched} & local.keys()
    parts = [name for name in changed if CHECKPOINT.fullmatch(name) and name not in markers]
    beside = [name for name in changed if not CHECKPOINT.fullmatch(name)]
    sent = self._upload(beside) | self._upload(parts)
    torn = _folders(name for name in parts if name not in sent)  # removed by the job meanwhile
    sent |= self._upload(name for name in markers if name.removesuffix(f'/{MARKER}') not in torn)
    self._in_parallel(self.remote.remove, [name for name in gone if name.rpartition('/')[2] != MARKER])
    self._sent = {name: known for name, known in self._sent.items() if name not in gone}
    listed = self.remote.list_files()
    self._remember({name: listed[name] for name in sent if name in listed}, local)

  def _scan(self) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields name, and size and time of modification, of the files of the copy that belong on the storage."""
    for folder, subfolders, files in os.walk(self.folder):
      inside = os.path.relpath(folder, self.folder)
      prefix = '' if inside == '.' else f'{inside}/'
      subfolders[:] = [name for name in subfolders if not OWN.fullmatch(f'{prefix}{name}/')]
      for name in files:
        with contextlib.suppress(FileNotFoundError):
          if not OWN.fullmatch(prefix + name):
            stat = os.stat(os.path.join(folder, name))
            yield prefix + name, (stat.st_size, stat.st_mtime_ns)

  def _unsent(self, local: Mapping[str, tuple[int, int]]) -> set[str]:
    """Returns the names of local files that are not as they were sent, and of those that are gone."""
    changed = {name for name, stat in local.items() if self._sent.get(name, ())[:2] != stat}
    return changed | {name for name in self._sent if name not in local}

  def _has(self, name: str, file: RemoteFile, local: Mapping[str, tuple[int, int]]) -> bool:
    sent = self._sent.get(name)
    return sent is not None and sent.version == file.version and local.get(name) == sent[:2]

  def _download(self, names: list[str], listed: Mapping[str, RemoteFile]) -> None:
    total = sum(listed[name].size for name in names)
    if names:
      logger.info(f'{self.remote.address}: fetching {total / MIB:.1f} MiB in {len(names)} file(s)')
    progress, done = ProgressLog(logger, 'fetching', total // MIB, 'MiB'), 0

    def download(name: str) -> int:
      with atomic_file(self.folder / name) as temporary:
        self.remote.download(name, temporary)
      return listed[name].size

    with ThreadPoolExecutor(THREADS) as pool:
      for size in pool.map(download, names):
        done += size
        progress.update(done // MIB)

  def _upload(self, names: Iterable[str]) -> set[str]:
    """Sends files, and returns the names of those that still existed."""

    def upload(name: str) -> str:
      try:
        self.remote.upload(self.folder / name, name)
      except FileNotFoundError:
        return ''
      return name

    with ThreadPoolExecutor(THREADS) as pool:
      return {name for name in pool.map(upload, names) if name}

  def _in_parallel(self, function: Callable[[str], None], names: list[str]) -> None:
    with ThreadPoolExecutor(THREADS) as pool:
      list(pool.map(function, names))

  def _is_replacing(self) -> bool:
    return any(any(folder.glob(f'{REPLACED}*')) for folder in self.folder.glob('**/checkpoints'))

  def _remember(self, files: Mapping[str, RemoteFile], local: Mapping[str, tuple[int, int]]) -> None:
    """Records that files are now the same on the storage as they were when the copy was scanned."""
    self._sent |= {name: Sent(*local[name], file.version) for name, file in files.items() if name in local}
    write_json(self._record, self._sent)


def _complete(files: Mapping[str, RemoteFile]) -> dict[str, RemoteFile]:
  """Leaves out the files of checkpoints without their marker, and what does not belong on the storage."""
  folders = {name.removesuffix(f'/{MARKER}') for name in files if name.endswith(f'/{MARKER}')}
  return {
    name: file
    for name, file in files.items()
    if not OWN.fullmatch(name) and ((match := CHECKPOINT.fullmatch(name)) is None or match['folder'] in folders)
  }


def _folders(names: Iterable[str]) -> set[str]:
  return {match['folder'] for name in names if (match := CHECKPOINT.fullmatch(name))}


def everything(names: Collection[str]) -> Collection[str]:
  """What a job that goes on with a run needs: all but the images and curves of the steps done."""
  return [name for name in names if not name.startswith(('images/', 'tensorboard/', 'teacher/tensorboard/'))]


def newest_checkpoints(names: Collection[str]) -> Collection[str]:
  """What a trained network needs: like `everything`, but of each folder of checkpoints only the newest."""
  return _with_checkpoints(names, {})


def with_checkpoint(step: int) -> Callable[[Collection[str]], Collection[str]]:
  """Returns a function like `newest_checkpoints` for the run's checkpoint of this step."""
  return lambda names: _with_checkpoints(names, {'checkpoints': step})


def _with_checkpoints(names: Collection[str], steps: Mapping[str, int]) -> list[str]:
  """Leaves out all checkpoints but those of `steps`, by their folder, and the newest in other folders."""
  found: dict[str, list[int]] = {}
  for name in names:
    if match := CHECKPOINT.fullmatch(name):
      found.setdefault(match['parent'], []).append(int(match['step']))
  chosen = {parent: max(numbers) for parent, numbers in found.items()} | dict(steps)

  def is_needed(name: str) -> bool:
    match = CHECKPOINT.fullmatch(name)
    return match is None or int(match['step']) == chosen[match['parent']]

  return [name for name in everything(names) if is_needed(name) and not name.startswith('generated/')]


def _remove_empty_folders(folder: pathlib.Path) -> None:
  for path in sorted(folder.glob('**/checkpoints/*/')):
    if not any(file.is_file() for file in path.rglob('*')):
      shutil.rmtree(path, ignore_errors=True)


def _read_record(path: pathlib.Path) -> dict[str, Sent]:
  """Reads what was the same; nothing if that is not known, so that everything is fetched again."""
  try:
    rows = read_json(path).items()
    return {str(name): Sent(int(size), int(modified), str(version)) for name, (size, modified, version) in rows}
  except (OSError, ValueError, TypeError, AttributeError):
    return {}
