"""Runs side by side: what differs in settings, code, machine and data, and results with their differences."""

from collections.abc import Iterator, Mapping, Sequence
import csv
import dataclasses
import os
import pathlib
from typing import Any

from dgnet_jax.errors import UserError
from dgnet_jax.reports.run_description import Result, describe_run
from dgnet_jax.storage.local_copies import fetched
from dgnet_jax.storage.run_files import descriptions
from dgnet_jax.utils.atomic_files import atomic_file, write_json
from dgnet_jax.utils.text import printable

FORMATS = ('.json', '.csv')
WIDTH = 120  # columns of the terminal
NAME_WIDTH = 40  # at most
MIN_COLUMN = 16  # of a run; for more runs than fit there are several tables
SETTINGS, SETUP = 'settings that differ', 'code, machine and data that differ'


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a comparison.

  Attributes:
    name: what is compared.
    values: of each run; None if it is unknown.
    shown_as: format of numbers whose difference is of interest, like '.2f'; '' for anything else.
  """

  name: str
  values: tuple[Any, ...]
  shown_as: str = ''

  def differences(self) -> list[float | None]:
    """Returns the difference of each value to the first one; None where there is none."""
    first = self.values[0]
    if not self.shown_as or first is None:
      return [None] * len(self.values)
    return [None if value is None else value - first for value in self.values]

  def texts(self) -> list[str]:
    """Returns what a table shows: values, with their difference to the first one in parentheses."""
    if not self.shown_as:
      return [_text(value) or "''" for value in self.values]
    first, *others = zip(self.values, self.differences(), strict=True)
    numbers = ['-' if value is None else f'{value:{self.shown_as}}' for value, _ in (first, *others)]
    changes = ['' if change is None else f' ({change:+{self.shown_as}})' for _, change in others]
    return [text + change for text, change in zip(numbers, ['', *changes], strict=True)]


@dataclasses.dataclass(frozen=True)
class Comparison:
  """What `compare_runs` found.

  Attributes:
    runs: the work folders, as they were named.
    sections: rows by title; those of what differs are always there, and may be empty.
  """

  runs: tuple[str, ...]
  sections: Mapping[str, tuple[Row, ...]]


def compare_runs(workdirs: Sequence[str | pathlib.Path]) -> Comparison:
  """Compares runs by the files in their work folders.

  Args:
    workdirs: at least two work folders, also on object storage, of runs of this or earlier versions; the first is the
      one to compare with.

  Raises:
    UserError: there are fewer than two, one is not the work folder of a run, or one of its files is damaged.
  """
  if len(workdirs) < 2:
    raise UserError('name at least two runs to compare')
  runs = [describe_run(fetched(workdir, descriptions)) for workdir in workdirs]
  settings = _rows([run.settings for run in runs])
  setup = _rows([run.setup for run in runs])
  sections = {
    'starts': _rows([run.history for run in runs]),
    # A field that a run lacks is of another version; what is unknown about a setup does not differ.
    SETTINGS: tuple(row for row in settings if _differ(row.values)),
    SETUP: tuple(row for row in setup if _differ([value for value in row.values if value is not None])),
  }
  for topic in dict.fromkeys(topic for run in runs for topic in run.results):
    results = [run.results.get(topic, {}) for run in runs]
    # The settings of evaluations are shown only if they differ.
    rows = tuple(row for row in _rows(results) if not row.name.startswith('evaluation.') or _differ(row.values))
    if rows:
      sections[topic] = rows
  return Comparison(tuple(map(str, workdirs)), sections)


def _rows(descriptions: Sequence[Mapping[str, Any]]) -> tuple[Row, ...]:
  """Returns a row for each name that one of the runs has, in order."""
  rows = []
  for name in dict.fromkeys(name for description in descriptions for name in description):
    values = [description.get(name) for description in descriptions]
    shown_as = next((value.shown_as for value in values if isinstance(value, Result)), '')
    values = [value.value if isinstance(value, Result) else value for value in values]
    rows.append(Row(name, tuple(values), shown_as))
  return tuple(rows)


def _differ(values: Sequence[Any]) -> bool:
  return any(value != values[0] for value in values)


def _text(value: Any) -> str:
  """Returns a value as it is written on the command line; '-' for None."""
  if value is None:
    return '-'
  if isinstance(value, tuple | list):
    return ','.join(map(str, value))
  return printable(str(value))


def write_comparison(comparison: Comparison, path: pathlib.Path) -> None:
  """Writes complete values and differences as .json or .csv."""
  if path.suffix.lower() == '.json':
    sections = {
      title: {row.name: {'values': row.values} | _named_differences(row) for row in rows}
      for title, rows in comparison.sections.items()
    }
    write_json(path, {'runs': comparison.runs, **sections})
    return
  others = [f'{run} - {comparison.runs[0]}' for run in comparison.runs[1:]]
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', errors='surrogateescape', newline='') as f:
    writer = csv.writer(f)
    writer.writerow(['section', 'name', *comparison.runs, *others])
    for title, rows in comparison.sections.items():
      for row in rows:
        values = ['' if value is None else _text(value) for value in row.values]
        writer.writerow([title, row.name, *values, *row.differences()[1:]])


def _named_differences(row: Row) -> dict[str, Any]:
  return {'differences': row.differences()} if row.shown_as else {}


def comparison_text(comparison: Comparison) -> str:
  """Formats a comparison as tables of at most `WIDTH` columns. For many runs each has the first and some others."""
  names = [row.name for rows in comparison.sections.values() for row in rows]
  name_width = min(max(map(len, names), default=0) + 2, NAME_WIDTH)
  others_per_table = (WIDTH - name_width) // (MIN_COLUMN + 2) - 1
  others = range(1, len(comparison.runs))
  tables = [others[i : i + others_per_table] for i in range(0, len(others), others_per_table)]
  return '\n\n'.join('\n'.join(_table_lines(comparison, (0, *table), name_width)) for table in tables)


def _table_lines(comparison: Comparison, chosen: Sequence[int], name_width: int) -> Iterator[str]:
  """Yields the lines of a table of the chosen runs."""
  lines: list[tuple[str, list[str]]] = [('', [printable(run) for run in comparison.runs])]
  for title, rows in comparison.sections.items():
    lines.append((printable(title) if rows else f'{title}: none', []))
    lines += [(f'  {printable(row.name)}', row.texts()) for row in rows]
  largest = (WIDTH - name_width) // len(chosen) - 2
  cells = [[texts[i] for i in chosen] if texts else [] for _, texts in lines]
  width = min(max(len(text) for texts in cells for text in texts), largest)
  for (name, _), texts in zip(lines, cells, strict=True):
    columns = ''.join(f'  {text:<{width}}' for text in _fitted(texts, width))
    yield f'{_cut(name, name_width):<{name_width}}{columns}'.rstrip() if texts else name


def _fitted(texts: Sequence[str], width: int) -> list[str]:
  """Shortens the texts of a row; what they share at the beginning is cut first, so that differences stay visible."""
  known = [text for text in texts if text != '-']
  surplus = max(map(len, known), default=0) - width
  if surplus > 0 and len(known) > 1:
    start = min(len(os.path.commonprefix(known)), surplus + len('...'))
    if start > len('...'):
      texts = [text if text == '-' else f'...{text[start:]}' for text in texts]
  return [_cut(text, width) for text in texts]


def _cut(text: str, width: int) -> str:
  return text if len(text) <= width else f'{text[: width - 3]}...'
