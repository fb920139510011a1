"""The rules for combinations of fields, which `rules` and `data_rules` register."""

from collections.abc import Callable

from dgnet_jax.config.schema import Config

Rule = Callable[[Config], str]
# Rules for combinations of fields: the fields or sections that a rule reads, and the rule, which returns what is wrong
# or ''. A problem is reported for the first field.
COMBINATIONS: list[tuple[tuple[str, ...], Rule]] = []


def rule(*fields: str) -> Callable[[Rule], Rule]:
  """Registers a rule that reads `fields`."""

  def register(check: Rule) -> Rule:
    COMBINATIONS.append((fields, check))
    return check

  return register
