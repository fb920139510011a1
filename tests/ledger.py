"""Records the largest relative error of every comparison with a golden, for the table at the end of a test run."""

PROPERTY = 'golden'  # name of a test report's property [quantity, error, bound]


class Ledger:
  """The comparisons of one test."""

  def __init__(self):
    self._rows = {}

  def check(self, quantity, error, bound, detail=''):
    """Records an error and asserts that it is below its bound.

    Args:
      quantity: '<golden>: <quantity>', a row of the table.
      error: relative to the size of the expected values.
      bound: 0 means that the values must be equal.
      detail: which of a quantity's values this is, for the message.
    """
    known = self._rows.get(quantity, (0.0, bound))[0]
    self._rows[quantity] = (max(known, float(error)), bound)
    assert error < bound or error == 0, f'{quantity} {detail}: relative error {error:.2e}, bound {bound:.0e}'

  def report(self, record_property):
    for quantity, (error, bound) in self._rows.items():
      record_property(PROPERTY, [quantity, error, bound])


def table(reports):
  """Lines of a Markdown table from the reports of tests: the largest error of each quantity."""
  rows = {}
  for report in reports:
    for quantity, error, bound in (value for name, value in report.user_properties if name == PROPERTY):
      known = rows.get(quantity, (0.0, bound))
      rows[quantity] = (max(known[0], error), max(known[1], bound))
  if not rows:
    return []
  lines = [
    f'| {quantity} | {error:.1e} | {f"{bound:.0e}" if bound else "equal"} |'
    for quantity, (error, bound) in sorted(rows.items())
  ]
  return ['| golden: quantity | largest relative error | bound |', '| --- | --- | --- |', *lines]
