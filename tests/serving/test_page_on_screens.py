"""The page of the packaged model on a desktop and on a phone, light and dark: fits, is accessible, shows origins.

With DGNET_SCREENSHOTS=FOLDER it writes what the documentation shows: page.jpg and page_phone.jpg.
"""

import base64
import io
import os
import pathlib

import numpy as np
from PIL import Image
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

import dgnet_jax  # noqa: E402 (after the checks above)
from dgnet_jax.data.image_lists import as_image_list  # noqa: E402
from dgnet_jax.serving.service import ModelService  # noqa: E402
from tests.browser import BORDER_CONTRAST, SCHEMES, WIDTHS, chromium, findings, opened, wait_until  # noqa: E402
from tests.serving.http_client import post, served  # noqa: E402

pytestmark = pytest.mark.long

# How far the parts of the page reach out of what is around them, in CSS pixels.
OVERHANG = """
() => {
  const overhang = [document.documentElement.scrollWidth - innerWidth];
  for (const part of document.querySelectorAll('section, .panel, .pair, #slider, #matches li, img')) {
    const around = part.parentElement.closest('.panel, .pair, section, body');
    if (!part.checkVisibility() || !around) continue;
    overhang.push(part.getBoundingClientRect().right - around.getBoundingClientRect().right);
  }
  return Math.max(...overhang);
}
"""
COLUMNS = 'new Set([...document.querySelectorAll("#matches li")].map((item) => item.offsetLeft)).size'
NAMES = '[...document.images].map((image) => image.alt || image.closest("button")?.ariaLabel || "")'


@pytest.fixture(scope='module')
def browser():
  with chromium() as started:
    yield started


@pytest.fixture(scope='module')
def people():
  return sorted(pathlib.Path(dgnet_jax.example_images()).rglob('*.jpg'))


@pytest.fixture(scope='module')
def address(browser, people):
  model = dgnet_jax.load('synthetic', batch_size=1)
  with served(ModelService(model, as_image_list(people)), page=True) as address:
    yield address


def use(tab):
  """Swaps three people and searches one."""
  for number, index in enumerate((0, 3, 7)):
    tab.locator('#clothes .people button').nth(index).click()
    wait_until(tab, f'document.querySelectorAll("#person .frame, #donors .frame").length === {number + 1}')
  tab.wait_for_selector('#clothes:not(.working) .results:not([hidden])')
  tab.locator('#search .people button').nth(2).click()
  tab.wait_for_selector('#search:not(.working) .results:not([hidden])')
  wait_until(tab, '[...document.images].every((image) => image.complete)')


def keep_screenshot(tab, width, scheme):
  folder = os.environ.get('DGNET_SCREENSHOTS')
  if folder and (width, scheme) == (WIDTHS['desktop'], 'light'):
    tab.screenshot(path=f'{folder}/page.jpg', quality=88, full_page=True)
  if folder and (width, scheme) == (WIDTHS['phone'], 'dark'):
    whole = Image.open(io.BytesIO(tab.screenshot(full_page=True))).convert('RGB')
    height = 1 + whole.height // 4
    columns = Image.new('RGB', (4 * width + 60, height), 'white')
    for i in range(4):
      columns.paste(whole.crop((0, i * height, width, min((i + 1) * height, whole.height))), (i * (width + 20), 0))
    columns.save(f'{folder}/page_phone.jpg', quality=88)


@pytest.mark.parametrize('scheme', SCHEMES)
@pytest.mark.parametrize('width', [*WIDTHS.values(), 320])
def test_page_fits_and_is_accessible(browser, address, width, scheme):
  with opened(browser, 'http://{}:{}/'.format(*address), width=width, scheme=scheme) as tab:
    tab.wait_for_selector('body[data-ready]')
    assert findings(tab) == {}
    use(tab)
    assert findings(tab) == {}
    assert tab.evaluate(OVERHANG) <= 0
    columns = tab.evaluate(COLUMNS)
    assert columns in (2, 3) if width < 500 else columns > 5
    names = tab.evaluate(NAMES)
    assert len(names) > 50 and all(names)
    borders = tab.evaluate(BORDER_CONTRAST)
    assert borders['count'] > 20 and borders['lowest'] >= 3
    red, green, blue = map(int, tab.evaluate('getComputedStyle(document.body).backgroundColor.match(/\\d+/g)'))
    assert (red + green + blue > 600) if scheme == 'light' else (red + green + blue < 100)
    keep_screenshot(tab, width, scheme)
    tab.evaluate('document.querySelector("#query .remove").click()')
    tab.set_input_files('#query input', files=[{'name': 'a.png', 'mimeType': 'text/plain', 'buffer': b'x'}])
    tab.wait_for_selector('#message:not([hidden])')
    assert findings(tab) == {} and tab.evaluate(OVERHANG) <= 0


def test_origins_are_those_of_the_service(browser, address, people):
  with opened(browser, 'http://{}:{}/'.format(*address)) as tab:
    tab.wait_for_selector('body[data-ready]')
    tab.set_input_files('#person input', str(people[0]))
    tab.set_input_files('#donors input', str(people[20]))
    tab.wait_for_selector('#clothes:not(.working) #origins:not([hidden])')
    files = [people[i].read_bytes() for i in (0, 20)]
    status, answer = post(address, '/trace', structures=files[0], appearances=files[1])
    assert status == 200
    (trace,) = answer['traces']
    sources = [image.get_attribute('src') for image in tab.query_selector_all('#origins img')]
    for name in ('fetched', 'places', 'trust', 'mask'):
      assert f'data:image/png;base64,{trace[name]}' in sources
    place = np.frombuffer(base64.b64decode(trace['place']), '<f4').reshape(64, 32, 2)
    pointed = tab.locator('#origins .pointed')
    for keys, (row, column) in ((['ArrowDown'], (22, 16)), (['ArrowLeft', 'ArrowLeft', 'ArrowUp'], (21, 14))):
      for key in keys:
        pointed.press(key)
      from_row, from_column = place[row, column]
      text = tab.locator('#origin').inner_text()
      assert f'Row {row}, column {column}:' in text
      assert f'from row {from_row:.1f}, column {from_column:.1f} of B' in text
    box = pointed.bounding_box()
    pointed.hover(position={'x': box['width'] * 5.5 / 32, 'y': box['height'] * 40.5 / 64})
    assert 'Row 40, column 5:' in tab.locator('#origin').inner_text()
