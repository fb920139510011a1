"""HTML of one self-contained page. Text is escaped wherever it comes from; only functions here make markup."""

import base64
from collections.abc import Sequence
import dataclasses
import hashlib
import html
import importlib.resources
import re

from dgnet_jax.utils.text import printable, shortened

MAX_TEXT = 300  # characters of a cell
MAX_ROWS = 200  # of a table
MAX_COLUMNS = 30
VOID = ('img', 'meta', 'wbr')  # elements without content


@dataclasses.dataclass(frozen=True)
class Html:
  """Markup that is safe to put into a page."""

  text: str


Content = Html | str  # text is escaped


def _safe(content: Content) -> str:
  return content.text if isinstance(content, Html) else html.escape(printable(content))


def join(*children: Content) -> Html:
  """Returns contents one after another."""
  return Html('\n'.join(map(_safe, children)))


def element(tag: str, *children: Content, **attributes: str) -> Html:
  """Returns an element; the name of an attribute may end in _ and has _ for -, as in class_ and http_equiv."""
  texts = ''.join(
    f' {name.rstrip("_").replace("_", "-")}="{html.escape(printable(value))}"' for name, value in attributes.items()
  )
  if tag in VOID:
    return Html(f'<{tag}{texts}>')
  return Html(f'<{tag}{texts}>{"".join(map(_safe, children))}</{tag}>')


def paragraph(*children: Content) -> Html:
  """Returns a paragraph."""
  return element('p', *children)


def missing(*children: Content) -> Html:
  """Returns a line that says what is not there."""
  return element('p', *children, class_='missing')


def _breakable(name: str) -> Html:
  """Returns a name that may be broken after its dots and underscores."""
  return Html(re.sub(r'(?<=[._])(?=\w)', element('wbr').text, _safe(name)))


def table(label: str, heading: Sequence[str], rows: Sequence[Sequence[Content]], *, numbers: bool = False) -> Html:
  """Returns a table whose first column names the rows; those above `MAX_ROWS` are counted.

  Args:
    label: for readers who cannot see it.
    heading: of the columns; empty for none.
    rows: cells; long texts are shortened.
    numbers: the other columns hold numbers.
  """
  number = {'class_': 'number'} if numbers else {}

  def cells(row: Sequence[Content]) -> list[Html]:
    texts = [shortened(cell, MAX_TEXT) if isinstance(cell, str) else cell for cell in row[:MAX_COLUMNS]]
    first = [element('th', _breakable(text) if isinstance(text, str) else text, scope='row') for text in texts[:1]]
    return first + [element('td', text, **number) for text in texts[1:]]

  parts = []
  if heading:
    first, *others = (shortened(text, MAX_TEXT) for text in heading[:MAX_COLUMNS])
    columns = [element('th', first, scope='col'), *(element('th', text, scope='col', **number) for text in others)]
    parts.append(element('thead', element('tr', *columns)))
  parts.append(element('tbody', *(element('tr', *cells(row)) for row in rows[:MAX_ROWS])))
  shown = element('div', element('table', *parts), class_='scroll', role='region', tabindex='0', aria_label=label)
  hidden = len(rows) - MAX_ROWS
  return join(shown, missing(f'{hidden:,} more rows are left out')) if hidden > 0 else shown


@dataclasses.dataclass(frozen=True)
class Section:
  """A part of a page: id that links name, title, and content."""

  name: str
  title: str
  content: Html


def page(title: str, subtitle: str, sections: Sequence[Section], footer: str) -> str:
  """Returns a page with a table of contents. It loads nothing, runs nothing, and may show its own images only."""
  css = importlib.resources.files('dgnet_jax.reports').joinpath('static/report.css').read_text(encoding='utf-8')
  css_hash = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
  policy = f"default-src 'none'; img-src data:; style-src 'sha256-{css_hash}'; base-uri 'none'; form-action 'none'"
  head = element(
    'head',
    element('meta', charset='utf-8'),
    element('meta', http_equiv='Content-Security-Policy', content=policy),
    element('meta', name='viewport', content='width=device-width, initial-scale=1'),
    element('meta', name='color-scheme', content='light dark'),
    element('meta', name='referrer', content='no-referrer'),
    element('title', title),
    element('style', Html(css)),
  )
  links = [element('li', element('a', section.title, href=f'#{section.name}')) for section in sections]
  body = element(
    'body',
    element('header', element('h1', title), element('p', subtitle, class_='soft')),
    element('nav', element('ol', *links), aria_label='Contents'),
    element(
      'main',
      *(element('section', element('h2', part.title), part.content, id=part.name) for part in sections),
    ),
    element('footer', footer),
  )
  return f'<!DOCTYPE html>\n{element("html", head, body, lang="en").text}\n'
