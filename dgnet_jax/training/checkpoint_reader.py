"""Reads checkpoints, and verifies what it reads: one process's view of a folder."""

from collections.abc import Iterator
import contextlib
import functools
import json
import pathlib
import re
from typing import Any, TypeVar
import warnings

import jax
import numpy as np
import orbax.checkpoint as ocp

from dgnet_jax.config.loading import differences
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import MachineError, UserError
from dgnet_jax.training.checkpoint_arrays import (
  check_description,
  describe,
  form_of,
  is_storage_error,
  mismatches,
  named_leaves,
  not_finite,
  saved_form,
  short_reason,
)
from dgnet_jax.utils.bounded_files import parse_json

Tree = TypeVar('Tree')
Description = dict[str, Any]  # leaves: description of each array by name; config: of the run

SHOWN_MISMATCHES = 3
CLASSIFIER_KERNEL = re.compile(r'reid/params/[^/]*head[^/]*/classifier/kernel')  # arrays with one column per identity


def this_process_alone() -> ocp.options.MultiprocessingOptions:
  """Returns the options with which Orbax works in this process, and waits for no other."""
  index = jax.process_index()
  return ocp.options.MultiprocessingOptions(primary_host=index, active_processes={index})


class _Damaged(UserError):
  """A checkpoint's files are incomplete, or do not hold what was saved."""

  def __init__(self, folder: pathlib.Path, step: int, reason: str) -> None:
    super().__init__(f'{folder}: the checkpoint of step {step} is damaged ({reason})')
    self.reason = reason


class CheckpointReader:
  """Reads the checkpoints of one run. Nothing in it waits for other processes."""

  def __init__(self, folder: pathlib.Path, writer: ocp.CheckpointManager | None, config: Config | None) -> None:
    """Args:
    folder: the folder, absolute.
    writer: the manager that writes there, if only this process does; None looks at the storage.
    config: compared if a checkpoint does not fit.
    """
    self._folder = folder
    self._writer = writer
    self._config = config
    self._damaged: dict[int, str] = {}

  @functools.cached_property
  def _manager(self) -> ocp.CheckpointManager | None:
    """Orbax's manager, for this process alone; None if there is no folder."""
    if self._writer is not None:
      return self._writer
    options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=this_process_alone())
    return ocp.CheckpointManager(self._folder, options=options) if self._folder.is_dir() else None

  def steps(self) -> list[int]:
    """Returns the steps of all checkpoints that are not known to be damaged, in order."""
    if self._manager is None:
      return []
    if self._writer is None:
      self._manager.reload()  # others may have written or removed some
    return sorted(step for step in self._manager.all_steps() if step not in self._damaged)

  def forget_damage(self, first: int) -> None:
    """Takes the checkpoints from step `first` on for good ones: they have been replaced."""
    self._damaged = {step: reason for step, reason in self._damaged.items() if step < first}

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
      counts = [shape[-1] for name, shape in shapes.items() if shape and CLASSIFIER_KERNEL.fullmatch(name)]
      if counts:
        return counts[0]
      error = error or UserError(f'{self._folder}: the checkpoint of step {candidate} is not a checkpoint of DG-Net')
    assert error is not None
    raise error

  def newest_intact(self, wanted: Tree, step: int | None, *, partial: bool) -> Tree:
    """Reads the newest intact checkpoint, or that of `step`; warns of a damaged one and takes the one before it.

    Args:
      wanted: pytree of arrays or ShapeDtypeStructs, without typed keys.
      step: read this checkpoint and no other.
      partial: the checkpoint may hold more.

    Returns:
      Numpy arrays like `wanted`.

    Raises:
      UserError: as `Checkpoints.restore`.
    """
    candidates = self._candidates(step)
    for candidate in candidates:
      try:
        return self._read(candidate, wanted, partial=partial)
      except _Damaged as error:
        self._damaged[candidate] = error.reason
        warnings.warn(f'damaged checkpoint skipped: {error}', stacklevel=3)
    reasons = '; '.join(f'step {damaged} ({self._damaged[damaged]})' for damaged in candidates)
    solution = 'Delete the folder to start again.' if step is None else 'Restore another step.'
    raise UserError(f'{self._folder}: the checkpoint is damaged: {reasons}. {solution}')

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
    raise UserError(f'{self._folder}: no checkpoint{"" if step is None else f" of step {step}"}; {existing}')

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
        raise MachineError(
          f'{self._folder}: the checkpoint of step {step} cannot be read ({reason}). This does not mean that it is '
          'damaged; check the storage, and run the same command again.'
        ) from error
      raise _Damaged(self._folder, step, reason) from error

  def _description(self, step: int) -> Description:
    with self._reading(step) as manager:
      about = manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))['about']
      about = parse_json(json.dumps(about))  # bounds its depth and its numbers
      check_description(about)
      return {'leaves': dict(about['leaves']), 'config': dict(about['config'])}

  def _read(self, step: int, wanted: Tree, *, partial: bool) -> Tree:
    """Reads host arrays like `wanted` and compares their checksums."""
    description = self._description(step)
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
      f'{self._folder}: the checkpoint of step {step} does not fit: {"; ".join(wrong[:SHOWN_MISMATCHES])}{more}.'
      f'{reason} Use another workdir, or the old config.'
    )

  def close(self) -> None:
    """Closes the manager, if it is this object's own."""
    own = self.__dict__.get('_manager') if self._writer is None else None  # do not make one to close it
    if own is not None:
      own.close()
