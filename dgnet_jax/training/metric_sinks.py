"""Where the numbers and images of a run go, besides its own files: TensorBoard, and Weights & Biases on request.

A sink is all that another tool has to be: numbers and images by step, and an end.
"""

from collections.abc import Mapping
import io
import logging
import os
import pathlib
import re
import secrets
import socket
import time
from typing import Any, Protocol

from PIL import Image

from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.plots.curves import EVALUATED, RANKED
from dgnet_jax.utils.atomic_files import naming, write_json
from dgnet_jax.utils.bounded_files import read_json
from dgnet_jax.utils.extras import require_wandb

try:
  from tensorboard.compat.proto.event_pb2 import Event, SessionLog
  from tensorboard.compat.proto.summary_pb2 import Summary
  from tensorboard.plugins.hparams import summary_v2 as hparams
  from tensorboard.summary.writer.record_writer import RecordWriter

  HAS_TENSORBOARD = True
except ImportError:
  HAS_TENSORBOARD = False

logger = logging.getLogger(__name__)

EVENT_FILE = re.compile(r'events\.out\.tfevents\.([0-9]{1,16})\.')
WANDB_RUN = 'wandb_run.json'  # in the folder: the id of its run at Weights & Biases
WANDB_ID = re.compile('[0-9a-z]{8,64}')
COMPARED = (*(f'{split}/{name}' for split in EVALUATED for name in RANKED), 'loss/total')  # where runs are compared

Setting = bool | int | float | str


class Sink(Protocol):
  """Receives what a run reports, in the order of steps; after an interruption some of them again."""

  def write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
    """Receives numbers by name, which may be NaN or infinite; `step` is the number of iterations done."""

  def write_image(self, step: int, name: str, size_hw: tuple[int, int], png: bytes) -> None:
    """Receives an encoded image."""

  def close(self, *, failed: bool = False) -> None:
    """The run has ended; `failed`: by an error or a signal, before its last step."""


def tensorboard_alone(folder: pathlib.Path, resume_step: int) -> list[Sink]:
  """Opens the sink that every run has, if TensorBoard is installed."""
  return _tensorboard(folder, resume_step, None)


def configured_sinks(config: Config, folder: pathlib.Path, resume_step: int) -> list[Sink]:
  """Opens the sinks that section `log` of a config asks for.

  Args:
    config: of the run; all of it is shown as the run's settings.
    folder: of the run or of its teacher.
    resume_step: iterations done before.

  Raises:
    UserError: Weights & Biases refuses the run.
  """
  settings = {name: _shown(value) for name, value in leaves(config.to_dict())}
  wandb = [WandbRun(folder, config.log.wandb_project, settings)] if config.log.wandb_project else []
  return [*_tensorboard(folder, resume_step, settings if config.log.hparams else None), *wandb]


def _tensorboard(folder: pathlib.Path, resume_step: int, settings: Mapping[str, Setting] | None) -> list[Sink]:
  if HAS_TENSORBOARD:
    return [EventFile(folder / 'tensorboard', resume_step, settings)]
  logger.info('tensorboard is not installed: metrics are only written to metrics.jsonl')
  return []


def _shown(value: Any) -> Setting:
  return value if isinstance(value, bool | int | float | str) else ', '.join(map(str, value))


