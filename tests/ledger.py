"""Keeps the largest relative error of every comparison with a golden; the end of a test run lists them."""

PROPERTY = 'golden'  # of a test's report: [what, error, bound]


class Ledger:
  """The comparisons of one test."""

  def __init__(self):
    self._rows = {}

  def check(self, what, error, bound, detail=''):
    """Keeps and judges one error.

    Args:
      what: '<golden>: <quantity>', a row of the list.
      error: relative to the size of what is compared.
      bound: that it must be below; 0 asks for equality.
      detail: which of many things compared, for the message.
    """
    known = self._rows.get(what, (0.0, bound))[0]
    self._rows[what] = (max(known, float(error)), bound)
    assert error < bound or error == 0, f'{what} {detail}: relative error {error:.2e}, at most {bound:.0e}'

  def report(self, record_property):
    for what, (error, bound) in self._rows.items():
      record_property(PROPERTY, [what, error, bound])


def table(reports):
  """Lines of a Markdown table from the reports of tests, one row for each `what`."""
  rows = {}
  for report in reports:
    for what, error, bound in (value for name, value in report.user_properties if name == PROPERTY):
      known = rows.get(what, (0.0, bound))
      rows[what] = (max(known[0], error), max(known[1], bound))
  if not rows:
    return []
  lines = [
    f'| {what} | {error:.1e} | {f"{bound:.0e}" if bound else "equal"} |'
    for what, (error, bound) in sorted(rows.items())
  ]
  return ['| golden: quantity | largest relative error | bound |', '| --- | --- | --- |', *lines]
