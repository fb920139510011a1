"""run.json of a work folder: every start of a job there, what it ran with and on, and how it ended.

Only the first process writes it. A record that cannot be written or read never stops a job.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import datetime
import json
import logging
import os
import pathlib
import time
from typing import Any
import uuid

from dgnet_jax.config.loading import non_default_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.training.data_record import TrainingData, read_record, saved_steps
from dgnet_jax.utils.addresses import with_addresses
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json
from dgnet_jax.utils.console import reason_for_user
from dgnet_jax.utils.environment import describe_environment
from dgnet_jax.utils.locks import exclusive
from dgnet_jax.utils.text import printable, shortened

logger = logging.getLogger(__name__)

RUN_FILE = 'run.json'
LOCK = '.run.lock'  # only while the file is written: a run may be evaluated while it trains
FULL_BYTES = MAX_DESCRIPTION_BYTES // 2  # a larger file is set aside by the next start; what is open fits into the rest
MAX_TEXT = 300  # characters of an error or of the value of a field
# What starts of a run have in common: each combination is stored once in the file, however often the run is resumed.
SETUP = ('code', 'python', 'packages', 'platform', 'host', 'devices', 'data', 'changed_fields')
CHECKPOINTS = {'dgnet': 'checkpoints', 'teacher': 'teacher/checkpoints'}
NETWORKS = {'train': ('teacher', 'dgnet'), 'teacher': ('teacher',), 'evaluate': ('dgnet',), 'generate': ('dgnet',)}

Start = dict[str, Any]

_running: dict[str, Start] = {}  # starts that this process is in, by the real path of their work folder


@contextlib.contextmanager
def recorded(workdir: pathlib.Path, mode: str, config: Config) -> Iterator[None]:
  """Records in run.json that a job has started and, after the body, how it ended.

  Args:
    workdir: the work folder, which exists.
    mode: the command, a key of `NETWORKS`.
    config: of the job.
  """
  import jax  # here, so that `dgnet compare` works without it

  if jax.process_index():
    yield
    return
  networks = [name for name in NETWORKS[mode] if name != 'teacher' or not config.teacher.checkpoint]
  start, clock, key = _describe_start(workdir, mode, config, networks), time.monotonic(), os.path.realpath(workdir)
  _save(workdir, start)
  _running[key] = start
  ending = {'outcome': 'done'}
  try:
    yield
  except BaseException as error:
    ending = _describe_failure(error)
    raise
  finally:
    _running.pop(key, None)
    # Two clocks: the time of day may have been set meanwhile.
    start |= {'ended': _now(), 'seconds': round(time.monotonic() - clock, 3), **ending}
    start |= {'last_step': _steps(workdir, networks)}
    _save(workdir, start)


def record_training_data(data: TrainingData, workdir: pathlib.Path) -> None:
  """Adds the training data to the record of the start that this process is in, if it is recorded."""
  start = _running.get(os.path.realpath(workdir))
  if start is not None:
    start['data'] = describe_data(data)
    _save(workdir, start)


def read_starts(workdir: pathlib.Path) -> list[Start]:
  """Reads run.json.

  Args:
    workdir: a work folder.

  Returns:
    The starts, oldest first; none if the run is of a version that wrote no record. Each has id, mode, started (UTC),
    seed, first_step (network -> steps done before), the keys of `SETUP` as far as they are known and, unless it is
    running or was killed, ended (UTC), seconds, outcome ('done', 'interrupted', 'failed'), error if it failed, and
    last_step (network -> steps in the newest checkpoint).

  Raises:
    UserError: the file is damaged.
  """
  path = workdir / RUN_FILE
  try:
    return _read(path)
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: damaged ({error}); move it away to go on without it') from error


def _read(path: pathlib.Path) -> list[Start]:
  """Returns the starts in a run.json; raises OSError or ValueError if it is damaged."""
  try:
    values = read_json(path, MAX_DESCRIPTION_BYTES)
  except FileNotFoundError:
    return []
  try:
    setups, starts = values['setups'], []
    for row in values['starts']:
      setup = setups[row['setup']]
      if not isinstance(row['id'], str) or not isinstance(row['mode'], str) or not isinstance(setup, dict):
        raise TypeError('a start of another form')
      starts.append(setup | {name: value for name, value in row.items() if name != 'setup'})
  except (TypeError, KeyError, IndexError, AttributeError) as error:
    raise ValueError(f'not a record of starts: {error}') from error
  return starts


def _describe_start(workdir: pathlib.Path, mode: str, config: Config, networks: Sequence[str]) -> Start:
  start = {
    'id': uuid.uuid4().hex[:12],
    'mode': mode,
    'started': _now(),
    'seed': config.seed,
    'first_step': _steps(workdir, networks),
    **describe_environment(),
    'devices': _describe_devices(),
    'changed_fields': {name: _bounded(value) for name, value in non_default_fields(config).items()},
  }
  if mode in ('evaluate', 'generate'):  # the others compare the data first, and then record them
    with contextlib.suppress(UserError):  # damaged: the next training start reports it
      data = read_record(workdir)
      start |= {} if data is None else {'data': describe_data(data)}
  return start


def _describe_devices() -> dict[str, Any]:
  import jax

  return {
    'backend': jax.default_backend(),
    'kind': ', '.join(sorted({device.device_kind for device in jax.devices()})),
    'count': jax.device_count(),
    'processes': jax.process_count(),
  }


def describe_data(data: TrainingData) -> dict[str, Any]:
  """Returns fingerprint, num_images and num_identities of training data."""
  counts = {'num_images': len(data.images), 'num_identities': len(data.identities)}
  return {'fingerprint': data.fingerprint, **counts}


def _describe_failure(error: BaseException) -> dict[str, str]:
  if isinstance(error, Interrupted | KeyboardInterrupt):
    return {'outcome': 'interrupted'}
  text = reason_for_user(error) or f'{type(error).__name__}: {error}'
  text = with_addresses(' '.join(text.split()))
  return {'outcome': 'failed', 'error': printable(shortened(text, MAX_TEXT))}


def _steps(workdir: pathlib.Path, networks: Sequence[str]) -> dict[str, int]:
  """Returns the steps of the newest checkpoint of each network, 0 without one."""
  steps = {}
  for name in networks:
    with contextlib.suppress(OSError):
      steps[name] = max(saved_steps(workdir / CHECKPOINTS[name]), default=0)
  return steps


def _bounded(value: Any) -> Any:
  """Returns the value of a field as JSON has it, or the beginning of its text if that is long."""
  text = value if isinstance(value, str) else json.dumps(value)
  return shortened(text, MAX_TEXT) if len(text) > MAX_TEXT else list(value) if isinstance(value, tuple) else value


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec='seconds')


def _save(workdir: pathlib.Path, start: Start) -> None:
  """Writes a start to run.json: in the place of its earlier state, or as the last one."""
  path = workdir / RUN_FILE
  try:
    with exclusive(workdir / LOCK, str(path), wait=True, warn=False):
      starts = _earlier_starts(path)
      places = [place for place, earlier in enumerate(starts) if earlier['id'] == start['id']]
      if not places and starts and path.stat().st_size > FULL_BYTES:
        logger.info(f'{path}: full; the earlier starts are kept in {_set_aside(path).name}')
        starts = []
      place = places[0] if places else len(starts)
      starts[place : place + 1] = [start]
      write_json(path, _folded(starts))
  except OSError as error:
    logger.warning(f'{path}: cannot be written ({error.strerror or error}); this start of the run is not recorded')


def _earlier_starts(path: pathlib.Path) -> list[Start]:
  """Reads run.json; a damaged one is set aside, with a warning, because the run must be able to go on."""
  try:
    return _read(path)
  except (OSError, ValueError) as error:
    logger.warning(f'{path}: damaged ({error}); kept as {_set_aside(path).name}, and a new record is started')
    return []


def _set_aside(path: pathlib.Path) -> pathlib.Path:
  """Renames a file to the first name run_earlier_NUMBER.json that is free, and returns the new path."""
  number = 1
  while os.path.lexists(kept := path.with_name(f'{path.stem}_earlier_{number}{path.suffix}')):
    number += 1
  os.replace(path, kept)
  return kept


def _folded(starts: Sequence[Start]) -> Mapping[str, Any]:
  """Returns what the file holds: starts that refer to setups by their number."""
  setups: list[dict[str, Any]] = []
  rows = []
  for start in starts:
    setup = {name: start[name] for name in SETUP if name in start}
    if setup not in setups:
      setups.append(setup)
    rows.append({name: value for name, value in start.items() if name not in SETUP} | {'setup': setups.index(setup)})
  return {'starts': rows, 'setups': setups}
