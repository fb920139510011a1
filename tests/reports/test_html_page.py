"""Markup for reports: everything that comes from elsewhere is text."""

import base64
import hashlib
import re

from hypothesis import given
from hypothesis import strategies as st
import pytest

from dgnet_jax.reports.html_page import MAX_COLUMNS, MAX_ROWS, MAX_TEXT, Html, Section, element, join, page, table
from tests.reports.page_parser import PageParser


def wrapped(*content):
  return page('a title', 'of a run', [Section('one', 'One', join(*content))], 'footer')


@given(st.text(st.characters(), max_size=40))
def test_any_text_is_shown_and_never_markup(text):
  parsed = PageParser(
    wrapped(element('p', text, title=text), table('a table', (text, 'value'), [(text, text), ('other', text)]))
  )
  expected = wrapped(element('p', 'x', title='x'), table('a table', ('x', 'value'), [('x', 'x'), ('other', 'x')]))
  tags = [tag for tag, _ in PageParser(expected).elements]
  assert [tag for tag, _ in parsed.elements if tag != 'wbr'] == tags
  assert not {name for _, attributes in parsed.elements for name in attributes if name.startswith('on')}


@pytest.mark.parametrize(
  'text', ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', '</style><b>', '&lt;b&gt;', "' onload='x"]
)
def test_texts_survive_as_they_are(text):
  parsed = PageParser(wrapped(element('p', text, title=text)))
  assert text in parsed.texts and {'title': text} in parsed.all('p')


def test_undecodable_names_are_escaped():
  assert 'a\\udcff\\nb' in PageParser(wrapped(element('p', 'a\udcff\nb')).encode().decode()).text


def test_tables_are_bounded():
  rows = [(f'row {i}', *['x' * (2 * MAX_TEXT)] * (2 * MAX_COLUMNS)) for i in range(MAX_ROWS + 5)]
  parsed = PageParser(wrapped(table('large', [f'{i}' for i in range(2 * MAX_COLUMNS)], rows)))
  assert len(parsed.all('tr')) == MAX_ROWS + 1 and len(parsed.all('td')) == MAX_ROWS * (MAX_COLUMNS - 1)
  assert '5 more rows are left out' in parsed.text
  assert max(map(len, parsed.texts)) < MAX_TEXT + 40


def test_only_own_styles_and_images_are_allowed():
  text = wrapped(Html('<p>x</p>'))
  (policy,) = [meta['content'] for meta in PageParser(text).all('meta') if 'http-equiv' in meta]
  css = re.search('<style>(.*)</style>', text, re.DOTALL)[1]
  digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
  assert policy.startswith("default-src 'none'; img-src data:; ") and f"style-src 'sha256-{digest}';" in policy
  assert 'unsafe' not in policy and '<' not in css and 'url(' not in css and '@import' not in css
