"""The page in a headless Chromium. Skipped where Chromium, its driver or selenium is not installed."""

import shutil
import time

import numpy as np
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.serving.images import MAX_BYTES  # noqa: E402 (after the checks above)
from dgnet_jax.serving.service import ModelService  # noqa: E402
from tests.serving.http_client import pixels, served  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
ARGUMENTS = (
  *('--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--window-size=1100,1000'),
  *('--disable-background-networking', '--disable-component-update', '--disable-sync'),
)


RIGHT_ARROW = '\ue014'
ALL_LOADED = 'return [...document.querySelectorAll("#matches img")].every((image) => image.naturalWidth)'
DROP = """
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File([new Uint8Array(arguments[2])], 'dropped', {type: arguments[1]}));
  document.getElementById(arguments[0]).dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));
"""


class Browser:
  """A headless browser that shows a page."""

  def __init__(self, driver, address):
    self.driver = driver
    driver.get(address)
    self.until(lambda: driver.execute_script('return document.body.dataset.ready'))

  def until(self, condition):
    start = time.monotonic()
    while not condition():
      assert time.monotonic() - start < 60, 'timed out'
      time.sleep(0.05)

  def find(self, selector):
    return self.driver.find_element('css selector', selector)

  def choose(self, zone, path):
    self.find(f'#{zone} input').send_keys(str(path))

  def drop(self, zone, mime_type, size):
    self.driver.execute_script(DROP, zone, mime_type, size)

  def wait_for_error(self, text):
    self.until(lambda: text in self.find('#message').text)

  def wait_for_status(self, section):
    self.until(lambda: 'Done' in self.find(f'#{section}-status').text)

  def images(self, selector):
    """The pixels of the visible images, when no request is running."""
    self.until(lambda: not self.driver.find_elements('css selector', '.working'))
    images = self.driver.find_elements('css selector', selector)
    shown = [image.get_attribute('src') for image in images if image.is_displayed()]
    return [pixels(source.removeprefix('data:image/png;base64,')) for source in shown]


@pytest.fixture
def browse(tmp_path):
  """Returns a function that opens a page in headless Chromium."""
  webdriver = pytest.importorskip('selenium.webdriver', reason='selenium is not installed: pip install selenium')
  driver = shutil.which('chromedriver')
  if not (CHROMIUM and driver):
    pytest.skip('Chromium or its driver is not installed: apt-get install chromium chromium-driver')
  options = webdriver.ChromeOptions()
  options.binary_location = CHROMIUM
  for argument in (*ARGUMENTS, f'--user-data-dir={tmp_path / "profile"}'):
    options.add_argument(argument)
  options.set_capability('goog:loggingPrefs', {'browser': 'ALL'})
  started = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
  try:
    yield lambda page: Browser(started, 'http://{}:{}/'.format(*page))
  finally:
    started.quit()


def test_two_images_are_swapped_and_interpolated(browse, page, service, images):
  browser = browse(page)
  a, b = (service.read(image.read_bytes(), image.name) for image in images[:2])
  browser.choose('first', images[0])
  browser.choose('second', images[1])
  browser.wait_for_status('clothes')
  first, second = service.swap([(a, b), (b, a)])
  (clothes,) = service.interpolate([('clothes', a, b)])
  np.testing.assert_array_equal(browser.images('#swapped-first')[0], first)
  np.testing.assert_array_equal(browser.images('#swapped-second')[0], second)
  np.testing.assert_array_equal(browser.images('#frame')[0], clothes[0])
  for step in (1, 2):
    browser.find('#slider').send_keys(RIGHT_ARROW)
    np.testing.assert_array_equal(browser.images('#frame')[0], clothes[step])
  browser.find('input[value=pose]').click()
  browser.until(lambda: 'pose' in browser.find('#frame-caption').text)
  (pose,) = service.interpolate([('pose', a, b)])
  np.testing.assert_array_equal(browser.images('#frame')[0], pose[2])
  assert not browser.find('#message').is_displayed()
  assert browser.driver.get_log('browser') == []
  loaded = browser.driver.execute_script('return performance.getEntriesByType("resource").map((entry) => entry.name)')
  assert loaded and all(name.startswith(('http://{}:{}/'.format(*page), 'data:', 'blob:')) for name in loaded)


def test_query_shows_the_most_similar_gallery_images(browse, page, service, images):
  browser = browse(page)
  assert 'most similar of 10 gallery images' in browser.find('#search-hint').text
  browser.choose('query', images[2])
  browser.wait_for_status('search')
  (matches,) = service.rank(service.embed([service.read(images[2].read_bytes(), 'query')]), 16)
  lines = [item.text.split() for item in browser.driver.find_elements('css selector', '#matches li')]
  assert lines == [[str(i), f'{match["score"]:.3f}', match['path']] for i, match in enumerate(matches, 1)]
  assert lines[0][1:] == ['1.000', images[2].name] and len(matches) == 10
  browser.until(lambda: browser.driver.execute_script(ALL_LOADED))
  shown = browser.driver.find_elements('css selector', '#matches img')
  assert [image.get_attribute('src').rpartition('/')[2] for image in shown] == [
    str(match['index']) for match in matches
  ]


def test_unusable_files_show_errors(browse, page, images, tmp_path):
  browser = browse(page)
  (tmp_path / 'notes.txt').write_text('text')
  (tmp_path / 'damaged.jpg').write_bytes(images[0].read_bytes()[:500])
  browser.choose('query', tmp_path / 'notes.txt')
  browser.wait_for_error('notes.txt: not a JPEG, PNG, BMP or WebP image')
  browser.choose('query', tmp_path / 'damaged.jpg')
  browser.wait_for_error('images[0]: ')
  browser.choose('query', images[0])
  browser.wait_for_status('search')
  assert not browser.find('#message').is_displayed()
  browser.drop('query', 'image/png', MAX_BYTES + 2**20)
  browser.wait_for_error('dropped: 11.0 MiB; at most 10.0 MiB are allowed')
  browser.drop('query', 'image/gif', 9)
  browser.wait_for_error('dropped: not a JPEG, PNG, BMP or WebP image')
  browser.drop('query', 'image/png', 9)
  browser.wait_for_error('images[0]: not a readable JPEG, PNG, BMP or WebP image')
  assert not browser.driver.find_elements('css selector', '#matches img')  # those of the previous query are hidden


def test_missing_gallery_and_stopped_server_are_explained(browse, model, images):
  with served(ModelService(model, None), page=True) as address:
    browser = browse(address)
    assert '--gallery FOLDER' in browser.find('#search-hint').text and not browser.find('#query').is_displayed()
  browser.choose('first', images[0])
  browser.choose('second', images[1])
  browser.wait_for_error('No response from the server')
