"""The default configuration as a ConfigDict, the form that config files and command-line overrides change."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from dgnet_jax.config.schema import Config

if TYPE_CHECKING:
  from ml_collections import ConfigDict


def default_config() -> 'ConfigDict':
  """Returns the release's Market-1501 configuration. `dgnet_jax/config/schema.py` documents every field."""
  return unfrozen(Config())


def unfrozen(config: Config | Mapping[str, Any]) -> 'ConfigDict':
  """Returns a ConfigDict with the values of `config`, to change and validate again."""
  # Imported here, so that what needs no config file, like tools/gpu_report.py, runs without ml_collections.
  from ml_collections import ConfigDict

  # Without ml_collections' own type checks, which stop at the first mistake; `validate` finds them all.
  return ConfigDict(config.to_dict() if isinstance(config, Config) else dict(config), type_safe=False)
