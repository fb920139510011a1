"""The page of `dgnet page`: its service and its server. `test_browser.py` tests it in a browser."""

import concurrent.futures
import importlib.util
import io
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
from PIL import Image
import pytest

EXTRA = "the extra 'page' is not installed: pip install -e '.[page]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)

from dgnet_jax.cli.main import main  # noqa: E402 (after the checks above)
from dgnet_jax.data.image_lists import as_image_list  # noqa: E402
from dgnet_jax.errors import UserError  # noqa: E402
from dgnet_jax.page.server import UPLOAD_TYPE, is_loopback, listen  # noqa: E402
from dgnet_jax.page.service import MAX_BYTES, NUM_FRAMES, NUM_MATCHES, PageService, decode_upload  # noqa: E402
from tests.page.served_page import pixels, send, served, upload  # noqa: E402

REPO = pathlib.Path(__file__).resolve().parents[2]


def encoded(size=(4, 6), form='PNG', mode='RGB'):
  file = io.BytesIO()
  Image.new(mode, size).save(file, form)
  return file.getvalue()


def test_uploads_are_decoded_in_their_own_size(images):
  with Image.open(images[0]) as file:
    np.testing.assert_array_equal(decode_upload(images[0].read_bytes(), 'name'), np.asarray(file))
  for form, mode in (('PNG', 'RGBA'), ('BMP', 'RGB'), ('WEBP', 'RGB')):
    assert decode_upload(encoded(form=form, mode=mode), 'name').shape == (6, 4, 3)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'name: the upload is empty'),
    (b'a' * (MAX_BYTES + 1), 'name: 10.0 MiB; at most 10 MiB are allowed'),
    (b'not an image', 'name: not a readable JPEG, PNG, BMP or WebP image'),
    (encoded(form='GIF'), 'name: not a readable JPEG, PNG, BMP or WebP image'),
    (encoded((64, 64), 'JPEG')[:300], 'name: '),
    (encoded((5001, 5000), mode='1'), 'name: more than 25 million pixels'),
    (encoded((10_000, 10_000), mode='1'), 'name: more than 25 million pixels'),  # Pillow warns
    (encoded((20_000, 10_000), mode='1'), 'name: more than 25 million pixels'),  # Pillow refuses
    (encoded((5001, 5000), 'BMP', '1'), 'name: more than 25 million pixels'),
  ],
  ids=['empty', 'bytes', 'text', 'gif', 'truncated', 'pixels', 'bomb', 'big bomb', 'bmp'],
)
def test_unusable_uploads_are_refused(content, message):
  with pytest.raises(UserError, match=message):
    decode_upload(content, 'name')


def test_results_equal_those_of_the_library(model, service, images):
  a, b = (service.read(image.read_bytes(), image.name) for image in images[:2])
  swapped = service.swap(a, b)
  expected = model.swap(structure_from=images[:2], appearance_from=images[1::-1])
  np.testing.assert_allclose(pixels(swapped['first']).astype(int), expected[0], atol=1)
  np.testing.assert_allclose(pixels(swapped['second']).astype(int), expected[1], atol=1)
  for change, last in (('clothes', expected[0]), ('pose', expected[1])):
    frames = service.interpolate(change, a, b)['frames']
    assert len(frames) == NUM_FRAMES
    np.testing.assert_allclose(pixels(frames[-1]).astype(int), last, atol=1)
  matches = service.show(service.rank(b))['matches']
  expected = model.rank(images[1], images[0].parent, count=NUM_MATCHES)[0]
  assert [match['name'] for match in matches] == [pathlib.Path(match.path).name for match in expected]
  assert matches[0]['score'] == pytest.approx(1, abs=1e-5)
  with Image.open(images[1]) as file:
    np.testing.assert_array_equal(pixels(matches[0]['image']), np.asarray(file))


def test_match_names_omit_the_folders_above_the_gallery(model, images, tmp_path):
  for name in ('anna/1.jpg', 'ben/1.jpg'):
    (tmp_path / name).parent.mkdir()
    shutil.copy(images[0], tmp_path / name)
  service = PageService(model, as_image_list([tmp_path / 'anna', tmp_path / 'ben']))
  image = service.read(images[0].read_bytes(), 'name')
  assert [match['name'] for match in service.show(service.rank(image))['matches']] == ['anna/1.jpg', 'ben/1.jpg']


def test_page_is_served_with_safe_headers(page, model):
  for path, text in (('/', b'DG-Net'), ('/page.css', b'--ink'), ('/page.js', b"'use strict'")):
    status, headers, body = send(page, 'GET', path)
    assert status == 200 and text in body and headers['cache-control'] == 'no-store'
    assert "default-src 'none'" in headers['content-security-policy'] and 'server' not in headers
    assert b'//' not in body.replace(b'// ', b''), 'the address of another site'
  about = json.loads(send(page, 'GET', '/about')[2])
  assert (
    about['max_bytes'] == MAX_BYTES
    and about['num_gallery'] == 10
    and 'step 7, trained on 4 identities' in about['model']
  )
  for path in ('/../server.py', '/%2e%2e/server.py', '/absent'):
    assert send(page, 'GET', path)[0] == 404


