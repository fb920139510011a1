"""Hooks of MkDocs: the README is the home page, and links work both in a checkout and on the site.

Pages link to each other and to files of the repository by relative paths, as a checkout needs them. On the site the
README is `index.md`, and files outside `docs/` do not exist: such a link becomes its text with the path as code.
"""

from __future__ import annotations

import pathlib
import posixpath
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the tests of links need no MkDocs
  from mkdocs.config.defaults import MkDocsConfig
  from mkdocs.structure.files import Files
  from mkdocs.structure.pages import Page

HOME = 'index.md'
README = 'README.md'
# Code, in which no link is looked for (fenced, indented, in a paragraph), or an inline link or image.
CODE_OR_LINK = re.compile(
  r'^```.*?^```|^ {4}[^\n]*|'
  r'(?P<image>!?)\[(?P<text>(?:`[^`\n]*`|[^\[\]`])*)\]\((?P<target>[^()\s]+)\)|'
  r'`(?:[^`\n]|\n(?!\n))+`',
  re.MULTILINE | re.DOTALL,
)
EXTERNAL = re.compile(r'[a-z]+:|#')


def repository_path(target: str, folder: str) -> str:
  """Returns the path of a relative link's target, from the top of the repository.

  Args:
    target: of the link, without an anchor.
    folder: of the file with the link, from the top of the repository; '' for the top.
  """
  return posixpath.normpath(posixpath.join(folder, target))


def site_target(target: str, source: str) -> str | None:
  """Returns the target of a link on the site, or None if the site does not have it.

  Args:
    target: of the link in a checkout, with or without an anchor.
    source: the file with the link, from the top of the repository: 'README.md' or 'docs/training.md'.
  """
  if EXTERNAL.match(target):
    return target
  path, separator, anchor = target.partition('#')
  path = repository_path(path, posixpath.dirname(source))
  if path == README:
    page = HOME
  elif path.startswith('docs/'):
    page = path.removeprefix('docs/')
  else:
    return None
  folder = posixpath.dirname(source).removeprefix('docs').removeprefix('/')
  return posixpath.relpath(page, folder or '.') + separator + anchor


def with_site_links(markdown: str, source: str) -> str:
  """Returns a page with its links as the site needs them; code is left as it is.

  Args:
    markdown: of the file.
    source: its path, from the top of the repository.
  """

  def adapted(match: re.Match[str]) -> str:
    text, old = match['text'], match['target']
    if old is None:
      return match[0]
    new = site_target(old, source)
    if new is not None:
      return f'{match["image"]}[{text}]({new})'
    path = repository_path(old.partition('#')[0], posixpath.dirname(source))
    return f'`{path}`' if path.endswith(text.strip('`').rstrip('/')) else f'{text} (`{path}`)'

  return CODE_OR_LINK.sub(adapted, markdown)


def on_files(files: Files, config: MkDocsConfig) -> Files:
  """Adds the README as the home page."""
  from mkdocs.structure.files import File

  readme = pathlib.Path(config.config_file_path).parent / README
  files.append(File.generated(config, HOME, content=readme.read_text(encoding='utf-8')))
  return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
  """Adapts the links of a page."""
  uri = page.file.src_uri
  return with_site_links(markdown, README if uri == HOME else f'docs/{uri}')


def on_page_content(html: str, page: Page, config: MkDocsConfig, files: Files) -> str:
  """Opens the source of each section of the configuration: the comments behind its fields explain them."""
  if page.file.src_uri != 'reference/configuration.md':
    return html
  return html.replace('<details class="mkdocstrings-source">', '<details class="mkdocstrings-source" open>')
