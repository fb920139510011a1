"""The report on a step whose numbers are not finite: `WORKDIR/non_finite/step_N/report.json`.

The state before the step is gone when the numbers are read. It is not needed: batches and random draws are functions of
(seed, step), so the checkpoint before and the config lead to the same step again (`training/replay.py`).
"""

from collections.abc import Mapping
import dataclasses
import pathlib
from typing import Any

import jax

from dgnet_jax.config.loading import complete_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError, UserError
from dgnet_jax.utils.atomic_files import write_json
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json

FOLDER = 'non_finite'
REPORT_FILE = 'report.json'
MAX_STEP = 2**31 - 1  # as for the step of a state


@dataclasses.dataclass(frozen=True)
class NonFinite:
  """A step whose losses, or whose state afterwards, are not finite.

  Attributes:
    step: iterations done before it.
    terms: the losses that are not finite; empty if all are.
    networks: the parts of the state that were not finite when that was noticed.
    noticed_after: iterations done then.
    checkpoint: step of the newest checkpoint that the step can be reached from; None if it is the start of the run.
  """

  step: int
  terms: tuple[str, ...]
  networks: tuple[str, ...]
  noticed_after: int
  checkpoint: int | None


@dataclasses.dataclass(frozen=True)
class SavedReport:
  """A report as it is stored.

  Attributes:
    found: the step.
    config: of the run.
    environment: JAX's version and the devices, by name: with others, numbers are rounded differently.
  """

  found: NonFinite
  config: Config
  environment: Mapping[str, str]


def environment() -> dict[str, str]:
  """Describes what the last digit of a result depends on, beside the config and the data."""
  device = jax.devices()[0]
  return {
    'jax': jax.__version__,
    'devices': f'{jax.device_count()} {device.platform} ({device.device_kind})',
    'processes': str(jax.process_count()),
  }


def write_report(found: NonFinite, config: Config, workdir: pathlib.Path) -> pathlib.Path:
  """Writes the report on a step to the work folder, and returns its path."""
  path = workdir / FOLDER / f'step_{found.step}' / REPORT_FILE
  write_json(path, {**dataclasses.asdict(found), 'environment': environment(), 'config': config.to_dict()})
  return path


def find_report(workdir: pathlib.Path, step: int | None = None) -> pathlib.Path:
  """Returns the path of the report on a step, by default of the one that was written last.

  Raises:
    UserError: there is none; names the steps that have one.
  """
  found = {path.parent.name.removeprefix('step_'): path for path in (workdir / FOLDER).glob(f'step_*/{REPORT_FILE}')}
  reports = {int(name): path for name, path in found.items() if name.isdecimal()}
  if step is None and reports:
    return max(reports.values(), key=lambda path: path.stat().st_mtime_ns)
  if step in reports:
    return reports[step]
  if not reports:
    raise UserError(f'{workdir / FOLDER}: there is no report; training writes one if a number is not finite')
  raise UserError(
    f'{workdir / FOLDER}: there is no report on step {step}; there are {", ".join(map(str, sorted(reports)))}'
  )


def read_report(path: pathlib.Path) -> SavedReport:
  """Reads a report.

  Raises:
    UserError: the file is damaged or cannot be read.
  """
  try:
    values = read_json(path, MAX_DESCRIPTION_BYTES)
    found = NonFinite(
      step=_step(values['step']),
      terms=tuple(map(str, values['terms'])),
      networks=tuple(map(str, values['networks'])),
      noticed_after=_step(values['noticed_after']),
      checkpoint=None if values['checkpoint'] is None else _step(values['checkpoint']),
    )
    if found.checkpoint is not None and found.checkpoint > found.step:
      raise ValueError('the checkpoint is later than the step')
    environment = {str(name): str(value) for name, value in values['environment'].items()}
    config = complete_config(values['config'])
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror})') from error
  except (ConfigError, ValueError, TypeError, KeyError, AttributeError) as error:
    raise UserError(f'{path}: not a report of training ({error})') from error
  return SavedReport(found, config, environment)


def _step(value: Any) -> int:
  if type(value) is not int or not 0 <= value <= MAX_STEP:
    raise ValueError('a step that is not a whole number')
  return value
