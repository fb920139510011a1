"""The page in a headless Chromium. Skipped where Chromium, its driver or selenium is not installed."""

import pathlib
import shutil
import time

import numpy as np
import pytest

EXTRA = "the page's extra is not installed: pip install -e '.[page]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)

import dgnet_jax  # noqa: E402 (after the checks above)
from dgnet_jax.data.image_lists import collect  # noqa: E402
from dgnet_jax.page.answers import MAX_BYTES, Answers  # noqa: E402
from tests.page.served_page import pixels, served  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
QUIET = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--window-size=1100,1000'),
  *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
)


class Browser:
  """A headless browser that shows a page. The words of an element, and waiting for them."""

  def __init__(self, driver, address):
    self.driver = driver
    driver.get(address)
    self.until(lambda: driver.execute_script('return document.body.dataset.ready'))

  def until(self, condition):
    start = time.monotonic()
    while not (found := condition()):
      assert time.monotonic() - start < 60, 'the page does not get there'
      time.sleep(0.05)
    return found

  def find(self, selector):
    return self.driver.find_element('css selector', selector)

  def choose(self, place, path):
    self.find(f'#{place} input').send_keys(str(path))

  def says(self, words):
    self.until(lambda: words in self.find('#message').text)

  def images(self, selector):
    """What the visible images hold, once nothing is under way."""
    self.until(lambda: not self.driver.find_elements('css selector', '.working'))
    found = self.driver.find_elements('css selector', selector)
    return [pixels(image.get_attribute('src')) for image in found if image.is_displayed()]


@pytest.fixture
def browse(tmp_path):
  """Opens an address in headless Chromium."""
  webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed: pip install selenium')
  driver = shutil.which('chromedriver')
  if not (CHROMIUM and driver):
    pytest.skip('Chromium or its driver is not installed: apt-get install chromium chromium-driver')
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for argument in (*QUIET, f'--user-data-dir={tmp_path / "profile"}'):
    options.add_argument(argument)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
  try:
    yield lambda page: Browser(started, 'http://{}:{}/'.format(*page))
  finally:
    started.quit()


@pytest.fixture(scope='module')
def images(tiny_run):
  return [pathlib.Path(path) for path in tiny_run[2].query.paths[::2][:3]]


@pytest.fixture(scope='module')
def model(tiny_run):
  return dgnet_jax.load(tiny_run[1])


@pytest.fixture(scope='module')
def answers(model, images):
  return Answers(model, collect([images[0].parent]))


@pytest.fixture(scope='module')
def page(answers):
  with served(answers) as address:
    yield address


def drop(browser, place, kind, size):
  browser.driver.execute_script(
    """const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([new Uint8Array(arguments[2])], 'dropped', {type: arguments[1]}));
    document.getElementById(arguments[0]).dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));""",
    *(place, kind, size),
  )


def test_swaps_and_the_way_between_in_a_browser(browse, page, answers, images):
  browser = browse(page)
  a, b = (image.read_bytes() for image in images[:2])
  browser.choose('first', images[0])
  browser.choose('second', images[1])
  browser.until(lambda: 'Done' in browser.find('#clothes-status').text)
  expected, way = answers.swap(a, b), answers.interpolate('clothes', a, b)['frames']
  np.testing.assert_array_equal(browser.images('#swapped-first')[0], pixels(expected['first']))
  np.testing.assert_array_equal(browser.images('#swapped-second')[0], pixels(expected['second']))
  np.testing.assert_array_equal(browser.images('#between')[0], pixels(way[0]))
  for step in (1, 2):  # by the keyboard
    browser.find('#slider').send_keys('\ue014')  # arrow to the right
    np.testing.assert_array_equal(browser.images('#between')[0], pixels(way[step]))
  browser.find('input[value=pose]').click()
  browser.until(lambda: 'pose' in browser.find('#between-caption').text)
  pose = answers.interpolate('pose', a, b)['frames']
  np.testing.assert_array_equal(browser.images('#between')[0], pixels(pose[2]))
  assert not browser.find('#message').is_displayed()
  assert browser.driver.get_log('browser') == []
  loaded = browser.driver.execute_script('return performance.getEntriesByType("resource").map((entry) => entry.name)')
  assert loaded and all(name.startswith(('http://{}:{}/'.format(*page), 'data:', 'blob:')) for name in loaded)


def test_a_ranked_gallery_in_a_browser(browse, page, answers, images):
  browser = browse(page)
  assert '10 images' in browser.find('#search-hint').text
  browser.choose('query', images[2])
  browser.until(lambda: 'Done' in browser.find('#search-status').text)
  matches = answers.rank(images[2].read_bytes())['matches']
  lines = [item.text.split() for item in browser.driver.find_elements('css selector', '#matches li')]
  assert lines == [[str(i), f'{match["score"]:.3f}', match['name']] for i, match in enumerate(matches, 1)]
  assert lines[0][1:] == ['1.000', images[2].name] and len(browser.images('#matches img')) == len(matches) == 10


def test_what_is_wrong_is_told_in_a_browser(browse, page, images, tmp_path):
  browser = browse(page)
  (tmp_path / 'notes.txt').write_text('text')
  (tmp_path / 'damaged.jpg').write_bytes(images[0].read_bytes()[:500])
  browser.choose('query', tmp_path / 'notes.txt')
  browser.says('notes.txt: not a JPEG or PNG image')
  browser.choose('query', tmp_path / 'damaged.jpg')
  browser.says('the image: ')
  browser.choose('query', images[0])
  browser.until(lambda: 'Done' in browser.find('#search-status').text and not browser.find('#message').is_displayed())
  drop(browser, 'query', 'image/png', MAX_BYTES + 2**20)
  browser.says('dropped: 11.0 MiB; 10.0 MiB are allowed')
  drop(browser, 'query', 'image/gif', 9)
  browser.says('dropped: not a JPEG or PNG image')
  drop(browser, 'query', 'image/png', 9)
  browser.says('the image: not a readable JPEG or PNG image')
  assert not browser.images('#matches img')  # those of the image before are gone


def test_without_a_gallery_or_a_server_in_a_browser(browse, model, images):
  with served(Answers(model, None)) as address:
    browser = browse(address)
    assert '--gallery FOLDER' in browser.find('#search-hint').text and not browser.find('#query').is_displayed()
  browser.choose('first', images[0])
  browser.choose('second', images[1])
  browser.says('The server does not answer')
