"""Checkpoints with Orbax: written in the background, verified when read.

Orbax does not notice a flipped byte, so the SHA-256 checksum of every array is stored with it and compared.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import os
import pathlib
import re
from typing import Any, TypeVar
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from dgnet_jax.config.loading import differences
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.data.index import printable
from dgnet_jax.errors import UserError
from dgnet_jax.training import checkpoint_replacement
from dgnet_jax.training.checkpoint_arrays import (
  check_description,
  describe,
  form_of,
  is_storage_error,
  key_to_data,
  mismatches,
  named_leaves,
  not_finite,
  place,
  saved_form,
  short_reason,
  storage_reason,
)
from dgnet_jax.utils.bounded_files import parse_json

Tree = TypeVar('Tree')
Description = dict[str, Any]  # leaves: description of each array by name; config: of the run

SHOWN_MISMATCHES = 3
UNREADABLE = ('[', '\\')  # characters of paths
CLASSIFIER_BIAS = re.compile(r'reid/params/[^/]*head[^/]*/classifier/bias')  # arrays with one number per identity


def check_folder(folder: str | os.PathLike[str]) -> None:
  """Raises UserError for a folder that checkpoints could be written to, but in which TensorStore finds no arrays."""
  absolute = os.path.abspath(folder)
  found = [character for character in UNREADABLE if character in absolute and character != os.sep]
  if found:
    raise UserError(
      f'{printable(absolute)}: checkpoints cannot be read from a folder with {" and ".join(found)} in its path; '
      'choose another name, or rename the folder'
    )


class _Damaged(UserError):
  """A checkpoint's files are incomplete, or do not hold what was saved."""

  def __init__(self, folder: pathlib.Path, step: int, reason: str) -> None:
    super().__init__(f'{folder}: the checkpoint of step {step} is damaged ({reason})')
    self.reason = reason