def test_requests_are_checked(page, images):
  a, b = (image.read_bytes() for image in images[:2])
  status, answer = upload(page, f'/swap?first={len(a)}', a, b)
  assert status == 200 and pixels(answer['first']).shape == (32, 16, 3)
  assert upload(page, f'/interpolate?change=pose&first={len(a)}', a, b)[0] == 200
  assert upload(page, '/rank', a)[0] == 200
  for path, uploads, message in (
    (f'/swap?first={len(a)}', (a, b'text'), 'image B: not a readable'),
    (f'/swap?first={len(a)}', (a,), 'image B: the upload is empty'),
    ('/swap?first=0', (a,), 'image A: the upload is empty'),
    ('/swap', (a, b), "first='' is not"),
    ('/swap?first=-1', (a, b), "first='-1' is not"),
    (f'/swap?first={"1" * 9999}', (a, b), 'is not the length'),
    (f'/swap?first={len(a) + len(b) + 1}', (a, b), 'is not the length'),
    (f'/interpolate?change=hair&first={len(a)}', (a, b), "'hair' is neither"),
    ('/rank', (b'text',), 'the image: not a readable'),
    ('/rank', (bytes(MAX_BYTES + 1),), 'at most 10 MiB'),
  ):
    status, answer = upload(page, path, *uploads)
    assert status == 400 and message in answer['error'] and len(answer) == 1
  assert UPLOAD_TYPE in json.loads(send(page, 'POST', '/rank', a, content_type='text/plain')[2])['error']
  assert send(page, 'GET', '/rank')[0] == 404


def test_other_host_names_are_refused(page):
  assert send(page, 'GET', '/about', host='localhost:7860')[0] == 200
  assert send(page, 'GET', '/about', host='elsewhere.org')[0] == 400


def test_without_a_gallery_ranking_is_refused(model, images):
  service = PageService(model, None)
  assert service.about()['num_gallery'] is None
  with pytest.raises(UserError, match='--gallery FOLDER'):
    service.rank(service.read(images[0].read_bytes(), 'name'))


def test_requests_use_the_model_one_at_a_time():
  class Slow:
    running = max_running = 0

    def read(self, content, name):
      return content

    def rank(self, query):
      self.running += 1
      self.max_running = max(self.max_running, self.running)
      time.sleep(0.02)
      self.running -= 1
      return len(query)

    def show(self, matches):
      return {'matches': matches}

  slow = Slow()
  with served(slow) as address, concurrent.futures.ThreadPoolExecutor(6) as pool:
    responses = list(pool.map(lambda i: upload(address, '/rank', bytes(i)), range(6)))
  assert responses == [(200, {'matches': i}) for i in range(6)] and slow.max_running == 1


def test_loopback_hosts_are_recognized():
  assert all(map(is_loopback, ('127.0.0.1', '127.1.2.3', '::1', 'localhost')))
  assert not any(map(is_loopback, ('0.0.0.0', '::', '192.168.0.2', 'example.org', '')))


def test_ports_that_cannot_be_bound_are_refused():
  with listen('127.0.0.1', 0) as first:
    with pytest.raises(UserError, match='--port'):
      listen('127.0.0.1', first.getsockname()[1])
  with pytest.raises(UserError, match='port=70000'):
    listen('127.0.0.1', 70_000)


def test_missing_libraries_are_named(tiny_run, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit):
    main(['page', str(tiny_run[1])])
  assert 'starlette and uvicorn: pip install "starlette>=1.0" "uvicorn>=0.40"' in capsys.readouterr().err


def test_command_serves_until_it_is_interrupted(tiny_run, images):
  command = [sys.executable, '-m', 'dgnet_jax.cli.main', 'page', str(tiny_run[1]), '--host=0.0.0.0', '--port=0']
  with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=REPO) as process:
    try:
      output = []
      while not output or 'http://' not in output[-1]:
        line = process.stderr.readline()
        assert line, output
        output.append(line)
      assert output[0].startswith('warning: --host=0.0.0.0: anyone who can reach')
      port = int(output[-1].partition('0.0.0.0:')[2].partition('/')[0])
      a = images[0].read_bytes()
      assert upload(('127.0.0.1', port), f'/swap?first={len(a)}', a, a)[0] == 200
      process.send_signal(signal.SIGINT)
      assert process.wait(30) == 0 and process.stderr.read() == ''
    finally:
      process.kill()
