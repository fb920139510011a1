"""A report in a headless Chromium: nothing is refused by its own policy, and it fits every screen."""

import pytest

from dgnet_jax.reports.run_report import write_report
from tests.browser import SCHEMES, WIDTHS, chromium, findings, opened
from tests.reports.run_folders import rankings, write_run
from tests.reports.test_run_report import EVIL, write_figures, write_picture


@pytest.fixture
def browser():
  with chromium() as started:
    yield started


def test_reports_fit_screens_and_color_schemes(browser, tmp_path):
  settings = {'data.root': EVIL, 'teacher.checkpoint': 'x' * 280}
  run = write_run(tmp_path / 'run', settings=settings, starts=[{}], results={'evaluation': rankings(both=0.5)})
  write_picture(run / 'evaluation' / 'ranked.png', (2_000, 1_500))
  write_figures(run / 'figures')
  write_report(run, run / 'report.html')
  grounds = set()
  for width in WIDTHS.values():
    for scheme in SCHEMES:
      with opened(browser, f'file://{run}/report.html', width=width, scheme=scheme) as tab:
        assert tab.evaluate('[...document.images].filter((image) => !image.naturalWidth).length') == 0
        assert tab.evaluate('document.documentElement.scrollWidth') <= width
        grounds.add((scheme, tab.evaluate('getComputedStyle(document.body).backgroundColor')))
        assert findings(tab) == {}
  assert len(grounds) == len(SCHEMES)
