"""Documentation: links and anchors exist, every page is in the navigation of the site, and its links are right."""

import re
import urllib.parse

import pytest
import yaml

from docs.hooks import CODE_OR_LINK, EXTERNAL, site_target, with_site_links
from tests.conftest import REPO

DOCS = REPO / 'docs'
PAGES = sorted(DOCS.rglob('*.md'))
FILES = [*sorted(REPO.glob('*.md')), *PAGES]


def anchors(path):
  """The anchors of a page's headings."""
  text = re.sub(r'^```.*?^```', '', path.read_text(), flags=re.MULTILINE | re.DOTALL)
  found = set()
  for heading in re.findall(r'^#+ +(.+)$', text, re.MULTILINE):
    slug = re.sub(r'[^\w\- ]', '', re.sub(r'\]\([^)]*\)', ']', heading).lower()).strip().replace(' ', '-')
    found.add(next(name for number in range(99) if (name := f'{slug}-{number}' if number else slug) not in found))
  return found


def broken_links(path):
  """The relative links of a page to files or headings that do not exist."""
  broken = []
  for match in CODE_OR_LINK.finditer(path.read_text()):
    link = match['target']
    if link is None or (EXTERNAL.match(link) and not link.startswith('#')):
      continue
    name, _, anchor = urllib.parse.unquote(link).partition('#')
    target = path.parent / name if name else path
    if not target.exists() or (anchor and anchor not in anchors(target)):
      broken.append(link)
  return broken


def navigation(entry):
  """The pages of an entry of the site's navigation."""
  if isinstance(entry, str):
    return [entry]
  return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in navigation(part)]


@pytest.mark.parametrize('path', FILES, ids=lambda path: str(path.relative_to(REPO)))
def test_links_exist(path):
  assert broken_links(path) == []


def test_broken_links_are_found(tmp_path):
  page = tmp_path / 'page.md'
  page.write_text('# A title, `code`\n[a](#a-title-code) [b](#other) [c](gone.md)\n![d](gone.png) `[e](gone.md)`\n')
  assert broken_links(page) == ['#other', 'gone.md', 'gone.png']


def test_every_page_is_in_the_navigation():
  pages = navigation(yaml.safe_load((REPO / 'mkdocs.yml').read_text())['nav'])
  assert sorted(pages) == sorted(
    ['index.md', *(path.relative_to(DOCS).as_posix() for path in (*PAGES, *DOCS.glob('notebooks/*.ipynb')))]
  )


def test_site_loads_nothing_from_other_servers():
  assert yaml.safe_load((REPO / 'mkdocs.yml').read_text())['theme']['font'] is False


@pytest.mark.parametrize(
  ('target', 'source', 'expected'),
  [
    ('docs/training.md#evaluation', 'README.md', 'training.md#evaluation'),
    ('docs/swaps.png', 'README.md', 'swaps.png'),
    ('dgnet_jax/config/schema.py', 'README.md', None),
    ('#commands', 'README.md', '#commands'),
    ('https://arxiv.org/abs/1904.07223', 'README.md', 'https://arxiv.org/abs/1904.07223'),
    ('../README.md#commands', 'docs/training.md', 'index.md#commands'),
    ('../../README.md', 'docs/reference/api.md', '../index.md'),
    ('../library.md', 'docs/reference/api.md', '../library.md'),
    ('../tools/launch', 'docs/launching.md', None),
  ],
)
def test_target_on_the_site(target, source, expected):
  assert site_target(target, source) == expected


def test_links_out_of_the_site_become_text():
  page = (
    '[step](../dgnet_jax/training/step.py), [`tools/launch`](../tools/launch), [b](figures.md), `[c](../setup.cfg)`\n'
    '\n    [d](../setup.cfg)\n![e](../docs/swaps.png)\n`two\nlines` [f](../README.md) `g`\n'
  )
  assert with_site_links(page, 'docs/training.md') == (
    'step (`dgnet_jax/training/step.py`), `tools/launch`, [b](figures.md), `[c](../setup.cfg)`\n'
    '\n    [d](../setup.cfg)\n![e](swaps.png)\n`two\nlines` [f](index.md) `g`\n'
  )
