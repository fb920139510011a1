"""Where a training state is: replicated over all devices, with its classifiers split by identity (`model_devices`).

Device arrays divide equally, so between steps a split classifier is padded to a multiple of the devices. Within a step,
on the host and in checkpoints it has one column for each identity: checkpoints do not depend on the devices.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding
import numpy as np

from dgnet_jax.sharding import (
  MODEL_AXIS,
  constrained,
  device_put_global,
  identity_sharding,
  replicated,
  splits_classifiers,
)
from dgnet_jax.training.checkpoint_arrays import gathered_on_host

Tree = TypeVar('Tree')

CLASSIFIER = 'classifier'  # layer whose arrays, with their optimizer moments, have one number per identity in each row


@dataclasses.dataclass(frozen=True)
class Placement:
  """Moves pytrees with the parameters of the re-id network or of a teacher: states, teachers.

  Attributes:
    mesh: from `make_mesh`.
    num_identities: columns of the classifiers.
  """

  mesh: Mesh
  num_identities: int

  @property
  def splits(self) -> bool:
    """True if classifiers are split."""
    return splits_classifiers(self.mesh)

  def put(self, tree: Tree) -> Tree:
    """Puts whole arrays, equal in every process, on the devices."""
    everywhere = replicated(self.mesh)

    def put(leaf: Any) -> Any:
      is_there = isinstance(leaf, jax.Array) and leaf.sharding == everywhere
      return leaf if is_there else device_put_global(leaf, everywhere)

    def put_part(leaf: Any) -> Any:
      whole: Any = np.asarray(leaf)
      return device_put_global(self._padded(whole, np.pad), self._split(whole))

    return self._map(tree, put_part, put)

  def shapes(self, tree: Tree) -> Tree:
    """Returns the ShapeDtypeStructs, with shardings, of what `put` makes of a pytree of arrays or their shapes."""
    return self._map(
      tree,
      lambda leaf: self._struct((*leaf.shape[:-1], self._padded_size), leaf.dtype, self._split(leaf)),
      lambda leaf: self._struct(leaf.shape, leaf.dtype, replicated(self.mesh)),
    )

  def shardings(self, tree: Tree) -> Tree:
    """Returns the shardings of what `put` makes of a pytree of arrays or their shapes."""
    return self._map(tree, self._split, lambda leaf: replicated(self.mesh))

  def step_outputs(self, new_state: Callable[[], Any]) -> Any:
    """Returns the `out_shardings` of a jitted step that returns a state, like that of `new_state()`, and metrics."""
    everywhere = replicated(self.mesh)
    return (self.shardings(jax.eval_shape(new_state)), everywhere) if self.splits else everywhere

  def template(self, tree: Tree) -> Tree:
    """Returns a template for `Checkpoints.restore`: split arrays stay on the host, for `put`.

    Args:
      tree: pytree of whole arrays or their shapes.
    """
    return self._map(
      tree,
      lambda leaf: np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape),
      lambda leaf: self._struct(leaf.shape, leaf.dtype, replicated(self.mesh)),
    )

  def whole(self, tree: Tree) -> Tree:
    """Brings split arrays to the host of every process; others stay where they are. All processes call it."""
    return self._map(
      tree, lambda leaf: gathered_on_host(leaf, wanted=True)[..., : self.num_identities], lambda leaf: leaf
    )

  def within_step(self, tree: Tree) -> Tree:
    """Removes the padding; for jitted functions."""
    return self._map(tree, lambda leaf: self._constrained(leaf[..., : self.num_identities]), lambda leaf: leaf)

  def after_step(self, tree: Tree) -> Tree:
    """Inverts `within_step`."""
    return self._map(tree, lambda leaf: self._constrained(self._padded(leaf, jnp.pad)), lambda leaf: leaf)

  @property
  def identities_per_device(self) -> int:
    """Columns of the classifiers that a device has, with the padding."""
    return -(-self.num_identities // self._num_parts)

  @property
  def _num_parts(self) -> int:
    return int(self.mesh.shape[MODEL_AXIS]) if self.splits else 1

  @property
  def _padded_size(self) -> int:
    return self.identities_per_device * self._num_parts

  def _map(self, tree: Tree, split: Callable[[Any], Any], other: Callable[[Any], Any]) -> Tree:
    """Applies `split` to the arrays of split classifiers, and `other` to the rest."""

    def apply(path: tuple[Any, ...], leaf: Any) -> Any:
      is_split = self.splits and any(getattr(key, 'key', None) == CLASSIFIER for key in path)
      return split(leaf) if is_split else other(leaf)

    mapped: Tree = jax.tree.map_with_path(apply, tree)
    return mapped

  def _split(self, leaf: Any) -> NamedSharding:
    return identity_sharding(self.mesh, num_axes=leaf.ndim)

  def _struct(self, shape: tuple[int, ...], dtype: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)  # type: ignore[no-untyped-call]

  def _padded(self, leaf: Any, pad: Callable[..., Any]) -> Any:
    return pad(leaf, [(0, 0)] * (leaf.ndim - 1) + [(0, self._padded_size - self.num_identities)])

  def _constrained(self, leaf: Any) -> Any:
    return constrained(leaf, self._split(leaf))
