"""The page in a headless Chromium: what it shows is what the service answers, and nothing is lost or hidden."""

import contextlib
import csv
import io
import time

import numpy as np
from PIL import Image
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.serving.images import MAX_BYTES  # noqa: E402 (after the checks above)
from dgnet_jax.serving.service import ModelService  # noqa: E402
from tests.browser import SCHEMES, WIDTHS, chromium, findings, opened, wait_until  # noqa: E402
from tests.serving.http_client import pixels, served  # noqa: E402

DROP = """
  ([zone, type, size]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([new Uint8Array(size)], 'dropped', {type}));
    document.querySelector(`${zone} label`).dispatchEvent(new DragEvent('drop', {dataTransfer, bubbles: true}));
  }
"""


@pytest.fixture(scope='module')
def browser():
  with chromium() as started:
    yield started


@contextlib.contextmanager
def show(browser, address, **options):
  """Opens the page of a server, and yields it when it is ready."""
  with opened(browser, 'http://{}:{}/'.format(*address), **options) as tab:
    tab.wait_for_selector('body[data-ready]')
    yield tab


def choose(tab, picker, *paths):
  tab.set_input_files(f'#{picker} input', [str(path) for path in paths])


def wait_for_results(tab, section):
  tab.wait_for_selector(f'#{section}:not(.working) .results:not([hidden])')


def wait_for_requests(tab, held):
  """Waits until a request of the page is held."""
  start = time.monotonic()
  while not held:
    assert time.monotonic() - start < 60, 'timed out'
    tab.wait_for_timeout(20)


def shown(tab, selector):
  """The pixels of the images in the page, which come from the server in base64."""
  sources = [image.get_attribute('src') for image in tab.query_selector_all(selector)]
  return [pixels(source.removeprefix('data:image/png;base64,')) for source in sources]


def downloaded(tab, link):
  """The name and the content of what a link saves."""
  with tab.expect_download() as saving:
    link.click()
  return saving.value.suggested_filename, saving.value.path().read_bytes()


def read(service, image):
  return service.read(image.read_bytes(), image.name)


def test_people_are_swapped_and_interpolated(browser, page, service, images):
  a, b, c = (read(service, image) for image in images)
  with show(browser, page) as tab:
    choose(tab, 'person', images[0])
    choose(tab, 'donors', images[1], images[2])
    wait_for_results(tab, 'clothes')
    captions = [caption.inner_text() for caption in tab.query_selector_all('#swaps figcaption')]
    assert captions == ['A in B’s clothes', 'B in A’s clothes', 'A in C’s clothes', 'C in A’s clothes']
    expected = service.swap([(a, b), (b, a), (a, c), (c, a)])
    np.testing.assert_allclose(np.asarray(shown(tab, '#swaps img'), int), np.asarray(expected, int), atol=1)
    name, content = downloaded(tab, tab.locator('#swaps a').first)
    assert name == f'{images[0].stem}_in_clothes_of_{images[1].stem}.png'
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), shown(tab, '#swaps img')[0])

    (clothes,) = service.interpolate([('clothes', a, b)])
    np.testing.assert_array_equal(shown(tab, '#frame')[0], clothes[0])
    for step in (1, 2):
      tab.locator('#slider').press('ArrowRight')
      np.testing.assert_array_equal(shown(tab, '#frame')[0], clothes[step])
    tab.locator('input[value=pose]').click()
    tab.wait_for_selector('#frame-caption:has-text("pose")')
    np.testing.assert_array_equal(shown(tab, '#frame')[0], service.interpolate([('pose', a, b)])[0][2])
    tab.get_by_role('button', name='Look closer at A and C').click()
    tab.wait_for_selector('h3:has-text("From A to C")')
    wait_for_results(tab, 'clothes')
    np.testing.assert_array_equal(shown(tab, '#frame')[0], service.interpolate([('pose', a, c)])[0][2])
    name, content = downloaded(tab, tab.locator('#frame-download'))
    assert name == f'{images[0].stem}_29_percent_pose_of_{images[2].stem}.png'
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(content))), shown(tab, '#frame')[0])
    assert not tab.locator('#origins').is_visible() and not tab.locator('#message').is_visible()

    tab.get_by_role('button', name=f'Remove B: {images[1].name}').click()
    wait_until(tab, 'document.querySelectorAll("#swaps .pair").length === 1')
    wait_for_results(tab, 'clothes')
    np.testing.assert_allclose(shown(tab, '#swaps img')[0].astype(int), expected[2].astype(int), atol=1)
    tab.get_by_role('button', name=f'Remove A: {images[0].name}').click()
    assert not tab.locator('#swaps').is_visible()
    loaded = tab.evaluate('performance.getEntriesByType("resource").map((entry) => entry.name)')
    assert loaded and all(name.startswith(('http://{}:{}/'.format(*page), 'data:', 'blob:')) for name in loaded)


def test_people_of_the_gallery_can_be_clicked(browser, page, service, images):
  with show(browser, page) as tab:
    people = tab.locator('#clothes .people button')
    assert people.count() == 10
    for index, (picker, number) in zip((2, 5, 7), (('person', 1), ('donors', 1), ('donors', 2)), strict=True):
      people.nth(index).click()
      wait_until(tab, f'document.querySelectorAll("#{picker} .frame").length === {number}')
    wait_for_results(tab, 'clothes')
    a, b, c = (service.thumbnail(index) for index in (2, 5, 7))
    expected = service.swap([(a, b), (b, a), (a, c), (c, a)])
    np.testing.assert_allclose(np.asarray(shown(tab, '#swaps img'), int), np.asarray(expected, int), atol=1)
    tab.locator('#search .people button').nth(3).click()
    wait_for_results(tab, 'search')
    assert tab.locator('#matches img').first.get_attribute('src') == 'gallery/3'
    tab.locator('#search .people button').nth(4).click()
    wait_until(tab, 'document.querySelector("#matches img").src.endsWith("gallery/4")')


