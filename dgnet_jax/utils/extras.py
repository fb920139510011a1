"""Install commands for optional dependencies.

They name the dependencies themselves, not an extra of this package: the package is on no index, and a wheel's user has
no checkout to install from.
"""

import importlib.util
import platform
import sys

from dgnet_jax.errors import UserError

_TENSORFLOW = 'tensorflow-cpu' if (sys.platform, platform.machine()) == ('linux', 'x86_64') else 'tensorflow'
# The extras of setup.cfg that error messages advise.
REQUIREMENTS = {
  'tfdata': (f'{_TENSORFLOW}>=2.20',),
  'parquet': ('pyarrow>=17.0',),
  'faiss': ('faiss-cpu>=1.10',),
  'plots': ('scikit-learn>=1.6',),
  'serve': ('python-multipart>=0.0.22', 'starlette>=1.0', 'uvicorn>=0.40'),
  'tfds': ('array_record>=0.6', 'importlib_resources>=6.0', 'tensorflow-datasets>=4.9.10'),
  'export': ('flatbuffers>=24.3',),
  'onnx': ('onnx>=1.20.1', 'onnx-ir>=0.2.1', 'onnxruntime>=1.24.1'),
  'gcs': ('gcsfs>=2026.6',),
  's3': ('s3fs>=2026.6',),
  'wandb': ('wandb>=0.22',),
}
# Its metadata ask for an older orbax-checkpoint than ours and for a dozen packages; it runs without them.
JAX2ONNX = 'pip install --no-deps "jax2onnx>=0.17.1"'


def install_command(*extras: str) -> str:
  """Returns the shell command that installs what one or more extras require.

  Args:
    *extras: names of extras, keys of `REQUIREMENTS`.
  """
  return ' '.join(['pip install', *(f'"{requirement}"' for extra in extras for requirement in REQUIREMENTS[extra])])


def require_wandb(project: str) -> None:
  """Raises UserError if a run is to report to a project of Weights & Biases, but wandb is not installed."""
  if project and importlib.util.find_spec('wandb') is None:
    raise UserError(
      f'log.wandb_project={project}: wandb is missing: {install_command("wandb")}, or leave the field empty'
    )


def require_pyarrow(wanted: object, instead: str) -> None:
  """Raises UserError if pyarrow, which writes Parquet, is not installed.

  Args:
    wanted: the file, folder or field that needs it.
    instead: what works without it, as in 'or write .npz'.
  """
  if importlib.util.find_spec('pyarrow') is None:
    raise UserError(f'{wanted}: Parquet needs pyarrow: {install_command("parquet")}, {instead}')


def require_scikit_learn(wanted: object, instead: str) -> None:
  """Raises UserError if scikit-learn, which computes t-SNE, is not installed; the arguments as in `require_pyarrow`."""
  if importlib.util.find_spec('sklearn') is None:
    raise UserError(f'{wanted}: t-SNE needs scikit-learn: {install_command("plots")}, {instead}')


def require_serving_libraries() -> None:
  """Raises UserError if what answers HTTP requests is not installed."""
  libraries = ('starlette', 'uvicorn', 'python_multipart')
  missing = [library for library in libraries if importlib.util.find_spec(library) is None]
  if missing:
    raise UserError(f'serving needs {" and ".join(missing)}: {install_command("serve")}')
