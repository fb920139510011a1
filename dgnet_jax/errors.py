"""The package's exceptions. A `UserError` is shown to the user as one message, without a traceback."""

from collections.abc import Sequence


class UserError(Exception):
  """A mistake that the user can fix. The message says what is wrong and how to fix it."""


class MachineError(UserError):
  """The machine, the network or another process failed. The same command may succeed later: exit status 1, not 2."""


class MissingSplit(UserError):
  """The data set is valid, but lacks a split that the command needs."""


class NoMatches(UserError):
  """The data set is valid, but no query has a match in the gallery, so that there is nothing to evaluate."""


class Interrupted(Exception):
  """The run was asked to stop and has saved its state. The message says how to resume."""


class ConfigError(UserError):
  """A configuration is invalid.

  Attributes:
    problems: one line for each problem.
  """

  def __init__(self, problems: Sequence[str]) -> None:
    self.problems = tuple(problems)
    count = '1 problem' if len(self.problems) == 1 else f'{len(self.problems)} problems'
    super().__init__('\n  '.join([f'{count} in the configuration:', *self.problems]))
