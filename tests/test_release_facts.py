"""Every release fact that the code cites is in docs/paper_and_release.md."""

import re

from tests.conftest import REPO

PAGE = REPO / 'docs' / 'paper_and_release.md'
# 'fact 7', 'facts 3, 9, 11', 'facts 1 and 6', 'facts 9 to 20'; a citation may go on in the next line of a comment.
NUMBERS = r'\d+(?:,? (?:and|to) \d+|, \d+)*'
CITATION = re.compile(rf'\bfacts? ({NUMBERS})')


def cited(text):
  """The numbers of the facts that a text cites."""
  numbers = set()
  for citation in CITATION.findall(re.sub(r'[\s#]+', ' ', text)):
    for part in re.split(r',? and |, ', citation):
      first, _, last = part.partition(' to ')
      numbers |= set(range(int(first), int(last or first) + 1))
  return numbers


def test_citations():
  assert cited('(release facts 25, 31 to 34)') == {25, *range(31, 35)}
  assert cited('(release facts 1\nand 6)') == {1, 6}
  assert cited('# as in the release\n# fact 40). In float32') == {40}
  assert cited('an artefact 3, or facts') == set()


def test_every_cited_fact_is_listed():
  in_code = {
    number: path.relative_to(REPO)
    for path in sorted((REPO / 'dgnet_jax').rglob('*.py'))
    for number in cited(path.read_text())
  }
  listed = [int(number) for number in re.findall(r'^\| (\d+) \| \S', PAGE.read_text(), re.MULTILINE)]
  assert len(in_code) > 30
  assert {number: path for number, path in in_code.items() if number not in listed} == {}
  assert listed == list(range(1, len(listed) + 1))