class EventFile:
  """A TensorBoard event file.

  Its records are written here because TensorBoard's own EventFileWriter imports TensorFlow wherever it is installed.
  """

  def __init__(self, folder: pathlib.Path, resume_step: int, settings: Mapping[str, Setting] | None = None) -> None:
    """Creates the file.

    Args:
      folder: TensorBoard's log folder.
      resume_step: iterations done before. TensorBoard drops later iterations in earlier files of the folder.
      settings: of the run, by name, for the tab that compares runs (HPARAMS); None writes none.
    """
    folder.mkdir(exist_ok=True)
    name = f'events.out.tfevents.{_next_stamp(folder):016d}.{socket.gethostname()}.{os.getpid()}'
    self._path = folder / name
    self._file = RecordWriter(open(self._path, 'wb'))
    self._write(0, file_version='brain.Event:2')
    self._write(resume_step + 1, session_log=SessionLog(status=SessionLog.START))
    if settings is not None:
      self._write(0, summary=_comparison_of_runs())
      self._write(0, summary=hparams.hparams_pb(dict(settings)))

  def write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
    """Writes numbers by name."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
    self._write(step, summary=Summary(value=values))

  def write_image(self, step: int, name: str, size_hw: tuple[int, int], png: bytes) -> None:
    """Writes an encoded image."""
    image = Summary.Image(height=size_hw[0], width=size_hw[1], colorspace=3, encoded_image_string=png)
    self._write(step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

  def close(self, *, failed: bool = False) -> None:
    """Closes the file."""
    with naming(self._path):
      self._file.close()

  def _write(self, step: int, **content: Any) -> None:
    with naming(self._path):
      self._file.write(Event(wall_time=time.time(), step=step, **content).SerializeToString())
      self._file.flush()


def _next_stamp(folder: pathlib.Path) -> int:
  """Returns the time in microseconds, or a later one if a file in the folder has it, as after the clock was set back.

  TensorBoard reads the files of a folder in the order of their names.
  """
  stamps = [int(match[1]) for path in folder.iterdir() if (match := EVENT_FILE.match(path.name))]
  return max([time.time_ns() // 1000, *(stamp + 1 for stamp in stamps)])


def _comparison_of_runs() -> Any:
  """Returns the summary that says which numbers are columns of the comparison."""
  return hparams.hparams_config_pb(hparams=[], metrics=[hparams.Metric(name) for name in COMPARED])


class WandbRun:
  """A run at Weights & Biases. A resumed run goes on with it; steps that are run again are then there twice."""

  def __init__(self, folder: pathlib.Path, project: str, settings: Mapping[str, Setting]) -> None:
    """Starts or resumes the run; `wandb login`, or the environment (WANDB_MODE=offline), says where it is kept.

    Args:
      folder: of the run or of its teacher; gets `wandb_run.json` and `wandb/`.
      project: name of the project.
      settings: of the run, by name.

    Raises:
      UserError: wandb is not installed, Weights & Biases refuses the run, or `wandb_run.json` is damaged.
    """
    require_wandb(project)
    import wandb  # late: optional, and importing it takes a second

    self._wandb = wandb
    name = f'{folder.parent.name}/{folder.name}' if folder.name == 'teacher' else folder.name
    try:
      self._run = wandb.init(
        project=project, id=_wandb_id(folder), name=name, dir=str(folder), config=dict(settings), resume='allow'
      )
    except wandb.errors.Error as error:
      raise UserError(
        f'log.wandb_project={project}: Weights & Biases cannot start the run ({error}); `wandb login` first, or set '
        'WANDB_MODE=offline and upload it later with `wandb sync`'
      ) from error
    self._run.define_metric('*', step_metric='step')  # its own counter cannot go back when a run is resumed

  def write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
    """Writes numbers by name."""
    self._run.log({'step': step, **numbers})

  def write_image(self, step: int, name: str, size_hw: tuple[int, int], png: bytes) -> None:
    """Writes an image."""
    self._run.log({'step': step, name: self._wandb.Image(Image.open(io.BytesIO(png)))})

  def close(self, *, failed: bool = False) -> None:
    """Sends what is left, and ends the run, there as failed or as finished."""
    self._run.finish(exit_code=int(failed))


def _wandb_id(folder: pathlib.Path) -> str:
  """Returns the id of the folder's run, a new one at the first start."""
  path = folder / WANDB_RUN
  try:
    run_id = str(read_json(path)['id'])
    if not WANDB_ID.fullmatch(run_id):
      raise ValueError('it has no id')
  except FileNotFoundError:
    run_id = secrets.token_hex(8)
    write_json(path, {'id': run_id})
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f'{path} is damaged ({error}); remove it to begin a new run at Weights & Biases') from error
  return run_id
