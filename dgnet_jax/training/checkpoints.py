"""Checkpoints with Orbax: written in the background, verified when read.

Orbax restores a file with a flipped byte without a word, so every array's SHA-256 is stored with it and compared.
"""

from collections.abc import Mapping
import hashlib
import os
import pathlib
import re
from typing import Any
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from dgnet_jax.config.loading import differences
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import put_everywhere

SHOWN_MISMATCHES = 3
CLASSES = re.compile(r'reid/params/[^/]*head[^/]*/classifier/bias')  # arrays that have one number per person


class Checkpoints:
  """The checkpoints of one run, a folder per step.

  Args:
    folder: of the checkpoints; created when there is something to save.
    keep: how many of the latest to keep; None opens the folder for reading only.
    config: stored with every checkpoint, and compared when a checkpoint does not fit.
  """

  def __init__(self, folder: str | os.PathLike[str], keep: int | None = None, config: Config | None = None) -> None:
    self.folder = pathlib.Path(folder).absolute()
    self._config = config
    self._damaged: dict[int, str] = {}
    options = ocp.CheckpointManagerOptions(
      max_to_keep=keep,
      create=keep is not None,
      cleanup_tmp_directories=keep is not None,  # what a killed save left behind
    )
    self._writable = keep is not None
    there = self._writable or self.folder.is_dir()
    self._manager = ocp.CheckpointManager(self.folder, options=options) if there else None

  def save(self, step: int, state: Any, *, wait: bool = False) -> None:
    """Saves `state` in the background; it may be donated as soon as this returns.

    A checkpoint of this or a later step is replaced: the run has gone back behind it, or it was damaged.

    Args:
      step: iterations done.
      state: pytree of arrays and typed keys, the same on every process.
      wait: return only when the checkpoint is whole on disk.
    """
    if self._manager is None or not self._writable:
      raise ValueError(f'{self.folder} was opened for reading')
    for later in self._manager.all_steps():
      if later >= step:
        self._manager.wait_until_finished()
        self._manager.delete(later)
        self._damaged.pop(later, None)
    data = jax.tree.map(_key_to_data, state)
    about = {'leaves': {name: _describe(leaf) for name, leaf in _named_leaves(data).items()}}
    about['config'] = self._config.to_dict() if self._config is not None else {}
    arguments = ocp.args.Composite(state=ocp.args.PyTreeSave(data), about=ocp.args.JsonSave(about))
    if not self._manager.save(step, args=arguments, force=True):
      raise RuntimeError(f'the checkpoint of step {step} was not saved in {self.folder}')
    if wait:
      self._manager.wait_until_finished()

  def latest_step(self) -> int | None:
    """The newest step that is not known to be damaged; None when there is none."""
    steps = self._steps()
    return steps[-1] if steps else None

  def restore(self, template: Any, step: int | None = None) -> Any:
    """The newest whole checkpoint, or that of `step`.

    A damaged checkpoint is named in a warning and the one before it is taken.

    Args:
      template: pytree of the saved form, of arrays or ShapeDtypeStructs; their shardings are those of the result
        (without one: the default device).
      step: take this one and no other.

    Returns:
      A pytree like `template`.

    Raises:
      UserError: there is no checkpoint, all are damaged, or they are of another form than `template`.
    """
    return self._newest_whole(template, step, whole=True)

  def restore_part(self, template: Mapping[str, Any], step: int | None = None) -> Any:
    """Like `restore`, for some of the saved arrays: `{'reid': {'params': ..., 'batch_stats': ...}}`.

    Args:
      template: nested dictionary whose keys are names of the saved state.
      step: take this one and no other.

    Returns:
      A pytree like `template`; only these arrays are read and verified.
    """
    return self._newest_whole(template, step, whole=False)

  def shapes(self, step: int | None = None) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of a checkpoint by their path, a/b/c; the newest one if no step is given.

    Raises:
      UserError: there is no such checkpoint, or its description is damaged.
    """
    return {name: tuple(leaf['shape']) for name, leaf in self._about(step)['leaves'].items()}

  def saved_config(self, step: int | None = None) -> dict[str, Any]:
    """The config that was stored with the newest checkpoint that can be read, or that of `step`, as JSON has it.

    Raises:
      UserError: there is no checkpoint, or all are damaged.
    """
    error = self._absent(step)
    for candidate in self._steps()[::-1] if step is None else [step]:
      try:
        return self._about(candidate)['config']
      except UserError as reason:
        error = reason
    raise error

  def num_identities(self, step: int | None = None) -> int:
    """How many people the re-id network of a run tells apart; the newest checkpoint that says so, or that of `step`.

    Raises:
      UserError: there is no checkpoint of DG-Net, or all are damaged.
    """
    error = self._absent(step)
    for candidate in self._steps()[::-1] if step is None else [step]:
      try:
        shapes = self.shapes(candidate)
      except UserError as reason:
        error = reason
        continue
      counts = [shape[0] for name, shape in shapes.items() if CLASSES.fullmatch(name)]
      if counts:
        return counts[0]
      error = UserError(f'{self.folder}: the checkpoint of step {candidate} is none of DG-Net')
    raise error

  def close(self) -> None:
    """Waits for what is being written."""
    if self._manager is not None:
      self._manager.close()

  def _about(self, step: int | None) -> dict[str, Any]:
    """A checkpoint's description: leaves and config."""
    steps = self._steps()
    if self._manager is None or not steps or (step is not None and step not in steps):
      raise self._absent(step)
    chosen = steps[-1] if step is None else step
    try:
      about = self._manager.restore(chosen, args=ocp.args.Composite(about=ocp.args.JsonRestore()))['about']
      return {'leaves': dict(about['leaves']), 'config': dict(about['config'])}
    except Exception as error:  # as in `_newest_whole`
      raise UserError(f'{self.folder}: the checkpoint of step {chosen} is damaged ({error})') from error

  def _steps(self) -> list[int]:
    steps = self._manager.all_steps() if self._manager is not None else []
    return sorted(step for step in steps if step not in self._damaged)

  def _absent(self, step: int | None) -> UserError:
    steps = self._steps()
    there = f'there are {", ".join(map(str, steps))}' if steps else 'there is none'
    return UserError(f'{self.folder}: no checkpoint{"" if step is None else f" of step {step}"}; {there}')

  def _newest_whole(self, template: Any, step: int | None, *, whole: bool) -> Any:
    steps = self._steps()
    if not steps or (step is not None and step not in steps):
      raise self._absent(step)
    for candidate in reversed(steps) if step is None else [step]:
      try:
        data = self._read(candidate, template, whole=whole)
      except UserError:
        raise
      except Exception as error:  # Orbax raises bare Exceptions, and more kinds than it documents
        self._damaged[candidate] = reason = f'step {candidate}: {str(error).splitlines()[0][:200] or type(error)}'
        warnings.warn(f'{self.folder}: damaged checkpoint skipped, {reason}', stacklevel=3)
      else:
        return jax.tree.map(_place, data, template)
    reasons = '; '.join(self._damaged[bad] for bad in sorted(self._damaged))
    raise UserError(
      f'{self.folder}: every checkpoint asked for is damaged ({reasons}). Delete the folder to start again.'
    )

  def _read(self, step: int, template: Any, *, whole: bool) -> Any:
    """Host arrays of one checkpoint, verified; raises UserError if it is sound but does not fit."""
    assert self._manager is not None
    about = self._manager.restore(step, args=ocp.args.Composite(about=ocp.args.JsonRestore()))['about']
    wanted = jax.tree.map(lambda leaf: jax.eval_shape(_key_to_data, leaf), template)
    self._check_form(step, about, _named_leaves(wanted), whole=whole)
    arguments = ocp.args.PyTreeRestore(
      wanted,
      restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
      partial_restore=True,
    )
    data = self._manager.restore(step, args=ocp.args.Composite(state=arguments))['state']
    for name, leaf in _named_leaves(data).items():
      if _describe(leaf) != about['leaves'][name]:
        raise ValueError(f'{name} is not what was saved')
    return data

  def _check_form(self, step: int, about: Mapping[str, Any], wanted: Mapping[str, Any], *, whole: bool) -> None:
    saved = {name: (leaf['dtype'], leaf['shape']) for name, leaf in about['leaves'].items()}
    here = {name: (str(leaf.dtype), list(leaf.shape)) for name, leaf in wanted.items()}
    names = saved.keys() | here.keys() if whole else here.keys()
    wrong = [name for name in names if saved.get(name) != here.get(name)]
    wrong.sort(key=lambda name: ('opt_state' in name, name))  # parameters say more than their optimiser's slots
    if not wrong:
      return
    shown = [f'{name} {saved.get(name, "absent")} there, {here.get(name, "absent")} here' for name in wrong]
    more = f' and {len(wrong) - SHOWN_MISMATCHES} more' if len(wrong) > SHOWN_MISMATCHES else ''
    changes = differences(about['config'], self._config) if self._config is not None and about['config'] else []
    reason = f' The config has changed: {"; ".join(changes)}.' if changes else ''
    raise UserError(
      f'{self.folder}: the checkpoint of step {step} is of another form: '
      f'{"; ".join(shown[:SHOWN_MISMATCHES])}{more}.{reason} Take another workdir, or the old config.'
    )


def _named_leaves(tree: Any) -> dict[str, Any]:
  """Leaves by their path, a/b/c; the same for attributes of a dataclass and keys of a dictionary."""
  flat, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {jax.tree_util.keystr(path, simple=True, separator='/'): leaf for path, leaf in flat}


def _describe(leaf: Any) -> dict[str, Any]:
  host = np.asarray(leaf)
  content = np.ascontiguousarray(host).reshape(-1).view(np.uint8)
  return {'dtype': str(host.dtype), 'shape': list(host.shape), 'sha256': hashlib.sha256(content.data).hexdigest()}


def _is_key(leaf: Any) -> bool:
  return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _key_to_data(leaf: Any) -> Any:
  return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _place(data: np.ndarray, template: Any) -> jax.Array:
  """Puts a host array where `template` says, on all its devices; keys become typed again."""
  sharding = getattr(template, 'sharding', None)
  if _is_key(template):
    keys = jax.random.wrap_key_data(jnp.asarray(data), impl=jax.random.key_impl(jnp.empty((), template.dtype)))
    return keys if sharding is None else put_everywhere(keys, sharding)
  if sharding is None:
    return jax.device_put(data)
  return jax.make_array_from_callback(data.shape, sharding, lambda index: data[index])
