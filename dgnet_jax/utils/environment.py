"""What a program runs as and on: its own version and commit, Python, the packages that decide results, the machine."""

import importlib.metadata
import os
import pathlib
import platform
import socket
import subprocess
from typing import Any

import dgnet_jax

# The packages that compute, or decode images. TensorFlow is a package of one of two names.
PACKAGES = (
  *('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'numpy', 'Pillow'),
  *('tensorflow', 'tensorflow-cpu'),
)
CODE = ('dgnet_jax', 'configs')  # folders of a checkout that decide what a run computes
GIT_SECONDS = 5


def describe_environment() -> dict[str, Any]:
  """Returns code (`describe_code`), python, packages (name -> version, of those installed), platform and host."""
  return {
    'code': describe_code(pathlib.Path(dgnet_jax.__file__).resolve().parent.parent),
    'python': platform.python_version(),
    'packages': _package_versions(),
    'platform': platform.platform(),
    'host': socket.gethostname(),
  }


def _package_versions() -> dict[str, str]:
  versions = {}
  for name in PACKAGES:
    try:
      versions[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return versions


def describe_code(root: pathlib.Path) -> dict[str, Any]:
  """Describes the version of this package.

  Args:
    root: the folder that the package is in. git is only run if this is a checkout itself, and looks at no other folder.

  Returns:
    version; from a checkout also commit, and dirty: True if the package or the configs differ from that commit. The
    last two are missing if git is, if it takes longer than `GIT_SECONDS`, or if it refuses the folder.
  """
  version = {'version': dgnet_jax.__version__}
  if not (root / '.git').exists():  # a file in a worktree
    return version
  command = ['git', '-c', 'core.fsmonitor=false', 'status', '--porcelain=v2', '--branch', '--untracked-files=normal']
  # The caller's variables may name another repository, and without the ceiling a broken one is looked for further up.
  environment = {name: value for name, value in os.environ.items() if not name.startswith('GIT_')}
  environment |= {'GIT_OPTIONAL_LOCKS': '0', 'GIT_CEILING_DIRECTORIES': str(root.parent)}
  try:
    result = subprocess.run(
      [*command, '--', *CODE],
      cwd=root,
      env=environment,
      stdin=subprocess.DEVNULL,
      capture_output=True,
      text=True,
      errors='replace',
      timeout=GIT_SECONDS,
      check=True,
    )
  except (OSError, subprocess.SubprocessError):
    return version
  lines = result.stdout.splitlines()
  commits = [line.split()[-1] for line in lines if line.startswith('# branch.oid ')]
  if not commits or not commits[0].isalnum():  # '(initial)' before the first commit
    return version
  return version | {'commit': commits[0], 'dirty': any(not line.startswith('# ') for line in lines)}
