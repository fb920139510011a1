"""Two processes of one machine: arrays that all have lie on the devices of all."""

import socket
import subprocess
import sys

SCRIPT = """
import sys
import jax
jax.distributed.initialize(coordinator_address=sys.argv[1], num_processes=2, process_id=int(sys.argv[2]))
import numpy as np
from dgnet_jax.sharding import device_put_global, make_mesh, replicated
mesh = make_mesh()
assert jax.process_count() == mesh.size == 2
tree = {'key': jax.random.key(3), 'array': np.arange(4.0, dtype=np.float32), 'step': jax.numpy.int32(7)}
placed = device_put_global(tree, replicated(mesh))
assert all(leaf.sharding == replicated(mesh) for leaf in jax.tree.leaves(placed))
total = jax.jit(lambda x: x['array'].sum() + x['step'] + jax.random.uniform(x['key']))(placed)
np.testing.assert_allclose(total, 13 + jax.random.uniform(jax.random.key(3)), rtol=1e-6)
"""


def free_port():
  with socket.socket() as listener:
    listener.bind(('localhost', 0))
    return listener.getsockname()[1]


def test_equal_arrays_are_put_on_the_devices_of_all():
  address = f'localhost:{free_port()}'
  environment = {'JAX_PLATFORMS': 'cpu', 'PATH': '', 'PYTHONPATH': ':'.join(sys.path)}
  processes = [
    subprocess.Popen(
      [sys.executable, '-c', SCRIPT, address, str(i)], env=environment, stderr=subprocess.PIPE, text=True
    )
    for i in range(2)
  ]
  errors = [process.communicate(timeout=120)[1] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], '\n'.join(errors)