class Checkpoints:
  """The checkpoints of one run, a folder per step."""

  def __init__(self, folder: str | os.PathLike[str], keep: int | None = None, config: Config | None = None) -> None:
    """Opens a folder of checkpoints.

    Args:
      folder: created if it is to be written to.
      keep: number of newest checkpoints to keep; None opens the folder for reading only.
      config: stored with every checkpoint, and compared if a checkpoint does not fit.
    """
    check_folder(folder)
    self.folder = pathlib.Path(folder).absolute()
    self._config = config
    self._damaged: dict[int, str] = {}
    self._writable = keep is not None
    if self._writable:
      checkpoint_replacement.recover(self.folder)
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=self._writable,
      cleanup_tmp_directories=self._writable,  # left by a killed save
    )
    exists = self._writable or self.folder.is_dir()
    self._manager = ocp.CheckpointManager(self.folder, options=options) if exists else None

  def save(self, step: int, state: Any, *, wait: bool = False) -> None:
    """Saves `state` in the background; it may be donated as soon as this returns.

    Checkpoints of this step and of later ones are replaced: they are damaged, or the run was resumed before them. They
    are removed once the new checkpoint is complete on disk.

    Args:
      step: iterations done.
      state: pytree of arrays and typed keys, the same on every process.
      wait: return only when the checkpoint is complete on disk.

    Raises:
      UserError: this or the previous checkpoint cannot be written, for example because the disk is full; names the
        newest that is complete.
    """
    if self._manager is None or not self._writable:
      raise ValueError(f'{self.folder} was opened for reading')
    with self._writing():
      self._save(self._manager, step, state, wait=wait)

  def _save(self, manager: ocp.CheckpointManager, step: int, state: Any, *, wait: bool) -> None:
    replaced = [old for old in manager.all_steps() if old >= step]
    if replaced:
      manager.wait_until_finished()
      checkpoint_replacement.move_aside(self.folder, replaced, new_step=step)
      manager.reload()
    data = jax.tree.map(key_to_data, state)
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
      self._damaged = {old: reason for old, reason in self._damaged.items() if old < step}

  def latest_step(self) -> int | None:
    """Returns the newest step that is not known to be damaged; None if there is none."""
    steps = self.steps()
    return steps[-1] if steps else None

  def steps(self) -> list[int]:
    """Returns the steps of all checkpoints that are not known to be damaged, in order."""
    steps = self._manager.all_steps() if self._manager is not None else []
    return sorted(step for step in steps if step not in self._damaged)

  def restore(self, template: Tree, step: int | None = None) -> Tree:
    """Restores the newest intact checkpoint, or that of `step`.

    Warns of a damaged checkpoint and takes the one before it.

    Args:
      template: pytree of arrays or ShapeDtypeStructs like the saved state. Arrays are placed as in the template; a
        leaf without a sharding goes to the default device.
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
    steps = self._candidates(step)
    return {name: tuple(leaf['shape']) for name, leaf in self._description(steps[0])['leaves'].items()}

  def saved_config(self, step: int | None = None) -> dict[str, Any]:
    """Returns the config that was stored with the newest intact checkpoint, or with that of `step`, as read from JSON.

    Raises:
      UserError: there is no checkpoint, all are damaged, or one cannot be read.
    """
    error: UserError | None = None
    for candidate in self._candidates(step):
      try:
        return dict(self._description(candidate)['config'])
      except _Damaged as damage:
        error = error or damage
    assert error is not None  # there is at least one candidate
    raise error

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
    error: UserError | None = None
    for candidate in self._candidates(step):
      try:
        shapes = self.shapes(candidate)
      except _Damaged as damage:
        error = error or damage
        continue
      counts = [shape[0] for name, shape in shapes.items() if shape and CLASSIFIER_BIAS.fullmatch(name)]
      if counts:
        return counts[0]
      error = error or UserError(f'{self.folder}: the checkpoint of step {candidate} is not a checkpoint of DG-Net')
    assert error is not None
    raise error

  def close(self) -> None:
    """Waits for checkpoints that are being written; raises UserError if they cannot be."""
    if self._manager is not None:
      with self._writing():
        self._manager.close()

  def _candidates(self, step: int | None) -> list[int]:
    """Returns `step`, or all steps from the newest on; at least one.

    Raises:
      UserError: there is none.
    """
    steps = self.steps()
    if step in steps:
      return [step]
    if steps and step is None:
      return steps[::-1]
    existing = f'available: {", ".join(map(str, steps))}' if steps else 'the folder has none'
    raise UserError(f'{self.folder}: no checkpoint{"" if step is None else f" of step {step}"}; {existing}')

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
      raise UserError(
        f'{self.folder}: a checkpoint cannot be written ({storage_reason(error)}); {kept}. Make room or check the '
        'storage, and run the same command again.'
      ) from error

  @contextlib.contextmanager
  def _reading(self, step: int) -> Iterator[ocp.CheckpointManager]:
    """Yields the manager, and turns what it raises into an error that blames the checkpoint or the storage."""
    assert self._manager is not None
    try:
      yield self._manager
    except UserError:
      raise
    except Exception as error:  # Orbax raises bare Exceptions, and more kinds than it documents
      reason = short_reason(error)
      if is_storage_error(error):
        raise UserError(
          f'{self.folder}: the checkpoint of step {step} cannot be read ({reason}). This does not mean that it is '
          'damaged; check the storage, and run the same command again.'
        ) from error
      raise _Damaged(self.folder, step, reason) from error

  def _description(self, step: int) -> Description:
    with self._reading(step) as manager:
      about = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))['about']
      about = parse_json(json.dumps(about))  # bounds its depth and its numbers
      check_description(about)
      return {'leaves': dict(about['leaves']), 'config': dict(about['config'])}

  def _restore(self, template: Tree, step: int | None, *, partial: bool) -> Tree:
    candidates = self._candidates(step)
    for candidate in candidates:
      try:
        data = self._read(candidate, template, partial=partial)
      except _Damaged as error:
        self._damaged[candidate] = error.reason
        warnings.warn(f'damaged checkpoint skipped: {error}', stacklevel=3)
      else:
        placed: Tree = jax.tree.map(place, data, template)
        return placed
    reasons = '; '.join(f'step {damaged} ({self._damaged[damaged]})' for damaged in candidates)
    solution = 'Delete the folder to start again.' if step is None else 'Restore another step.'
    raise UserError(f'{self.folder}: the checkpoint is damaged: {reasons}. {solution}')

  def _read(self, step: int, template: Tree, *, partial: bool) -> Tree:
    """Reads host arrays like `template` and compares their checksums."""
    description = self._description(step)
    wanted: Tree = jax.tree.map(lambda leaf: jax.eval_shape(key_to_data, leaf), template)
    self._check_form(step, description, wanted, partial=partial)
    arguments = ocp.args.PyTreeRestore(
      wanted,
      restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
      partial_restore=True,
    )
    with self._reading(step) as manager:
      data: Tree = manager.restore(step, args=ocp.args.Composite(state=arguments))['state']
      for name, leaf in named_leaves(data).items():
        if describe(leaf) != description['leaves'][name]:
          raise ValueError(f'{name} does not match its checksum')
      if broken := not_finite(data):  # saved by an earlier version; training from it would fail for ever
        raise ValueError(f'{broken[0]} is not finite')
    return data

  def _check_form(self, step: int, description: Description, wanted: Any, *, partial: bool) -> None:
    """Raises UserError if an intact checkpoint does not have the expected arrays."""
    wrong = mismatches(saved_form(description['leaves']), form_of(wanted), partial=partial)
    if not wrong:
      return
    more = f' and {len(wrong) - SHOWN_MISMATCHES} more' if len(wrong) > SHOWN_MISMATCHES else ''
    changes: list[str] = []
    if self._config is not None and description['config']:
      with contextlib.suppress(UserError):  # not a config: the arrays say enough
        changes = differences(description['config'], self._config)
    reason = f' The config has changed: {"; ".join(changes)}.' if changes else ''
    raise UserError(
      f'{self.folder}: the checkpoint of step {step} does not fit: {"; ".join(wrong[:SHOWN_MISMATCHES])}{more}.'
      f'{reason} Use another workdir, or the old config.'
    )
