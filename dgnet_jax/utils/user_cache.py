"""The folder for what commands can make or fetch again."""

import os
import pathlib


def user_cache() -> pathlib.Path:
  """Returns `$XDG_CACHE_HOME/dgnet_jax`, by default `~/.cache/dgnet_jax`.

  Raises:
    RuntimeError: there is no home folder.
  """
  home = os.environ.get('XDG_CACHE_HOME')  # relative paths are to be ignored
  base = pathlib.Path(home) if home and os.path.isabs(home) else pathlib.Path.home() / '.cache'
  return base / 'dgnet_jax'
