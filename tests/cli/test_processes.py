"""How the processes of a job find each other: from variables of launchers, and for real in two processes."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from dgnet_jax.cli.command import make_parser
from dgnet_jax.cli.main import COMMANDS
from dgnet_jax.cli.processes import TO_BE_FOUND, Processes, find
from dgnet_jax.errors import UserError

SLURM = {
  'SLURM_JOB_ID': '7',
  'SLURM_STEP_NODELIST': 'node[1-2]',
  'SLURM_NTASKS': '8',
  'SLURM_PROCID': '5',
  'SLURM_LOCALID': '1',
}
OPEN_MPI = {'OMPI_COMM_WORLD_SIZE': '8', 'OMPI_COMM_WORLD_RANK': '5', 'OMPI_COMM_WORLD_LOCAL_RANK': '1'}
OPEN_MPI_4 = {**OPEN_MPI, 'OMPI_MCA_orte_hnp_uri': '4096.0;tcp://10.0.0.1:34911'}
STATED = {'JAX_COORDINATOR_ADDRESS': 'host0:99', 'JAX_NUM_PROCESSES': '8'}
KUBERNETES = {'KUBERNETES_SERVICE_HOST': '10.0.0.1', 'JOB_COMPLETION_INDEX': '5', **STATED}


class TestGiven:
  def test_processes_are_given_or_found(self):
    read = make_parser(COMMANDS['train']).parse_args
    assert read(['--workdir=w']).distributed is None
    assert read(['--workdir=w', '--distributed']).distributed == TO_BE_FOUND
    assert read(['--workdir=w', '--distributed=localhost:99,4,3']).distributed == Processes('', 'localhost:99', 4, 3)

  @pytest.mark.parametrize(
    'value', ['localhost:99', 'localhost,2,0', ':99,2,0', 'localhost:99,2,2', 'localhost:x,2,0', 'localhost:65536,2,0']
  )
  def test_invalid_value_is_reported(self, value, capsys):
    with pytest.raises(SystemExit):
      make_parser(COMMANDS['train']).parse_args(['--workdir=w', f'--distributed={value}'])
    assert f'{value!r} must be HOST:PORT,COUNT,INDEX' in capsys.readouterr().err


class TestFind:
  @pytest.mark.parametrize(
    ('environment', 'expected'),
    [
      (SLURM, Processes('Slurm', None, 8, 5)),
      (OPEN_MPI_4, Processes('Open MPI', None, 8, 5)),
      (OPEN_MPI_4 | SLURM, Processes('Open MPI', None, 8, 5)),
      (OPEN_MPI | STATED, Processes('Open MPI', 'host0:99', 8, 5, device=1, detected=False)),
      (OPEN_MPI | STATED | {'JAX_LOCAL_DEVICE_IDS': '0,1'}, Processes('Open MPI', 'host0:99', 8, 5, detected=False)),
      (KUBERNETES, Processes('Kubernetes', 'host0:99', 8, 5, detected=False)),
      (KUBERNETES | {'TPU_WORKER_HOSTNAMES': 'a,b'}, Processes('Cloud TPU')),
      (KUBERNETES | {'JAX_PROCESS_ID': '2'}, Processes('the JAX_ variables', 'host0:99', 8, 2, detected=False)),
      ({}, Processes('as found by JAX')),
    ],
  )
  def test_variables_say_where_the_processes_are(self, environment, expected):
    assert find(environment) == expected

  @pytest.mark.parametrize(
    ('environment', 'message'),
    [
      ({'SLURM_JOB_ID': '7'}, 'SLURM_STEP_NODELIST, .* are not set; start the processes with srun'),
      (SLURM | {'SLURM_PROCID': '8'}, 'SLURM_PROCID=8 must be below SLURM_NTASKS=8'),
      (SLURM | {'SLURM_NTASKS': 'x'}, 'SLURM_NTASKS=x must be a whole number'),
      (OPEN_MPI, 'JAX_COORDINATOR_ADDRESS is not set; set JAX_COORDINATOR_ADDRESS'),
      ({'OMPI_COMM_WORLD_SIZE': '2'}, 'OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_LOCAL_RANK are not set'),
      (
        {'KUBERNETES_SERVICE_HOST': '10.0.0.1'},
        'JOB_COMPLETION_INDEX is not set; give the Job completionMode: Indexed',
      ),
      ({'JOB_COMPLETION_INDEX': '0'}, 'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES are not set'),
      (KUBERNETES | {'JAX_COORDINATOR_ADDRESS': 'host0'}, 'JAX_COORDINATOR_ADDRESS=host0 must be HOST:PORT'),
      ({'JAX_PROCESS_ID': '0'}, 'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES are not set'),
      (STATED, 'JAX_PROCESS_ID is not set'),
    ],
  )
  def test_what_is_missing_or_wrong_is_named(self, environment, message):
    with pytest.raises(UserError, match=f'--distributed: {message}'):
      find(environment)


CONNECT = """
import signal
import sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
from dgnet_jax.utils.console import exit_on_user_error
with exit_on_user_error():
  from dgnet_jax.cli import processes
  asked = processes.TO_BE_FOUND if sys.argv[1] == 'find' else processes.given(sys.argv[1])
  processes.connect(asked, float(sys.argv[2]))
