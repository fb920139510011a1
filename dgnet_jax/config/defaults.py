"""The default configuration as a ConfigDict, the form that config files and command-line overrides change."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from dgnet_jax.config import validation
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import ConfigError


def default_config() -> ConfigDict:
  """The release's Market-1501 configuration. `dgnet_jax/config/schema.py` documents every field."""
  # ml_collections' own type checks stop at the first mistake; `validate` finds them all.
  return ConfigDict(Config().to_dict(), type_safe=False)


def validate(config: ConfigDict) -> Config:
  """Checks types, ranges and combinations; reads no file.

  Args:
    config: with the fields of `default_config()`.

  Returns:
    The same values, frozen and typed.

  Raises:
    ConfigError: lists every unknown or missing field, wrong type, value out of range and invalid combination. A
      combination is skipped if one of its fields is invalid by itself.
  """
  problems = validation.problems(config, default_config())
  if problems:
    raise ConfigError(problems)
  return Config.from_mapping(config)


def unfrozen(config: Config | Mapping[str, object]) -> ConfigDict:
  """A ConfigDict to change and validate again."""
  return ConfigDict(config.to_dict() if isinstance(config, Config) else dict(config), type_safe=False)
