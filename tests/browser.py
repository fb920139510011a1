"""A headless Chromium for tests of pages. They skip where Playwright or Chromium is not installed."""

import contextlib
import shutil
import time

import pytest

WIDTHS = {'desktop': 1120, 'phone': 390}  # in CSS pixels
SCHEMES = ('light', 'dark')
ARGUMENTS = ('--no-sandbox', '--disable-gpu', '--disable-quic', '--disable-background-networking', '--disable-sync')


@contextlib.contextmanager
def chromium():
  """Starts the system's Chromium; skips the test where there is none."""
  playwright = pytest.importorskip('playwright.sync_api', reason="the extra 'browser' is not installed")
  program = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
  if program is None:
    pytest.skip('Chromium is not installed: apt-get install chromium')
  with playwright.sync_playwright() as started:
    browser = started.chromium.launch(executable_path=program, args=list(ARGUMENTS))
    yield browser
    browser.close()


@contextlib.contextmanager
def opened(browser, address, *, width=WIDTHS['desktop'], scheme='light', errors=()):
  """Opens a page in a fresh profile.

  Args:
    browser: from `chromium`.
    address: of the page.
    width: of the window, in CSS pixels; below 500 it is a phone, with a touch screen.
    scheme: the preferred colour scheme.
    errors: parts of messages in the browser's console that the test expects; others fail it.
  """
  messages = []
  is_phone = width < 500
  context = browser.new_context(
    viewport={'width': width, 'height': 900}, color_scheme=scheme, is_mobile=is_phone, has_touch=is_phone
  )
  context.set_default_timeout(60_000)
  page = context.new_page()
  page.on('console', lambda message: messages.append(message.text))
  page.on('pageerror', lambda error: messages.append(str(error)))
  page.goto(address)
  yield page
  context.close()
  assert [message for message in messages if not any(part in message for part in errors)] == []


def wait_until(page, condition):
  """Waits for a JavaScript condition. Playwright's own way needs `eval`, which our pages do not allow."""
  start = time.monotonic()
  while not page.evaluate(condition):
    assert time.monotonic() - start < 60, f'timed out: {condition}'
    page.wait_for_timeout(50)


def findings(page):
  """What axe-core has to say about the accessibility of a page as it is now: rules, each with its elements."""
  from axe_playwright_python.sync_playwright import Axe  # late: it needs the extra `browser`

  violations = Axe().run(page).response['violations']
  return {found['id']: [node['html'] for node in found['nodes']] for found in violations}


# The lowest contrast of a border or an outline of what can be clicked, with what it is drawn on (WCAG 2.2, 1.4.11).
BORDER_CONTRAST = """
() => {
  const parse = (color) => color.match(/[\\d.]+/g).map(Number);
  const linear = (value) => value <= 10.31475 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4;
  const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const contrast = (a, b) => {
    const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
    return (high + 0.05) / (low + 0.05);
  };
  const ground = (element) => {
    for (; element; element = element.parentElement) {
      const color = parse(getComputedStyle(element).backgroundColor);
      if (color.length === 3 || color[3] === 1) return color;
    }
  };
  const results = [];
  for (const element of document.querySelectorAll('button, label.add')) {
    const style = getComputedStyle(element);
    if (!element.checkVisibility() || style.borderTopWidth === '0px') continue;
    const pressed = element.ariaPressed === 'true';  // filled with a colour, which its surface must contrast with
    const surface = pressed ? ground(element) : parse(style.borderTopColor);
    results.push(contrast(surface, ground(element.parentElement)));
  }
  return {lowest: Math.min(...results), count: results.length};
}
"""
