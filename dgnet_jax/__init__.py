"""Joint person re-identification and person image generation (DG-Net) in JAX.

    model = dgnet_jax.load('runs/market')  # or 'synthetic', the small model that comes with the package
    model.swap(structure_from='anna.jpg', appearance_from='ben.jpg')

`Model` (in `dgnet_jax.api`) documents what a model can do. JAX is imported when one of its names is first used;
importing the package, and its exceptions, is cheap.
"""

from typing import TYPE_CHECKING, Any

from dgnet_jax.errors import ConfigError, Interrupted, MissingSplit, NoMatches, UserError

if TYPE_CHECKING:
  from dgnet_jax.api import BuildOptions, Gallery, Match, Model, example_images, load, open_gallery

__version__ = '0.1.0'
_FROM_API = ('BuildOptions', 'Gallery', 'Match', 'Model', 'example_images', 'load', 'open_gallery')
__all__ = [
  'BuildOptions',
  'ConfigError',
  'Gallery',
  'Interrupted',
  'Match',
  'MissingSplit',
  'Model',
  'NoMatches',
  'UserError',
  'example_images',
  'load',
  'open_gallery',
]


def __getattr__(name: str) -> Any:
  if name not in _FROM_API:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  from dgnet_jax import api

  return getattr(api, name)


def __dir__() -> list[str]:
  return sorted({*globals(), *_FROM_API})
