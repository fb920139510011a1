"""Generated images of a trained run, as `config.generation.plan` asks for them."""

import pathlib

from dgnet_jax.config.schema import Config
from dgnet_jax.generation.bulk import generate_set
from dgnet_jax.generation.sheets import generate_sheets


def generate(config: Config, workdir: str | pathlib.Path) -> pathlib.Path:
  """Writes a folder of generated images and a manifest: sheets of test people, or a large set.

  Args:
    config: of the run, validated.
    workdir: of the run.

  Returns:
    The folder, as `generate_sheets` (plan sheets) or `generate_set` (plans images and identities) describe it.

  Raises:
    UserError: the data set or the checkpoint is missing or damaged, or they do not fit the config.
    Interrupted: SIGINT or SIGTERM stopped a large set, which the same command resumes.
  """
  if config.generation.plan == 'sheets':
    return generate_sheets(config, workdir)
  return generate_set(config, workdir)
