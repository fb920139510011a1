"""What the tools for data sets share of their command lines."""

from collections.abc import Mapping, Sequence

from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.errors import ConfigError


def data_fields(overrides: Mapping[str, str], problems: Sequence[str] = ()) -> dict[str, object]:
  """Fields of config.data from a command line.

  Args:
    overrides: of `loading.split_overrides`.
    problems: likewise.

  Raises:
    ConfigError: a field is none of config.data, or a value is wrong.
  """
  config = default_config()
  found = [*problems, *loading.apply_overrides(config, overrides)]
  found += [f'{name}: only fields of data are read' for name in overrides if not name.startswith('data.')]
  if found:
    raise ConfigError(found)
  names = [name.removeprefix('data.') for name in overrides]
  return {name: config.data[name] for name in names}
