"""Writes a trained run as one file that can be given away, with what is known about it."""

import logging
import pathlib
from typing import Any

from dgnet_jax.config.loading import SAVED_CONFIG, load_config
from dgnet_jax.inference.loading import Step, load_predictor
from dgnet_jax.inference.model_file import flat_parameters, write_model
from dgnet_jax.reports.run_description import describe_run
from dgnet_jax.utils.paths import check_writable

logger = logging.getLogger(__name__)

PRIVATE = ('host', 'platform')  # of the machine that trained


def export_file(workdir: pathlib.Path, path: pathlib.Path, *, step: Step = None) -> None:
  """Writes the networks of a run to a .safetensors file for `load`; discriminator, optimizers and teacher stay behind.

  The file also says with what the run was trained, and has the results of the last evaluation if it was of this step.

  Args:
    workdir: work folder of the run.
    path: the file; replaced if it exists.
    step: which checkpoint.

  Raises:
    UserError: there is no such checkpoint, a file of the run is damaged, or the file cannot be written.
  """
  path = check_writable(path)
  config = load_config(workdir / SAVED_CONFIG, {})
  about = _about(workdir)
  predictor = load_predictor(config, workdir, step=step)
  if about['results'].get('evaluation', {}).get('step') != predictor.step:
    about['results'] = {}
  write_model(predictor, config, path, about)
  arrays = flat_parameters(predictor)
  count = sum(array.size for array in arrays.values())
  logger.info(f'step {predictor.step}, {count / 1e6:.2f} M numbers, {path.stat().st_size / 1e6:.1f} MB: {path}')


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
