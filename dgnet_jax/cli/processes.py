"""`--distributed`: how the processes of a job find each other.

With Slurm, with Open MPI 4 and on Cloud TPU, JAX does this itself. Open MPI 5 no longer says where the first process
runs, and on Kubernetes JAX asks the cluster, which takes permissions and the package `kubernetes`. There the variables
`JAX_COORDINATOR_ADDRESS` and `JAX_NUM_PROCESSES` say it.
"""

import argparse
from collections.abc import Mapping, Sequence
import dataclasses
import importlib.util
import logging
import os
import socket
import sys
import threading
import time
from typing import Any, NoReturn

from dgnet_jax.errors import MachineError, UserError
from dgnet_jax.utils.console import MAX_LINE
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)

WAIT_S = 600  # Kubernetes starts a failed pod again after up to 6 minutes
REMIND_S = 60
# JAX ends the process with a stack trace at its own time limit, so ours comes first.
_MARGIN_S = 3600

ADDRESS, COUNT, INDEX = 'JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'
KUBERNETES_INDEX = 'JOB_COMPLETION_INDEX'
_SLURM = ('SLURM_STEP_NODELIST', 'SLURM_NTASKS', 'SLURM_PROCID', 'SLURM_LOCALID')
_OPEN_MPI = ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK', 'OMPI_COMM_WORLD_LOCAL_RANK')
_OPEN_MPI_4 = 'OMPI_MCA_orte_hnp_uri'
_FOUND_BY_JAX = 'as found by JAX'
_GKE_TPU = ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')


@dataclasses.dataclass(frozen=True)
class Processes:
  """The processes of a job, as one of them sees them.

  Attributes:
    source: what says where they are; '' for the command line.
    address: HOST:PORT at which the first process listens; None: JAX finds out.
    count: number of processes; None: JAX finds out.
    index: index of this process, from 0; None: JAX finds out.
    device: the only device of its machine that this process uses; None: JAX decides.
    detected: JAX may find out what is None; otherwise it uses all devices of the machine unless `device` names one.
  """

  source: str
  address: str | None = None
  count: int | None = None
  index: int | None = None
  device: int | None = None
  detected: bool = True

  def __str__(self) -> str:
    place = '' if self.count is None else f'process {self.index} of {self.count}'
    return f'{place} ({self.source})' if place and self.source else place or self.source


TO_BE_FOUND = Processes('')


def given(text: str) -> Processes:
  """An argparse type: HOST:PORT,COUNT,INDEX."""
  try:
    address, count, index = text.split(',')
    if not _is_address(address) or not 0 <= int(index) < int(count):
      raise ValueError
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{shortened(text)!r} must be HOST:PORT,COUNT,INDEX, like 10.0.0.1:1234,2,0'
    ) from None
  return Processes('', address, int(count), int(index), detected='KUBERNETES_SERVICE_HOST' not in os.environ)


def find(environment: Mapping[str, str]) -> Processes:
  """Finds the processes of a job by the environment variables of what started this one.

  Args:
    environment: environment variables.

  Returns:
    The processes; without address, count and index where only JAX can find them.

  Raises:
    UserError: a variable is missing or has no valid value.
  """
  if INDEX in environment:
    return _stated('the JAX_ variables', environment, COUNT, INDEX)
  if 'OMPI_COMM_WORLD_SIZE' in environment:
    return _open_mpi(environment)
  if 'SLURM_JOB_ID' in environment:
    _require(environment, _SLURM, 'start the processes with srun')
    count, index = _place(environment, 'SLURM_NTASKS', 'SLURM_PROCID')
    return Processes('Slurm', count=count, index=index)
  if any(name in environment for name in _GKE_TPU):
    return Processes('Cloud TPU')
  if 'KUBERNETES_SERVICE_HOST' in environment or KUBERNETES_INDEX in environment:
    return _kubernetes(environment)
  if COUNT in environment:
    return _stated('the JAX_ variables', environment, COUNT, INDEX)
  return Processes(_FOUND_BY_JAX)


def _open_mpi(environment: Mapping[str, str]) -> Processes:
  _require(environment, _OPEN_MPI, 'start the processes with mpirun')
  if _OPEN_MPI_4 in environment:
    count, index = _place(environment, *_OPEN_MPI[:2])
    return Processes('Open MPI', count=count, index=index)
  # As JAX does with Open MPI 4: each process of a machine has one of its devices.
  device = None if 'JAX_LOCAL_DEVICE_IDS' in environment else _number(environment, _OPEN_MPI[2])
  return dataclasses.replace(_stated('Open MPI', environment, *_OPEN_MPI[:2]), device=device)


def _kubernetes(environment: Mapping[str, str]) -> Processes:
  _require(environment, [KUBERNETES_INDEX], 'give the Job completionMode: Indexed')
  if ADDRESS not in environment and COUNT not in environment and importlib.util.find_spec('kubernetes'):
    return Processes(_FOUND_BY_JAX)  # from the cluster's API
  return _stated('Kubernetes', environment, COUNT, KUBERNETES_INDEX)


def _stated(source: str, environment: Mapping[str, str], count_name: str, index_name: str) -> Processes:
  """Returns processes of which nothing has to be found out."""
  advice = f'set {ADDRESS} (HOST:PORT of the first process) and {count_name} in all processes'
  _require(environment, [ADDRESS, count_name, index_name], advice)
  address = environment[ADDRESS]
  if not _is_address(address):
    raise UserError(f'--distributed: {ADDRESS}={shortened(address)} must be HOST:PORT, like 10.0.0.1:1234')
  count, index = _place(environment, count_name, index_name)
  return Processes(source, address, count, index, detected=False)


