"""A report in a headless Chromium: nothing is refused by its own policy, and it fits every screen."""

import shutil

import pytest

from dgnet_jax.reports.run_report import write_report
from tests.reports.run_folders import rankings, write_run
from tests.reports.test_run_report import EVIL, write_figures, write_picture


@pytest.fixture
def driver(tmp_path):
  webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed: pip install selenium')
  chromium = pytest.importorskip('tests.page.test_browser', reason='the page is not tested here')
  program = shutil.which('chromedriver')
  if not (chromium.CHROMIUM and program):
    pytest.skip('Chromium or its driver is not installed: apt-get install chromium chromium-driver')
  options = webdriver.ChromeOptions()
  options.binary_location = chromium.CHROMIUM
  for argument in (*chromium.ARGUMENTS, f'--user-data-dir={tmp_path / "profile"}'):
    options.add_argument(argument)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  started = webdriver.Chrome(options=options, service=webdriver.ChromeService(program))
  try:
    yield started
  finally:
    started.quit()


def test_reports_fit_screens_and_color_schemes(driver, tmp_path):
  settings = {'data.root': EVIL, 'teacher.checkpoint': 'x' * 280}
  run = write_run(tmp_path / 'run', settings=settings, starts=[{}], results={'evaluation': rankings(both=0.5)})
  write_picture(run / 'evaluation' / 'ranked.png', (2_000, 1_500))
  write_figures(run / 'figures')
  write_report(run, run / 'report.html')
  grounds = set()
  for width in (1_200, 390):
    for scheme in ('light', 'dark'):
      media = {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]}
      driver.execute_cdp_cmd('Emulation.setEmulatedMedia', media)
      size = {'width': width, 'height': 900, 'deviceScaleFactor': 1, 'mobile': width < 500}
      driver.execute_cdp_cmd('Emulation.setDeviceMetricsOverride', size)
      driver.get(f'file://{run}/report.html')
      broken, page_width, ground = driver.execute_script(
        'return [[...document.images].filter(image => !image.naturalWidth).length,'
        ' document.documentElement.scrollWidth, getComputedStyle(document.body).backgroundColor]'
      )
      assert broken == 0 and page_width <= width
      grounds.add((scheme, ground))
  assert len(grounds) == 2 and driver.get_log('browser') == []
