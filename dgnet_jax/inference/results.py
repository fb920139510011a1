"""Where the results of a trained run are kept."""

import pathlib

from dgnet_jax.config.loading import SAVED_CONFIG, changed_fields
from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex

DATA_FIELDS = ('data.layout:', 'data.root:', 'data.boxes:')  # the fields that identify a data set


def is_direct_transfer(config: Config, workdir: str | pathlib.Path) -> bool:
  """Returns True if the data of `config` are not those that the run in `workdir` was trained on."""
  changes = changed_fields(pathlib.Path(workdir) / SAVED_CONFIG, config)
  return any(change.startswith(DATA_FIELDS) for change in changes)


def results_folder(config: Config, index: DatasetIndex, workdir: str | pathlib.Path, name: str) -> pathlib.Path:
  """Returns `<workdir>/<name>`, or a subfolder of it if the data are not those that the run was trained on.

  Args:
    config: the current one; that of training is in `workdir`.
    index: index of the current data set.
    workdir: the run's work folder.
    name: name of the folder.
  """
  folder = pathlib.Path(workdir) / name
  if not is_direct_transfer(config, workdir):
    return folder
  parts = [index.name, pathlib.Path(config.data.root).resolve().name, index.variant.replace(' ', '_')]
  return folder / '_'.join(['on', *filter(None, parts)])
