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
import uuid

from dgnet_jax.errors import MachineError
from dgnet_jax.storage.remote_folder import RemoteFile, RemoteFolder, StorageError
from dgnet_jax.storage.run_files import (
  CHECKPOINT,
  CHECKPOINT_FOLDERS,
  MARKER,
  OWN,
  Selection,
  checkpoints_of,
  everything,
  marker_of,
  without_incomplete,
)
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.bounded_files import read_json
from dgnet_jax.utils.progress import ProgressLog

logger = logging.getLogger(__name__)

KEPT = ('config.json', 'log.txt', 'run.json', 'metrics.jsonl')  # no job removes these
ASIDE = re.compile(r'\.replaced_([0-9]+)_by_')
COPY = '.dgnet_copy'  # holds the name of the copy; on the storage, of the copy that sent files last
THREADS = 16
MIB = 2**20


class CopyLost(MachineError):
  """The local copy was removed while a job used it."""


class Sent(NamedTuple):
  """A file that was the same on this machine and on the storage.

  Attributes:
    size: bytes, of the local file.
    modified: of the local file, in ns.
    version: `RemoteFile.version`; '' if the file may be on the storage, in this or another version.
  """

  size: int
  modified: int
  version: str


class Mirror:
  """A local folder and its counterpart on object storage."""

  def __init__(self, remote: RemoteFolder, folder: pathlib.Path) -> None:
    """Args:
    remote: the folder on object storage.
    folder: the local copy. What was the same in both is recorded beside it.
    """
    self.remote = remote
    self.folder = folder
    self._record = folder.with_name(f'{folder.name}.json')
    self._sent = _read_record(self._record) if folder.is_dir() else {}
    self._sending = threading.Lock()

  def fetch(self, wanted: Selection) -> None:
    """Brings what is wanted up to date, for a process that only reads; what that process writes itself stays.

    A checkpoint that is not complete on the storage is left out.

    Args:
      wanted: selects from the names of all files on the storage.

    Raises:
      UserError: there is no such bucket.
      StorageError: the storage cannot be read.
      OSError: the copy cannot be written.
    """
    for is_last in (False, True):
      listed = without_incomplete(self.remote.list_files())
      try:
        self._update(wanted(listed), listed, gone=[name for name in self._sent if name not in listed])
        return
      except FileNotFoundError as error:  # a job has just removed it
        if is_last:
          raise StorageError(f'{self.remote.address}: changes while it is fetched; try again') from error

  def take_over(self) -> None:
    """Makes the copy one to go on from, for a process that will `send` its changes.

    If this copy was the last to send anything, what a killed job wrote in it is kept, and only what is missing or was
    changed on the storage is fetched. Otherwise it becomes what the storage has, without images and curves of the steps
    done.

    Raises:
      UserError: there is no such bucket.
      StorageError: the storage cannot be read.
      OSError: the copy cannot be written.
    """
    stored = self.remote.list_files()
    listed = without_incomplete(stored)
    local = dict(self._scan())
    changed = {name for name, stat in local.items() if self._sent.get(name, ())[:2] != stat}
    needed = {*everything(listed), *(local.keys() & listed.keys())}
    identity = self._identity()
    was_never_sent = not listed and not any(sent.version for sent in self._sent.values())
    if identity and (identity == self._last_sender() or was_never_sent):
      if changed:
        logger.info(f'{self.remote.address}: going on from {len(changed)} file(s) of this machine that were not sent')
      removed = [name for name in self._sent if name not in stored and name in local and name not in changed]
      aside = self._moved_aside()
      wanted = [name for name in needed - changed if not checkpoints_of([name]) & aside]
      self._update(wanted, listed, gone=removed)
      return
    if changed:
      self._set_aside(changed)
    for path in self._unfinished_checkpoints():
      shutil.rmtree(path, ignore_errors=True)
    self._update(needed, listed, gone=[name for name in local if name not in listed])
    (self.folder / COPY).write_text(uuid.uuid4().hex)

  def _set_aside(self, names: Iterable[str]) -> None:
    """Moves files that were never sent, and are not those to go on from, out of the copy."""
    aside, names = self.folder.with_name(f'{self.folder.name}_not_sent'), list(names)
    shutil.rmtree(aside, ignore_errors=True)
    for name in names:
      (aside / name).parent.mkdir(parents=True, exist_ok=True)
      os.replace(self.folder / name, aside / name)
    logger.warning(
      f'{self.remote.address}: going on from what is stored there; {len(names)} file(s) of an earlier job on this '
      f'machine, which were not sent before the run went on elsewhere, are kept in {aside.parent}'
    )

  def send(self, check: Callable[[], None] = lambda: None) -> None:
    """Sends what has changed since the last time, and removes what is gone.

    Args:
      check: called before each part of the work; what it raises ends the work there.

    Raises:
      StorageError: the storage cannot be reached; the next call does the whole work again.
      CopyLost: the copy was removed.
    """
    with self._sending:
      self._send(check)

  def _send(self, check: Callable[[], None]) -> None:
    local = self._scan_whole()
    changed = [name for name, stat in local.items() if self._sent.get(name, ())[:2] != stat]
    if not changed and all(name in local for name in self._sent):
      return
    check()
    self.remote.write(COPY, self._identity().encode())
    parts = [name for name in changed if CHECKPOINT.fullmatch(name) and not name.endswith(f'/{MARKER}')]
    # A checkpoint that is replaced is incomplete until its marker comes back.
    touched = checkpoints_of(parts)
    self._in_parallel(self.remote.remove, [name for name in map(marker_of, touched) if name in self._sent])
    # If this send fails, these files may be there all the same.
    self._record_sent({name: Sent(-1, -1, '') for name in changed})
    sent = self._upload(name for name in changed if not CHECKPOINT.fullmatch(name)) | self._upload(parts)
    check()
    torn = checkpoints_of(name for name in parts if name not in sent)  # removed by the job meanwhile
    markers = map(marker_of, checkpoints_of(changed) - torn)
    sent |= self._upload(name for name in markers if name in local)
    check()
    gone = self._gone(sent)
    self._in_parallel(self.remote.remove, [name for name in gone if name.endswith(f'/{MARKER}')])
    self._in_parallel(self.remote.remove, [name for name in gone if not name.endswith(f'/{MARKER}')])
    self._sent = {name: known for name, known in self._sent.items() if name not in gone}
    listed = self.remote.list_files()
    self._remember({name: listed[name] for name in sent if name in listed}, local)

  def _scan_whole(self) -> dict[str, tuple[int, int]]:
    """Returns the files of the copy; raises CopyLost if files are missing that no job removes."""
    local = dict(self._scan())
    if not self._identity() or any(name in self._sent and name not in local for name in KEPT):
      raise CopyLost(
        f'the local copy of {self.remote.address}, in {self.folder.parent}, was removed while a job used it; start the '
        'job again: it goes on from what is stored'
      )
    return local

  def _gone(self, sent: Collection[str]) -> list[str]:
    """Returns what the job has removed; of checkpoints only where a complete one is stored and still here.

    Args:
      sent: names of the files that have just been sent.
    """
    local = self._scan_whole()
    gone = [name for name in self._sent if name not in local]
    incomplete = checkpoints_of(gone)  # a job removes a checkpoint file by file
    stored = [
      match
      for name, known in self._sent.items()
      if name in local and name.endswith(f'/{MARKER}') and (name in sent or known.version)
      if (match := CHECKPOINT.fullmatch(name)) and match['folder'] not in incomplete
    ]
    parents = {match['parent'] for match in stored} if not self._is_replacing() else set()

    def may_go(name: str) -> bool:
      match = CHECKPOINT.fullmatch(name)
      return match is None or (match['parent'] in parents and marker_of(match['folder']) not in local)

    return [name for name in gone if may_go(name)]

  def _scan(self) -> Iterator[tuple[str, tuple[int, int]]]:
    """Yields name, and size and time of modification, of the files of the copy that belong on the storage."""
    for folder, subfolders, files in os.walk(self.folder, onerror=_raise_unless_gone):
      inside = os.path.relpath(folder, self.folder)
      prefix = '' if inside == '.' else f'{inside}/'
      subfolders[:] = [name for name in subfolders if not OWN.fullmatch(f'{prefix}{name}/')]
      for name in files:
        with contextlib.suppress(FileNotFoundError):
          if not OWN.fullmatch(prefix + name):
            stat = os.stat(os.path.join(folder, name))
            yield prefix + name, (stat.st_size, stat.st_mtime_ns)

  def _update(self, chosen: Iterable[str], listed: Mapping[str, RemoteFile], *, gone: Iterable[str]) -> None:
    """Removes files from the copy, and fetches those of the chosen ones that it lacks or has in another version."""
    self.folder.mkdir(parents=True, exist_ok=True)
    for name in gone:
      (self.folder / name).unlink(missing_ok=True)
    local = dict(self._scan())
    same = {name: sent for name, sent in self._sent.items() if name in listed and local.get(name) == sent[:2]}
    self._sent = {name: sent for name, sent in same.items() if sent.version == listed[name].version}
    missing, arrived = [name for name in chosen if name not in self._sent], set[str]()
    try:
      self._download(missing, listed, arrived)
    finally:
      self._remember({name: listed[name] for name in arrived}, dict(self._scan()))
    _remove_empty_folders(self.folder)

  def _download(self, names: list[str], listed: Mapping[str, RemoteFile], arrived: set[str]) -> None:
    """Fetches files, and adds their names to `arrived`."""
    total = sum(listed[name].size for name in names)
    if names:
      logger.info(f'{self.remote.address}: fetching {total / MIB:.1f} MiB in {len(names)} file(s)')
    progress, done = ProgressLog(logger, 'fetching', total // MIB, 'MiB'), 0

    def download(name: str) -> int:
      with atomic_file(self.folder / name) as temporary:
        self.remote.download(name, temporary)
      arrived.add(name)
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

  def _identity(self) -> str:
    """Returns the name of this copy; '' if it was removed, or was never one to go on from."""
    try:
      return (self.folder / COPY).read_text(encoding='utf-8')
    except FileNotFoundError:
      return ''

  def _last_sender(self) -> str:
    """Returns the name of the copy that sent files last."""
    try:
      return self.remote.read(COPY).decode('utf-8', 'replace')
    except FileNotFoundError:
      return ''

  def _is_replacing(self) -> bool:
    return bool(self._moved_aside())

  def _moved_aside(self) -> set[str]:
    """Returns the folders of checkpoints that have another name until their replacement is complete."""
    matches = [(path.parent, ASIDE.match(path.name)) for path in self._unfinished_checkpoints()]
    return {(parent / match[1]).relative_to(self.folder).as_posix() for parent, match in matches if match}

  def _unfinished_checkpoints(self) -> list[pathlib.Path]:
    """Returns the folders of checkpoints that are being written or replaced, or were when a job was killed."""
    unfinished = []
    for name in CHECKPOINT_FOLDERS:
      with contextlib.suppress(FileNotFoundError):
        found = os.listdir(self.folder / name)
        unfinished += [self.folder / name / child for child in found if OWN.fullmatch(f'{name}/{child}/')]
    return unfinished

  def _remember(self, files: Mapping[str, RemoteFile], local: Mapping[str, tuple[int, int]]) -> None:
    """Records that files are now the same on the storage as they were when the copy was scanned."""
    self._record_sent({name: Sent(*local[name], file.version) for name, file in files.items() if name in local})

  def _record_sent(self, files: Mapping[str, Sent]) -> None:
    self._sent |= files
    write_json(self._record, self._sent)


def _raise_unless_gone(error: OSError) -> None:
  if not isinstance(error, FileNotFoundError):
    raise error


def _remove_empty_folders(folder: pathlib.Path) -> None:
  for name in CHECKPOINT_FOLDERS:
    for path in (folder / name).glob('*/'):
      if not any(file.is_file() for file in path.rglob('*')):
        shutil.rmtree(path, ignore_errors=True)


def _read_record(path: pathlib.Path) -> dict[str, Sent]:
  """Reads what was the same; nothing if that is not known, so that everything is fetched again."""
  try:
    rows = read_json(path).items()
    return {str(name): Sent(int(size), int(modified), str(version)) for name, (size, modified, version) in rows}
  except (OSError, ValueError, TypeError, AttributeError):
    return {}
