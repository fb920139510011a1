"""Numbers and images of a run: JSON lines, PNG files, and TensorBoard files where it is installed."""

from collections.abc import Mapping
import io
import json
import logging
import math
import os
import pathlib
import re
import socket
import time
from typing import Any

import jax
import numpy as np
from PIL import Image

from dgnet_jax.errors import UserError
from dgnet_jax.utils.atomic_files import atomic_file, naming
from dgnet_jax.utils.bounded_files import parse_json, read_text

try:
  from tensorboard.compat.proto.event_pb2 import Event, SessionLog
  from tensorboard.compat.proto.summary_pb2 import Summary
  from tensorboard.summary.writer.record_writer import RecordWriter

  HAS_TENSORBOARD = True
except ImportError:
  HAS_TENSORBOARD = False

logger = logging.getLogger(__name__)

EVENT_FILE = re.compile(r'events\.out\.tfevents\.([0-9]{1,16})\.')


class MetricWriter:
  """Writes `metrics.jsonl`, `images/NAME_STEP.png` and `tensorboard/`; only process 0 writes."""

  def __init__(self, workdir: str | os.PathLike[str], resume_step: int = 0) -> None:
    """Opens the files.

    Args:
      workdir: folder of the run.
      resume_step: iterations done before. Lines of later iterations, from an earlier process, are dropped, because
        those are run again.
    """
    self._folder = pathlib.Path(workdir)
    self._writes = jax.process_index() == 0
    self._events: EventFile | None = None
    if not self._writes:
      return
    self._folder.mkdir(parents=True, exist_ok=True)
    path = self._folder / 'metrics.jsonl'
    _drop_after(path, resume_step)
    self._lines = open(path, 'a', encoding='utf-8')
    if HAS_TENSORBOARD:
      self._events = EventFile(self._folder / 'tensorboard', resume_step)
    else:
      logger.info(f'tensorboard is not installed: metrics are only written to {path}')

  def write_scalars(self, step: int, scalars: Mapping[str, Any]) -> None:
    """Writes one line of JSON, {"step": ..., NAME: number}; numbers that are not finite become null.

    Args:
      step: iterations done.
      scalars: numbers, or arrays of one element, by name.
    """
    if not self._writes:
      return
    numbers = {name: float(np.asarray(value)) for name, value in scalars.items()}
    finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
    with naming(self._lines.name):
      self._lines.write(json.dumps({'step': step, **finite}) + '\n')
      self._lines.flush()
    if self._events:
      self._events.write_scalars(step, numbers)

  def write_images(self, step: int, images: Mapping[str, np.ndarray]) -> None:
    """Writes one PNG file per image.

    Args:
      step: iterations done.
      images: u8[H, W, 3] by name.
    """
    if not self._writes:
      return
    folder = self._folder / 'images'
    folder.mkdir(exist_ok=True)
    for name, image in images.items():
      if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f'{name}: {image.dtype=} {image.shape=}; expected u8[H, W, 3]')
      png = io.BytesIO()
      Image.fromarray(np.asarray(image)).save(png, 'png')
      with atomic_file(folder / f'{name}_{step:07d}.png') as temporary:
        temporary.write_bytes(png.getvalue())
      if self._events:
        self._events.write_image(step, name, image.shape[:2], png.getvalue())

  def close(self) -> None:
    """Closes the files."""
    if self._writes:
      with naming(self._lines.name):
        self._lines.close()
    if self._events:
      self._events.close()


class EventFile:
  """A TensorBoard event file.

  Its records are written here because TensorBoard's own EventFileWriter imports TensorFlow wherever it is installed.
  """

  def __init__(self, folder: pathlib.Path, resume_step: int) -> None:
    """Creates the file.

    Args:
      folder: TensorBoard's log folder.
      resume_step: iterations done before. TensorBoard drops later iterations in earlier files of the folder.
    """
    folder.mkdir(exist_ok=True)
    name = f'events.out.tfevents.{_next_stamp(folder):016d}.{socket.gethostname()}.{os.getpid()}'
    self._path = folder / name
    self._file = RecordWriter(open(self._path, 'wb'))
    self._write(0, file_version='brain.Event:2')
    self._write(resume_step + 1, session_log=SessionLog(status=SessionLog.START))

  def write_scalars(self, step: int, numbers: Mapping[str, float]) -> None:
    """Writes numbers by name."""
    values = [Summary.Value(tag=name, simple_value=value) for name, value in numbers.items()]
    self._write(step, summary=Summary(value=values))

  def write_image(self, step: int, name: str, size_hw: tuple[int, int], png: bytes) -> None:
    """Writes an encoded image."""
    image = Summary.Image(height=size_hw[0], width=size_hw[1], colorspace=3, encoded_image_string=png)
    self._write(step, summary=Summary(value=[Summary.Value(tag=name, image=image)]))

  def close(self) -> None:
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


def _drop_after(path: pathlib.Path, step: int) -> None:
  """Keeps the complete lines up to `step`; a killed process may have left an incomplete one.

  Raises:
    UserError: the file cannot be read.
  """
  if not path.exists():
    return
  try:
    lines = read_text(path, errors='replace').splitlines()
  except OSError as error:
    raise UserError(f'{path}: cannot be read ({error.strerror}); move it away to continue') from error
  kept = []
  for line in lines:
    try:
      if parse_json(line)['step'] <= step:
        kept.append(f'{line}\n')
    except (ValueError, KeyError, TypeError):
      continue
  with atomic_file(path) as temporary:
    temporary.write_text(''.join(kept), encoding='utf-8')