"""
SUM = """
import jax
import numpy as np
from dgnet_jax.sharding import DATA_AXIS, batch_sharding, make_mesh
mesh, spec = make_mesh(), jax.sharding.PartitionSpec
own = np.float32([jax.process_index() + 1])
numbers = jax.make_array_from_process_local_data(batch_sharding(mesh), own)
add = jax.shard_map(lambda x: jax.lax.psum(x, DATA_AXIS), mesh=mesh, in_specs=spec(DATA_AXIS), out_specs=spec())
print(jax.process_index(), jax.process_count(), jax.jit(add)(numbers)[0])
"""


def free_port(first=1024):
  """A free port from `first`; with Slurm and Open MPI 4, JAX takes the one at 61440 + number of the job."""
  for port in range(first + os.getpid() % 2048, 2**16):
    try:
      socket.create_server(('', port)).close()
      return port
    except OSError:
      pass
  raise AssertionError('no port is free')


def start(environment, asked='find', wait_s=60, script=CONNECT + SUM):
  clean = {'JAX_PLATFORMS': 'cpu', 'PATH': '', 'PYTHONPATH': ':'.join(sys.path)}
  return subprocess.Popen(
    [sys.executable, '-c', script, asked, str(wait_s)],
    env=clean | environment,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def slurm():
  job = {'SLURM_JOB_ID': str(free_port(61440) - 61440), 'SLURM_STEP_NODELIST': 'localhost', 'SLURM_NTASKS': '2'}
  return [job | {'SLURM_PROCID': str(i), 'SLURM_LOCALID': str(i)} for i in range(2)]


def slurm_with_address():
  address = f'localhost:{free_port()}'
  return [one | {'SLURM_STEP_NODELIST': 'unreachable.invalid', 'JAX_COORDINATOR_ADDRESS': address} for one in slurm()]


def mpirun(job):
  job['OMPI_COMM_WORLD_SIZE'] = '2'
  return [job | {'OMPI_COMM_WORLD_RANK': str(i), 'OMPI_COMM_WORLD_LOCAL_RANK': str(i)} for i in range(2)]


def open_mpi_4():
  return mpirun({'OMPI_MCA_orte_hnp_uri': f'{(free_port(61440) - 61440) * 4096}.0;tcp://127.0.0.1:34911'})


def open_mpi_5():
  return mpirun({'JAX_COORDINATOR_ADDRESS': f'localhost:{free_port()}'})


def kubernetes():
  job = KUBERNETES | {'JAX_NUM_PROCESSES': '2', 'JAX_COORDINATOR_ADDRESS': f'localhost:{free_port()}'}
  return [job | {'JOB_COMPLETION_INDEX': str(i)} for i in range(2)]


@pytest.mark.parametrize('launcher', [slurm, slurm_with_address, open_mpi_4, open_mpi_5, kubernetes])
def test_two_processes_find_each_other_and_add(launcher):
  processes = [start(environment) for environment in launcher()]
  outputs = [process.communicate(timeout=120) for process in processes]
  for i, (process, (output, errors)) in enumerate(zip(processes, outputs, strict=True)):
    assert process.returncode == 0 and output.splitlines()[-1] == f'{i} 2 3.0', errors
    assert f'process {i} of 2 (' in errors and 'Warning' not in errors


@pytest.mark.parametrize(('index', 'others'), [(0, 'the other processes'), (1, 'the first process')])
def test_process_alone_says_what_it_waits_for_and_gives_up(index, others):
  address = f'localhost:{free_port()}'
  process = start({}, f'{address},2,{index}', 2)
  _, errors = process.communicate(timeout=60)
  waits, error = errors.splitlines()
  assert process.returncode == 1
  assert waits == f'process {index} of 2: waits at {address} for {others}, for 2 seconds at most'
  assert error.startswith(f'error: --distributed: process {index} of 2: waited 2 seconds at {address} for {others}. ')


def test_waiting_can_be_interrupted():
  process = start({}, f'localhost:{free_port()},2,1')
  assert 'waits at' in process.stderr.readline()
  time.sleep(0.2)  # it has told, and waits in the next line
  process.send_signal(signal.SIGINT)
  assert process.communicate(timeout=30)[1] == 'interrupted\n' and process.returncode == 130


def test_used_port_is_reported():
  with socket.create_server(('', 0)) as used:
    address = f'localhost:{used.getsockname()[1]}'
    process = start({}, f'{address},2,0')
    _, errors = process.communicate(timeout=60)
  assert process.returncode == 2
  assert errors == f'error: --distributed: cannot listen at {address} (Address already in use); choose another port\n'


def test_without_a_launcher_the_ways_out_are_named():
  process = start({})
  _, errors = process.communicate(timeout=60)
  assert process.returncode == 2
  assert 'error: --distributed: nothing here says where the other processes are. Start them with srun' in errors
