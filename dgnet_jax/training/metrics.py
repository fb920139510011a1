"""Numbers and images of a run: JSON lines and PNG files, and whatever else shows them (`metric_sinks`)."""

from collections.abc import Callable, Mapping, Sequence
import io
import json
import math
import os
import pathlib
from typing import Any, Self

import jax
import numpy as np
from PIL import Image

from dgnet_jax.errors import UserError
from dgnet_jax.training.agreement import in_all_processes
from dgnet_jax.training.metric_sinks import Sink, tensorboard_alone
from dgnet_jax.utils.atomic_files import atomic_file, naming
from dgnet_jax.utils.bounded_files import parse_json, read_text


class MetricWriter:
  """Writes `metrics.jsonl` and `images/NAME_STEP.png`, and passes both on to the sinks; only process 0 writes."""

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    resume_step: int = 0,
    open_sinks: Callable[[pathlib.Path, int], Sequence[Sink]] = tensorboard_alone,
  ) -> None:
    """Opens the files.

    Args:
      workdir: folder of the run.
      resume_step: iterations done before. Lines of later iterations, from an earlier process, are dropped, because
        those are run again.
      open_sinks: called with the folder and `resume_step`.

    Raises:
      UserError: the files cannot be read, or a sink refuses the run; in all processes.
    """
    self._folder = pathlib.Path(workdir)
    self._writes = jax.process_index() == 0
    self._sinks: Sequence[Sink] = ()

    def open_files() -> None:
      if not self._writes:
        return
      self._folder.mkdir(parents=True, exist_ok=True)
      path = self._folder / 'metrics.jsonl'
      _drop_after(path, resume_step)
      self._sinks = open_sinks(self._folder, resume_step)  # may be refused
      self._lines = open(path, 'a', encoding='utf-8')

    in_all_processes(open_files)

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
    for sink in self._sinks:
      sink.write_scalars(step, numbers)

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
      for sink in self._sinks:
        sink.write_image(step, name, image.shape[:2], png.getvalue())

  def close(self, *, failed: bool = False) -> None:
    """Closes the files.

    Args:
      failed: an error or a signal ends the run before its last step.
    """
    if self._writes:
      with naming(self._lines.name):
        self._lines.close()
    for sink in self._sinks:
      sink.close(failed=failed)

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    self.close(failed=kind is not None)


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
