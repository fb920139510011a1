"""Reads the pages of reports with the parser of the standard library, strictly."""

from html.parser import HTMLParser

VOID = {'img', 'meta', 'wbr'}
TAGS = VOID | {
  *('html', 'head', 'title', 'style', 'body', 'header', 'nav', 'main', 'section', 'footer', 'h1', 'h2', 'h3', 'h4'),
  *('p', 'ol', 'li', 'a', 'dl', 'dt', 'dd', 'div', 'table', 'thead', 'tbody', 'tr', 'th', 'td', 'details', 'summary'),
  *('figure', 'figcaption', 'code', 'strong'),
}


class PageParser(HTMLParser):
  """What is on a page: start tags with their attributes, and texts. Raises AssertionError if a tag is not closed."""

  def __init__(self, page):
    super().__init__(convert_charrefs=True)
    self.elements, self.texts, self._open = [], [], []
    self.feed(page)
    self.close()
    assert not self._open, self._open

  def handle_starttag(self, tag, attributes):
    assert tag in TAGS, tag
    assert len({name for name, _ in attributes}) == len(attributes)
    self.elements.append((tag, dict(attributes)))
    if tag not in VOID:
      self._open.append(tag)

  def handle_endtag(self, tag):
    assert self._open.pop() == tag

  def handle_data(self, data):
    if self._open and self._open[-1] != 'style' and data.strip():
      self.texts.append(data)

  @property
  def text(self):
    return ' '.join(self.texts)

  def all(self, tag):
    return [attributes for name, attributes in self.elements if name == tag]
