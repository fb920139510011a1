"""A batch that is computed in parts, one after the other, so that only one part's intermediate results need memory."""

from collections.abc import Callable
import dataclasses
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from dgnet_jax.training.forward import Draws
from dgnet_jax.types import Array

Tree = TypeVar('Tree')
Other = TypeVar('Other')


def split(batch: Tree, parts: int, group: int) -> Tree:
  """Deals the groups of a batch out to parts.

  Part i gets the groups i, i + parts, i + 2 parts, ... So every device has its share of each part, if the number of
  devices times parts x group divides B (`check_parts`).

  Args:
    batch: arrays [B, ...].
    parts: number of parts.
    group: examples that stay together, in order; parts x group divides B.

  Returns:
    Arrays [parts, B / parts, ...].
  """

  def deal(x: Array) -> Array:
    dealt = x.reshape(-1, parts, group, *x.shape[1:]).swapaxes(0, 1)
    return dealt.reshape(parts, -1, *x.shape[1:])

  dealt: Tree = jax.tree.map(deal, batch)
  return dealt


def join(parts: Tree, group: int) -> Tree:
  """Undoes `split`: arrays [parts, B / parts, ...] -> [B, ...]."""

  def collect(x: Array) -> Array:
    dealt = x.reshape(x.shape[0], -1, group, *x.shape[2:])
    return dealt.swapaxes(0, 1).reshape(-1, *x.shape[2:])

  joined: Tree = jax.tree.map(collect, parts)
  return joined


def mean_over_parts(function: Callable[[Any], tuple[Tree, Other]], parts: Any) -> tuple[Tree, Other]:
  """Applies a function to one part after the other.

  Args:
    function: maps a part to arrays to average, and to other results.
    parts: arrays with a leading axis over the parts.

  Returns:
    The mean of the former over the parts, and the latter stacked along a new leading axis.
  """
  function = jax.jit(function, inline=True)  # so that it is traced once, for the shapes and for the loop
  count = len(jax.tree.leaves(parts)[0])
  shapes, _ = jax.eval_shape(function, jax.tree.map(lambda x: x[0], parts))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

  def add(total: Tree, part: Any) -> tuple[Tree, Other]:
    value, other = function(part)
    return jax.tree.map(jnp.add, total, value), other

  total, others = jax.lax.scan(add, zeros, parts)
  return jax.tree.map(lambda x: x / count, total), others


def draws_of(draws: Draws, part: Array) -> Draws:
  """Returns the draws of a part: its own random keys, and the one coin that all parts share.

  Args:
    draws: of the step.
    part: i32[], number of the part.
  """

  def key_of(key: Array | None) -> Array | None:
    return None if key is None else jax.random.fold_in(key, part)

  return dataclasses.replace(
    draws,
    dropout_key=key_of(draws.dropout_key),
    structure_key=key_of(draws.structure_key),
    cross_structure_key=key_of(draws.cross_structure_key),
  )