def _require(environment: Mapping[str, str], names: Sequence[str], advice: str) -> None:
  missing = [name for name in names if name not in environment]
  if missing:
    verb = 'is' if len(missing) == 1 else 'are'
    raise UserError(f'--distributed: {", ".join(missing)} {verb} not set; {advice}, or give HOST:PORT,COUNT,INDEX')


def _place(environment: Mapping[str, str], count_name: str, index_name: str) -> tuple[int, int]:
  """Returns the number of processes and the index of this one."""
  count, index = _number(environment, count_name), _number(environment, index_name)
  if not index < count:
    raise UserError(f'--distributed: {index_name}={index} must be below {count_name}={count}')
  return count, index


def _number(environment: Mapping[str, str], name: str) -> int:
  text = environment[name]
  if not (text.isascii() and text.isdecimal() and len(text) < 10):
    raise UserError(f'--distributed: {name}={shortened(text)} must be a whole number from 0')
  return int(text)


def _is_address(text: str) -> bool:
  host, _, port = text.rpartition(':')
  return bool(host) and port.isdecimal() and 0 < int(port[:6]) < 2**16


def connect(processes: Processes, wait_s: float = WAIT_S) -> None:
  """Connects this process with the others of its job; must come before any other use of JAX.

  Ends the process with status 1 if the others do not come in time.

  Args:
    processes: from the command line, or `TO_BE_FOUND`.
    wait_s: seconds to wait for the others.

  Raises:
    UserError: the environment does not say where the others are, or this process cannot listen at its address.
  """
  if processes == TO_BE_FOUND:
    processes = find(os.environ)
  if processes.index == 0 and processes.address and 'JAX_COORDINATOR_BIND_ADDRESS' not in os.environ:
    _check_port(processes.address)
  import jax

  failures: list[Exception] = []

  def initialize() -> None:
    try:
      jax.distributed.initialize(**_arguments(processes), initialization_timeout=int(wait_s) + _MARGIN_S)
    except Exception as error:
      failures.append(error)

  # JAX connects in a thread, because neither a time limit nor Ctrl-C reach the call itself.
  thread = threading.Thread(target=initialize, daemon=True)
  thread.start()
  _wait(thread, processes, wait_s)
  if failures:
    raise _failure(processes, failures[0]) from failures[0]
  from jax.experimental import multihost_utils

  # On CPU the first exchange connects the processes, and waits at most 30 seconds for each: now they are together.
  multihost_utils.sync_global_devices('connected')
  logger.info(f'{jax.process_count()} processes are connected; this is process {jax.process_index()}')


def _check_port(address: str) -> None:
  """Raises UserError if nothing can listen at the port of an address; JAX may crash then."""
  try:
    socket.create_server(('', int(address.rpartition(':')[2]))).close()
  except OSError as error:
    raise UserError(
      f'--distributed: cannot listen at {address} ({os.strerror(error.errno or 0)}); choose another port'
    ) from error


def _arguments(processes: Processes) -> dict[str, Any]:
  """Returns the arguments of jax.distributed.initialize."""
  arguments: dict[str, Any] = {
    'coordinator_address': processes.address,
    'num_processes': processes.count,
    'process_id': processes.index,
  }
  if processes.device is not None:
    arguments['local_device_ids'] = [processes.device]
  if not processes.detected:
    arguments['cluster_detection_method'] = 'deactivate'
  return arguments


def _wait(thread: threading.Thread, processes: Processes, wait_s: float) -> None:
  """Waits for the thread that connects, and says so; ends the process if it takes too long."""
  others = 'the first process' if processes.index else 'the other processes'
  where = f' at {processes.address}' if processes.address else ''
  end = time.monotonic() + wait_s
  try:
    while thread.is_alive() and (left := end - time.monotonic()) > 0:
      logger.info(f'{processes}: waits{where} for {others}, for {left:.0f} seconds at most')
      thread.join(min(REMIND_S, left))
  except KeyboardInterrupt:
    _leave('interrupted', 130)
  if thread.is_alive():
    _leave(
      f'error: --distributed: {processes}: waited {wait_s:.0f} seconds{where} for {others}. Look at the other logs: '
      'all need the same address and number of processes, each its own index, and a network to reach the address',
      1,
    )


def _leave(message: str, status: int) -> NoReturn:
  """Ends the process at once: the usual way would wait for the thread, and JAX would report its end as a failure."""
  print(message, file=sys.stderr, flush=True)
  os._exit(status)


def _failure(processes: Processes, error: Exception) -> UserError:
  """Returns the error for the user if JAX cannot connect."""
  reason = shortened((str(error).splitlines() or [type(error).__name__])[0], MAX_LINE)
  if isinstance(error, ValueError) and reason.endswith('be defined.'):
    return UserError(
      '--distributed: nothing here says where the other processes are. Start them with srun, with mpirun or on Cloud '
      f'TPU, set {ADDRESS}, {COUNT} and {INDEX}, or give HOST:PORT,COUNT,INDEX'
    )
  return MachineError(f'--distributed: {processes} cannot find the others ({reason})')
