"""Writes a trained run as one file that can be given away, with what is known about it."""

import logging
import pathlib
from typing import Any

from dgnet_jax.config.ranges import CHOICES
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves, with_fields
from dgnet_jax.inference.loading import Step, open_model
from dgnet_jax.inference.model_file import flat_parameters, read_about, write_model
from dgnet_jax.reports.run_description import describe_run
from dgnet_jax.utils.paths import check_writable

logger = logging.getLogger(__name__)

NOT_STORED = 'not-stored'  # a folder of data, which a config must name
PRIVATE = ('host', 'platform')  # of the machine that trained


def export_file(run: str | pathlib.Path, path: pathlib.Path, *, step: Step = None) -> None:
  """Writes the networks of a run to a .safetensors file for `load`; discriminator, optimizers and teacher stay behind.

  The file also says with what the run was trained, and has the results of the last evaluation if it was of this step.
  Paths and other texts that the owner of the run has chosen are left out of the config.

  Args:
    run: a trained model, as for `open_model`.
    path: the file; replaced if it exists.
    step: which checkpoint.

  Raises:
    UserError: there is no such checkpoint, a file of the run is damaged, or the file cannot be written.
  """
  path = check_writable(path)
  predictor, config, source = open_model(run, batch_size=1, step=step)
  about = read_about(source) if source.is_file() else _about(source)
  if about['results'].get('evaluation', {}).get('step') != predictor.step:
    about['results'] = {}
  write_model(predictor, with_fields(config, _without_texts(config)), path, about)
  arrays = flat_parameters(predictor)
  count = sum(array.size for array in arrays.values())
  logger.info(f'step {predictor.step}, {count / 1e6:.2f} M numbers, {path.stat().st_size / 1e6:.1f} MB: {path}')


def _without_texts(config: Config) -> dict[str, str]:
  """Returns other values for the fields that hold any text, such as paths: a model needs none of them."""
  defaults = leaves(Config().to_dict())
  values = {name: default for name, default in defaults if isinstance(default, str) and name not in CHOICES}
  return values | ({'data.root': NOT_STORED} if config.data.root else {})


def _about(workdir: pathlib.Path) -> dict[str, Any]:
  """Returns what the files of a run say about it, as JSON."""
  run = describe_run(workdir)
  topics = ('evaluation', 'generated images')
  return {
    'setup': {name: text for name, text in run.setup.items() if name not in PRIVATE},
    'results': {
      topic: {title: result.value for title, result in run.results[topic].items()}
      for topic in topics
      if run.results.get(topic)
    },
  }