def test_query_shows_the_most_similar_gallery_images(browser, page, service, images):
  with show(browser, page) as tab:
    assert 'most similar of 10 gallery images' in tab.locator('#search-hint').inner_text()
    choose(tab, 'query', images[2])
    wait_for_results(tab, 'search')
    (matches,) = service.rank(service.embed([read(service, images[2])]), 16)
    lines = [item.inner_text().split() for item in tab.query_selector_all('#matches li')]
    assert lines == [[str(i), f'{match["score"]:.3f}', match['path']] for i, match in enumerate(matches, 1)]
    assert lines[0][1:] == ['1.000', images[2].name] and len(matches) == 10
    wait_until(tab, '[...document.querySelectorAll("#matches img")].every((image) => image.naturalWidth)')
    addresses = [image.get_attribute('src') for image in tab.query_selector_all('#matches img')]
    assert addresses == [f'gallery/{match["index"]}' for match in matches]
    name, content = downloaded(tab, tab.locator('#table-download'))
    assert name == f'matches_of_{images[2].name}.csv'
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    assert [(row['rank'], row['path']) for row in rows] == [(line[0], line[2]) for line in lines]
    np.testing.assert_allclose([float(row['score']) for row in rows], [match['score'] for match in matches])


def test_what_is_removed_meanwhile_is_not_shown(browser, page, images):
  with show(browser, page, errors=['ERR_FAILED']) as tab:
    held = []
    tab.route('**/rank', lambda route: held.append(route))
    choose(tab, 'query', images[2])
    wait_for_requests(tab, held)
    tab.get_by_role('button', name=f'Remove {images[2].name}').click()
    held[0].continue_()
    tab.wait_for_timeout(300)
    assert not tab.locator('#matches').is_visible() and not tab.locator('#message').is_visible()
    assert not tab.locator('#search .status').first.is_visible()

    choose(tab, 'person', images[0])
    choose(tab, 'donors', images[1], images[2])
    wait_for_results(tab, 'clothes')
    held.clear()
    tab.route('**/swap', lambda route: held.append(route))
    tab.get_by_role('button', name=f'Remove B: {images[1].name}').click()
    wait_for_requests(tab, held)
    assert tab.evaluate('document.querySelector("#clothes .results").inert')  # of people that are to be swapped anew
    tab.unroute('**/swap')
    held[0].continue_()
    wait_until(tab, 'document.querySelectorAll("#swaps .pair").length === 1')
    wait_for_results(tab, 'clothes')
    assert tab.locator('#interpolation h3').inner_text() == 'From A to B'
    assert not tab.evaluate('document.querySelector("#clothes .results").inert')


def test_unusable_files_show_errors_that_can_be_closed(browser, page, images, tmp_path):
  (tmp_path / 'notes.txt').write_text('text')
  (tmp_path / 'damaged.jpg').write_bytes(images[0].read_bytes()[:500])
  with show(browser, page, errors=['status of 422']) as tab:

    def wait_for_error(text):
      tab.wait_for_selector(f'#message:has-text("{text}")')

    choose(tab, 'query', tmp_path / 'notes.txt')
    wait_for_error('notes.txt: not a JPEG, PNG, BMP or WebP image')
    tab.get_by_role('button', name='Close this message').click()
    assert not tab.locator('#message').is_visible()
    choose(tab, 'query', tmp_path / 'damaged.jpg')
    wait_for_error('images[0]: ')
    tab.keyboard.press('Escape')
    assert not tab.locator('#message').is_visible() and not tab.locator('#matches').is_visible()
    tab.get_by_role('button', name='Remove damaged.jpg').click()
    tab.evaluate(DROP, ['#query', 'image/png', MAX_BYTES + 2**20])
    wait_for_error('dropped: 11.0 MiB; at most 10.0 MiB are allowed')
    tab.evaluate(DROP, ['#query', 'image/gif', 9])
    wait_for_error('dropped: not a JPEG, PNG, BMP or WebP image')
    choose(tab, 'query', images[0])
    wait_for_results(tab, 'search')
    assert not tab.locator('#message').is_visible()
    tab.get_by_role('button', name=f'Remove {images[0].name}').click()
    assert not tab.locator('#matches').is_visible()
    choose(tab, 'donors', *images * 3)
    wait_for_error('9 images: there is room for 8 here')


def test_missing_gallery_and_stopped_server_are_explained(browser, model, images):
  with contextlib.ExitStack() as stack:
    with served(ModelService(model, None), page=True) as address:
      tab = stack.enter_context(show(browser, address, errors=['ERR_CONNECTION_REFUSED']))
      assert '--gallery FOLDER' in tab.locator('#search-hint').inner_text()
      assert not tab.locator('#query').is_visible() and not tab.locator('#clothes .people').is_visible()
    choose(tab, 'person', images[0])
    choose(tab, 'donors', images[1])
    tab.wait_for_selector('#message:has-text("No response from the server")')


@pytest.mark.parametrize('scheme', SCHEMES)
def test_description_of_the_interface_is_accessible(browser, page, scheme):
  for width in WIDTHS.values():
    with opened(browser, 'http://{}:{}/docs'.format(*page), width=width, scheme=scheme) as tab:
      assert findings(tab) == {}
      assert tab.evaluate('document.documentElement.scrollWidth') <= width
