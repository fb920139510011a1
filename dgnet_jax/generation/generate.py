"""Generates images with a trained run, according to `config.generation.plan`."""

import pathlib

from dgnet_jax.config.schema import Config
from dgnet_jax.generation.bulk import generate_set
from dgnet_jax.generation.sheets import generate_sheets
from dgnet_jax.inference.loading import Step
from dgnet_jax.training.agreement import from_first_process
from dgnet_jax.utils.paths import local_path


def generate(config: Config, workdir: str | pathlib.Path, *, step: Step = None) -> pathlib.Path:
  """Writes a folder of generated images and a manifest: sheets of test people, or a large set.

  Args:
    config: the run's validated config.
    workdir: the run's work folder.
    step: which checkpoint.

  Returns:
    The folder, as `generate_sheets` (plan sheets) or `generate_set` (plans images and identities) describe it. Of
    several processes, the first writes the sheets; all divide a set among them.

  Raises:
    UserError: the data set or the checkpoint is missing or damaged, or they do not fit the config.
    Interrupted: SIGINT or SIGTERM stopped a large set, which the same command resumes.
  """
  workdir = local_path(workdir)
  if config.generation.plan == 'sheets':
    return pathlib.Path(from_first_process(lambda: str(generate_sheets(config, workdir, step=step))))
  return generate_set(config, workdir, step=step)
