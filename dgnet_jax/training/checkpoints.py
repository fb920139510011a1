"""Checkpoints with Orbax: written in the background, verified when read.

Orbax does not notice a flipped byte, so the SHA-256 checksum of every array is stored with it and compared. Of several
processes only the first writes and reads, so that storage of its own is enough, and no other is waited for.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import os
import pathlib
from typing import Any, Self, TypeVar

import jax
import orbax.checkpoint as ocp

from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.data.index import printable
from dgnet_jax.errors import Interrupted, MachineError, UserError
from dgnet_jax.training import checkpoint_replacement
from dgnet_jax.training.agreement import arrays_from_first_process, from_first_process, is_alone
from dgnet_jax.training.checkpoint_arrays import (
  describe,
  gathered_on_host,
  is_storage_error,
  key_to_data,
  named_leaves,
  place,
  storage_reason,
)
from dgnet_jax.training.checkpoint_reader import CheckpointReader, this_process_alone

Tree = TypeVar('Tree')

UNREADABLE = ('[', '\\')  # characters of paths
# Orbax measures its time limits with a clock that may be set, and that jumps when a machine wakes up: a week to write a
# checkpoint. Folders that are made in the background have another limit.
_PATIENT = ocp.AsyncOptions(timeout_secs=7 * 24 * 3600, create_directories_asynchronously=False)


def check_folder(folder: str | os.PathLike[str]) -> None:
  """Raises UserError for a folder that checkpoints could be written to, but in which TensorStore finds no arrays."""
  absolute = os.path.abspath(folder)
  found = [character for character in UNREADABLE if character in absolute and character != os.sep]
  if found:
    raise UserError(
      f'{printable(absolute)}: checkpoints cannot be read from a folder with {" and ".join(found)} in its path; '
      'choose another name, or rename the folder'
    )


class _Manager(ocp.CheckpointManager):  # type: ignore[misc]
  """Orbax's manager, but does not ask for preemption: `preemption.agreed_stop_signals` counts the questions."""

  def reached_preemption(self, step: int) -> bool:
    return False


@dataclasses.dataclass
class _Kept:
  """Orbax's policy of preservation: the newest checkpoints, and the one of the best step."""

  newest: int
  best: int | None = None

  def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
    oldest = len(checkpoints) - self.newest
    return [i >= oldest or checkpoint.step == self.best for i, checkpoint in enumerate(checkpoints)]


