"""Joint person re-identification and person image generation (DG-Net) in JAX.

    model = dgnet_jax.load('runs/market')
    model.swap(structure_from='anna.jpg', appearance_from='ben.jpg')

`dgnet_jax.api.Model` says what a model does. Nothing heavy is imported before `load` is asked for.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from dgnet_jax.api import Gallery, Match, Model, load

__version__ = '0.1.0'
__all__ = ['Gallery', 'Match', 'Model', 'load']


def __getattr__(name: str) -> Any:
  if name not in __all__:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from dgnet_jax import api

  return getattr(api, name)