class Checkpoints:
  """The checkpoints of one run, a folder per step."""

  def __init__(self, folder: str | os.PathLike[str], keep: int | None = None, config: Config | None = None) -> None:
    """Opens a folder of checkpoints.

    Args:
      folder: created if it is to be written to.
      keep: number of newest checkpoints to keep, besides the best; None opens the folder for reading only.
      config: stored with every checkpoint, and compared if a checkpoint does not fit.
    """
    check_folder(folder)
    self.folder = pathlib.Path(folder).absolute()
    self._config = config
    self._kept = None if keep is None else _Kept(keep)
    self._manager: _Manager | None = None  # if this process writes
    if self._kept:
      from_first_process(self._open)
    self._reader = CheckpointReader(self.folder, self._manager, config)

  def _open(self) -> None:
    checkpoint_replacement.recover(self.folder)
    self.folder.mkdir(parents=True, exist_ok=True)
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self._kept,
      create=False,  # Orbax makes no folder for one of several processes
      cleanup_tmp_directories=True,  # left by a killed save
      async_options=_PATIENT,
      multiprocessing_options=this_process_alone(),
    )
    self._manager = _Manager(self.folder, options=options)

  def keep_best(self, step: int | None) -> None:
    """Keeps the checkpoint of this step, which may be saved later, until another one is the best; None: of no step."""
    if self._kept:
      former, self._kept.best = self._kept.best, step
      if former not in (None, step):
        from_first_process(self._delete_old)

  def _delete_old(self) -> None:
    """Deletes checkpoints that are not kept, as soon as those that are have been written."""
    assert self._manager is not None and self._kept is not None
    with self._writing():
      self._manager.wait_until_finished()
      for step in self._manager.all_steps()[: -self._kept.newest]:
        if step != self._kept.best:
          self._manager.delete(step)

  def save(self, step: int, state: Any, *, wait: bool = False) -> None:
    """Saves `state` in the background; it may be donated as soon as this returns.

    Checkpoints of this step and of later ones are replaced: they are damaged, or the run was resumed before them. They
    are removed once the new checkpoint is complete on disk.

    Args:
      step: iterations done.
      state: pytree of arrays and typed keys, the same on every process.
      wait: return only when the checkpoint is complete on disk.

    Raises:
      MachineError: this or the previous checkpoint cannot be written, for example because the disk is full; names the
        newest that is complete.
    """
    if not self._kept:
      raise ValueError(f'{self.folder} was opened for reading')
    data = jax.tree.map(key_to_data, state)
    if not is_alone():
      data = gathered_on_host(data, wanted=jax.process_index() == 0)
    from_first_process(lambda: self._write(step, data, wait=wait))

  def _write(self, step: int, data: Any, *, wait: bool) -> None:
    """Saves arrays; they may be donated as soon as this returns."""
    manager = self._manager
    assert manager is not None
    with self._writing():
      replaced = [old for old in manager.all_steps() if old >= step]
      if replaced:
        manager.wait_until_finished()
        checkpoint_replacement.move_aside(self.folder, replaced, new_step=step)
        manager.reload()
      description = {
        'leaves': {name: describe(leaf) for name, leaf in named_leaves(data).items()},
        'config': self._config.to_dict() if self._config is not None else {},
      }
      arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(data), about=ocp.args.JsonSave(description))
      if not manager.save(step, args=arguments, force=True):
        raise RuntimeError(f'the checkpoint of step {step} was not saved in {self.folder}')
      if wait or replaced:
        manager.wait_until_finished()
      if replaced:
        checkpoint_replacement.recover(self.folder)
        self._reader.forget_damage(step)

  def latest_step(self) -> int | None:
    """Returns the newest step that is not known to be damaged; None if there is none."""
    steps = self.steps()
    return steps[-1] if steps else None

  def steps(self) -> list[int]:
    """Returns the steps of all checkpoints that are not known to be damaged, in order."""
    return from_first_process(self._reader.steps)

  def restore(self, template: Tree, step: int | None = None) -> Tree:
    """Restores the newest intact checkpoint, or that of `step`.

    Warns of a damaged checkpoint and takes the one before it.

    Args:
      template: pytree of arrays or ShapeDtypeStructs like the saved state. Arrays are placed as in the template; a
        leaf without a sharding goes to the default device, and stays on the host for one that is a numpy array.
      step: restore this checkpoint and no other.

    Returns:
      A pytree like `template`.

    Raises:
      UserError: there is no checkpoint, all are damaged, one cannot be read, or it does not have the form of
        `template`.
    """
    return self._restore(template, step, partial=False)

  def restore_part(self, template: Mapping[str, Any], step: int | None = None) -> Any:
    """Like `restore`, for some of the saved arrays: `{'reid': {'params': ..., 'batch_stats': ...}}`.

    Args:
      template: nested dictionary whose keys are names in the saved state.
      step: restore this checkpoint and no other.

    Returns:
      A pytree like `template`; only these arrays are read and verified.
    """
    return self._restore(template, step, partial=True)

  def shapes(self, step: int | None = None) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of all arrays in the newest checkpoint, or in that of `step`, by their path a/b/c.

    Raises:
      UserError: there is no such checkpoint, its description is damaged, or it cannot be read.
    """
    shapes = from_first_process(lambda: self._reader.shapes(step))
    return {name: tuple(shape) for name, shape in shapes.items()}

  def saved_config(self, step: int | None = None) -> dict[str, Any]:
    """Returns the config that was stored with the newest intact checkpoint, or with that of `step`, as read from JSON.

    Raises:
      UserError: there is no checkpoint, all are damaged, or one cannot be read.
    """
    return from_first_process(lambda: self._reader.saved_config(step))

  def require_design(self, config: Config, step: int | None = None) -> None:
    """Checks that a checkpoint, by default the newest intact one, has the generator that a config describes.

    Raises:
      UserError: the generator has another design, or no checkpoint can be read.
    """
    saved_fields, configured = dict(leaves(self.saved_config(step))), config.generator.design
    saved = saved_fields.get('generator.design', 'adain')
    if saved != configured:
      raise UserError(
        f'{self.folder}: the generator of this run has generator.design={saved}, not {configured}; set '
        f'--config.generator.design={saved}, or use another work folder'
      )

  def num_identities(self, step: int | None = None) -> int:
    """Returns the number of classes of the re-id network in the newest intact checkpoint, or in that of `step`.

    Raises:
      UserError: there is no checkpoint of DG-Net, all are damaged, or one cannot be read.
    """
    return from_first_process(lambda: self._reader.num_identities(step))

  def close(self) -> None:
    """Waits for checkpoints that are being written; raises MachineError if they cannot be."""
    self._reader.close()
    if self._kept:
      from_first_process(self._finish)

  def _finish(self) -> None:
    """Completes what this process writes, if it is the one that does."""
    if self._manager is not None:
      with self._writing():
        self._manager.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
    """Closes; after an error, one of several processes waits for what it writes itself, but not for the others.

    They may be gone, or wait for this one elsewhere.
    """
    if is_alone() or kind is None or issubclass(kind, Interrupted):
      self.close()
    else:
      with contextlib.suppress(Exception):  # the first error is the one to show
        self._finish()

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """Turns what the storage refuses to write into an error that says which checkpoint is complete."""
    try:
      yield
    except Exception as error:
      if isinstance(error, UserError) or not is_storage_error(error):
        raise
      complete = checkpoint_replacement.complete_steps(self.folder)
      kept = f'the checkpoint of step {max(complete)} is complete' if complete else 'there is no other checkpoint'
      raise MachineError(
        f'{self.folder}: a checkpoint cannot be written ({storage_reason(error)}); {kept}. Make room or check the '
        'storage, and run the same command again.'
      ) from error

  def _restore(self, template: Tree, step: int | None, *, partial: bool) -> Tree:
    wanted: Tree = jax.tree.map(lambda leaf: jax.eval_shape(key_to_data, leaf), template)
    data = arrays_from_first_process(lambda: self._reader.newest_intact(wanted, step, partial=partial), wanted)
    placed: Tree = jax.tree.map(place, data, template)
    return placed
