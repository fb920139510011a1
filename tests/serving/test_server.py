"""`dgnet serve` and `dgnet page` over real connections."""

import base64
import importlib.util
import json
import signal
import subprocess
import sys
import threading
import types

import numpy as np
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.cli.main import main  # noqa: E402 (after the checks above)
from dgnet_jax.errors import UserError  # noqa: E402
from dgnet_jax.serving import server  # noqa: E402
from dgnet_jax.serving.guard import read_token  # noqa: E402
from dgnet_jax.serving.images import MAX_BYTES  # noqa: E402
from dgnet_jax.serving.server import is_loopback, listen  # noqa: E402
from dgnet_jax.serving.uploads import MAX_BODY_BYTES, MAX_IMAGES  # noqa: E402
from tests.conftest import REPO  # noqa: E402
from tests.serving.http_client import FORM, form, pixels, post, post_json, send, served  # noqa: E402


@pytest.fixture(scope='module')
def files(images):
  return [image.read_bytes() for image in images]


def base64_of(files):
  return [base64.b64encode(file).decode() for file in files]


def test_forms_and_json_get_the_same_embeddings_in_either_encoding(page, model, images, files):
  status, listed = post(page, '/embed', images=files)
  assert status == 200 and listed['dimensions'] == len(listed['embeddings'][0])
  np.testing.assert_allclose(listed['embeddings'], model.embed(images), atol=1e-6)
  status, encoded = post_json(page, '/embed', {'images': base64_of(files), 'encoding': 'base64'})
  assert status == 200
  decoded = [np.frombuffer(base64.b64decode(text), '<f4') for text in encoded['embeddings']]
  np.testing.assert_array_equal(decoded, np.float32(listed['embeddings']))


def test_matches_name_gallery_images(page, images, files):
  status, answer = post(page, '/rank', images=files[:2], count=3)
  assert status == 200 and [len(matches) for matches in answer['rankings']] == [3, 3]
  best = answer['rankings'][1][0]
  assert best['path'] == images[1].name and best['score'] == pytest.approx(1, abs=1e-5)
  status, headers, png = send(page, 'GET', f'/gallery/{best["index"]}')
  assert (status, headers['content-type']) == (200, 'image/png') and pixels(png).ndim == 3
  assert post_json(page, '/rank', {'images': base64_of(files[:2]), 'count': 3}) == (200, answer)
  assert len(post(page, '/rank', images=files[0])[1]['rankings'][0]) == 10  # all, as the default is 16


def test_swaps_are_png_files_or_json(page, model, images, files):
  expected = model.swap(structure_from=images[0], appearance_from=images[1:]).astype(int)
  body = form(structures=files[0], appearances=files[1])
  status, headers, png = send(page, 'POST', '/swap', body, content_type=FORM, accept='image/png')
  assert (status, headers['content-type']) == (200, 'image/png')
  np.testing.assert_allclose(pixels(png).astype(int), expected[0], atol=1)
  status, answer = post(page, '/swap', structures=files[0], appearances=files[1:])
  assert status == 200
  swapped = np.asarray([pixels(image) for image in answer['images']], int)
  np.testing.assert_allclose(swapped, expected, atol=1)
  frames = post(page, '/interpolate', images=files[:2])[1]['images']
  np.testing.assert_allclose(pixels(frames[-1]).astype(int), expected[0], atol=1)


def test_requests_are_checked(page, files):
  a, b = base64_of(files[:2])
  many = [b'x'] * (MAX_IMAGES + 1)
  for path, fields, status, message in (
    ('/embed', {}, 422, 'images is missing'),
    ('/embed', {'images': b'text'}, 422, 'images[0]: not a readable'),
    ('/embed', {'images': [files[0], b'']}, 422, 'images[1]: the upload is empty'),
    ('/embed', {'images': many}, 422, 'too many images: a request may have at most 32'),
    ('/embed', {'images': 11 * many}, 422, 'too many images: a request may have at most 32'),
    ('/embed', {'images': bytes(MAX_BYTES + 1)}, 413, 'images[0]: 10.0 MiB'),
    ('/embed', {'images': bytes(MAX_BODY_BYTES)}, 413, 'at most 32 MiB'),
    ('/embed', {'images': files[0], 'encoding': 'hex'}, 422, 'encoding is none of list, base64'),
    ('/embed', {'images': files[0], 'encoding': 'x' * 2000}, 422, 'encoding is none of list, base64'),
    ('/embed', {'images': files[0], 'encoding': ['list', 'base64']}, 422, 'encoding is given twice'),
    ('/embed', {'image': files[0]}, 422, "unknown field 'image'; did you mean images?"),
    ('/embed', {'images': 'text'}, 422, 'images must be a file'),
    ('/embed', {'images': 'x' * 5000}, 422, 'images must be a file'),
    ('/rank', {'images': files[0], 'count': 0}, 422, 'count is no whole number from 1 to 1000'),
    ('/rank', {'images': files[0], 'count': '٣'}, 422, 'count is no whole number'),
    ('/rank', {'images': files[0], 'count': b'3'}, 422, 'count is no whole number'),
    ('/swap', {'structures': files[0]}, 422, 'appearances is missing'),
    ('/swap', {'structures': files[:2], 'appearances': files}, 422, '2 structures and 3 appearances'),
    ('/interpolate', {'images': files}, 422, '3 images: an interpolation needs two'),
    ('/interpolate', {'images': files[:2], 'change': 'hair'}, 422, 'change is none of clothes, pose'),
  ):
    found, answer = post(page, path, **fields)
    assert (found, message in answer['error']['message']) == (status, True), (path, answer)
  for content, status, message in (
    ({'images': a}, 422, 'images must be a list'),
    ({'images': [a, 3]}, 422, 'images[1] is not base64'),
    ({'images': [a, 'é']}, 422, 'images[1] is not base64'),
    ({'images': [a[:-1]]}, 422, 'images[0] is not base64'),
    ({'images': [a], 'encoding': ['list']}, 422, 'encoding is none of'),
    ([a], 422, 'must be a JSON object'),
  ):
    found, answer = post_json(page, '/embed', content)
    assert (found, message in answer['error']['message']) == (status, True), (content, answer)
  assert post_json(page, '/rank', {'images': [b], 'count': '3'})[0] == 200


def test_bodies_that_are_not_what_they_say_are_refused(page, files):
  whole = form(images=files[0])
  for kind, body, status in (
    ('text/plain', b'x', 415),
    (None, b'x', 415),
    ('application/json', b'{', 400),
    ('application/json', b'\xff', 400),
    ('application/json', b'[' * 100_000, 400),
    (FORM, whole[:-5], 400),
    ('multipart/form-data', whole, 400),
    (FORM, b'--boundary-of-tests\r\nnonsense', 400),
    (FORM, b'--boundary-of-tests\r\nContent-Type: x\r\n\r\nx\r\n--boundary-of-tests--\r\n', 400),
    (FORM, form(images=files[0], **{f'x{i}': '' for i in range(200)}), 400),
  ):
    found, headers, answer = send(page, 'POST', '/embed', body, **({'content_type': kind} if kind else {}))
    error = json.loads(answer)['error']
    assert found == error['status'] == status and headers['content-type'] == 'application/json', (kind, body[:50])


def test_other_methods_paths_hosts_and_sites_are_refused(page, files):
  for method, path, headers, status in (
    ('GET', '/embed', {}, 405),
    ('POST', '/health', {}, 405),
    ('GET', '/absent', {}, 404),
    ('GET', '/about', {}, 404),
    ('GET', '/../server.py', {}, 404),
    ('GET', '/%2e%2e/server.py', {}, 404),
    ('GET', '/gallery/10', {}, 404),
    ('GET', '/gallery/-1', {}, 404),
    ('GET', '/gallery/../../x', {}, 404),
    ('GET', f'/gallery/{"9" * 5000}', {}, 404),
    ('POST', '/embed/', {}, 404),
    ('GET', '/health', {'host': '[[localhost]]'}, 400),
    ('GET', '/health', {'host': 'localhost@elsewhere.org'}, 400),
    ('GET', '/gallery/0', {'sec_fetch_site': 'cross-site', 'sec_fetch_mode': 'no-cors'}, 403),
    ('GET', '/health', {'host': 'elsewhere.org'}, 400),
    ('GET', '/health', {'host': 'elsewhere.org:7860'}, 400),
    ('POST', '/embed', {'origin': 'http://elsewhere.org'}, 403),
    ('POST', '/embed', {'origin': 'null'}, 403),
  ):
    found, _, answer = send(page, method, path, form(images=files[0]), content_type=FORM, **headers)
    assert found == json.loads(answer)['error']['status'] == status, (method, path, headers)
  assert send(page, 'GET', '/embed')[1]['allow'] == 'POST'
  link = {'sec_fetch_site': 'cross-site', 'sec_fetch_mode': 'navigate', 'sec_fetch_dest': 'document'}
  assert send(page, 'GET', '/docs', **link)[0] == 200
  for host in ('localhost:7860', 'LocalHost', '127.0.0.1', '[::1]:80'):
    assert send(page, 'GET', '/health', host=host, origin=f'http://{host}')[0] == 200


def test_page_is_served_with_safe_headers(page, service):
  for path, text in (('/', b'DG-Net'), ('/page.css', b'--ink'), ('/page.js', b'startClothes'), ('/docs', b'curl')):
    status, headers, body = send(page, 'GET', path)
    assert status == 200 and text in body and headers['cache-control'] == 'no-store'
    assert "default-src 'none'" in headers['content-security-policy'] and 'server' not in headers
    assert headers['cross-origin-resource-policy'] == 'same-origin'
    body = body.replace(b'// ', b'').replace('http://{}:{}'.format(*page).encode(), b'')
    assert b'//' not in body, 'the address of another site'
  with served(service) as address:
    assert [send(address, 'GET', path)[0] for path in ('/', '/page.js', '/docs', '/docs.css')] == [404, 404, 200, 200]


def test_tokens(service, tmp_path):
  token = 'a' * 20
  with served(service, token=token) as address:
    for sent, status in (
      (f'Bearer {token}', 200),
      (f'bearer {token}', 200),
      (f'Bearer {token}a', 401),
      (token, 401),
      ('Bearer é', 401),
      ('', 401),
    ):
      found, headers, _ = send(address, 'GET', '/gallery/0', authorization=sent.encode('latin-1'))
      assert found == status and (headers['www-authenticate'] == 'Bearer') == (status == 401)
    # What a browser can show without a token.
    assert [send(address, 'GET', path)[0] for path in ('/health', '/docs.css', '/openapi.json')] == [200] * 3
    status, _, body = send(address, 'GET', '/docs', host='localhost:80', x_forwarded_proto='https')
    assert status == 200 and b'curl -H &quot;Authorization: Bearer $TOKEN&quot; -F images' in body
    assert b'https://localhost:80/embed' in body
  path = tmp_path / 'token.txt'
  path.write_text(f'{token}\n')
  assert read_token(path) == token
  for text in ('short', '', f'{token} {token}', 'é' * 20):
    path.write_text(text)
    with pytest.raises(UserError, match='one token of 16'):
      read_token(path)
  path.write_bytes(b'a' * 5000)
  for unreadable in (path, tmp_path, tmp_path / 'absent'):
    with pytest.raises(UserError, match='cannot be read'):
      read_token(unreadable)


def test_failures_are_answered_without_a_traceback(service, files, monkeypatch, caplog):
  monkeypatch.setattr(type(service), 'embeddings', lambda *arguments: 1 / 0)
  with served(service) as address:
    status, headers, body = send(address, 'POST', '/embed', form(images=files[0]), content_type=FORM)
  answer = json.loads(body)
  assert headers['x-content-type-options'] == 'nosniff' and headers['cache-control'] == 'no-store'
  assert (status, answer['error']['code']) == (500, 'failed') and 'division' not in str(answer)
  assert 'ZeroDivisionError' in caplog.text


def test_clients_at_the_same_time_get_the_answers_of_one_alone(page, files):
  alone = [post(page, '/embed', images=file)[1]['embeddings'][0] for file in files]
  answers = {}

  def client(i):
    answers[i] = post(page, '/embed', images=[files[i % 3]] * (1 + i % 2))

  threads = [threading.Thread(target=client, args=(i,)) for i in range(12)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  for i, (status, answer) in answers.items():
    assert status == 200 and len(answer['embeddings']) == 1 + i % 2
    for embedding in answer['embeddings']:
      np.testing.assert_allclose(embedding, alone[i % 3], atol=1e-6)
  assert len(answers) == 12


def test_a_proxy_is_answered_by_its_names_alone(service, files):
  body = form(images=files[0])

  def status(address, **headers):
    return send(address, 'POST', '/embed', body, content_type=FORM, **headers)[0]

  with served(service, hosts=('localhost', 'Reid.example'), sites=('Reid.example',)) as address:
    assert status(address, host='reid.example', origin='https://reid.example') == 200
    assert status(address, host='localhost:7860', origin='https://reid.example') == 200  # nginx without Host
    assert status(address, host='localhost:7860', origin='https://localhost:1') == 403
    assert status(address, host='localhost:7860', origin='https://reid.example.org') == 403
    assert status(address, host='elsewhere.org') == 400


def test_loopback_is_that_of_the_socket():
  for host in ('127.0.0.1', '127.1', '127.1.2.3', 'LOCALHOST'):
    with listen(host, 0) as listening:
      assert is_loopback(listening), host
  with listen('0.0.0.0', 0) as listening:
    assert not is_loopback(listening)


def test_hosts_are_checked_as_the_socket_and_the_options_say(service, monkeypatch):
  """`serve`, with a server that only remembers its application."""
  guarded = {}
  monkeypatch.setattr(server, 'make_app', lambda service, hosts, **options: guarded.update(hosts=hosts, **options))
  monkeypatch.setattr(server, 'make_server', lambda app: types.SimpleNamespace(run=lambda sockets: None))
  monkeypatch.setattr(type(service), 'warm_up', lambda self: None)
  monkeypatch.setattr(signal, 'signal', lambda *arguments: None)

  def hosts(host, *allowed):
    with listen(host, 0) as listening:
      server.serve(service, listening, host, allowed_hosts=allowed)
    return set(guarded['hosts'])

  assert hosts('0.0.0.0') == set()
  assert hosts('127.1') == {'localhost', '127.0.0.1', '::1', '127.1'}
  assert hosts('0.0.0.0', 'reid.example') >= {'localhost', 'reid.example'} and guarded['sites'] == ('reid.example',)


def test_a_model_of_the_package_is_not_a_folder_of_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'synthetic').mkdir()
  served_models = []
  monkeypatch.setattr(server, 'serve', lambda service, *arguments, **options: served_models.append(service))
  main(['page', '--model=synthetic', '--port=0'])
  assert served_models[0].health()['model']['run'] == 'synthetic.safetensors' and served_models[0].health()['gallery']


@pytest.mark.parametrize('name', ['https://reid.example', 'reid.example:443', ''])
def test_allowed_hosts_are_names_alone(name, tmp_path, capsys):
  with pytest.raises(SystemExit):
    main(['serve', str(tmp_path), f'--allowed-host={name}'])
  assert 'must be a name or address alone' in capsys.readouterr().err


def test_ports_that_cannot_be_bound_are_refused():
  with listen('127.0.0.1', 0) as first:
    with pytest.raises(UserError, match='--port'):
      listen('127.0.0.1', first.getsockname()[1])
  with pytest.raises(UserError, match='port=70000'):
    listen('127.0.0.1', 70_000)


@pytest.mark.parametrize('command', ['serve', 'page'])
def test_missing_libraries_are_named(command, tiny_run, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(SystemExit):
    main([command, str(tiny_run[1])])
  assert 'starlette and uvicorn and python_multipart: pip install' in capsys.readouterr().err


@pytest.mark.parametrize(('command', 'stop'), [('page', signal.SIGINT), ('serve', signal.SIGTERM)])
def test_command_answers_what_it_has_begun_when_it_is_stopped(command, stop, tiny_run, files):
  """The request is begun when the server has read its header."""
  arguments = [sys.executable, '-m', 'dgnet_jax.cli.main', command, str(tiny_run[1]), '--host=0.0.0.0', '--port=0']
  with subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True, cwd=REPO) as process:
    try:
      output = []
      while not output or 'http://' not in output[-1]:
        line = process.stderr.readline()
        assert line, output
        output.append(line)
      assert output[0].startswith('warning: --host=0.0.0.0: anyone who can reach')
      address = '127.0.0.1', int(output[-1].partition('0.0.0.0:')[2].partition('/')[0])
      assert post(address, '/swap', structures=files[0], appearances=files[1])[0] == 200
      body = form(structures=[files[0]] * 31, appearances=files[1])

      def parts():
        yield body[:100]
        process.send_signal(stop)
        yield body[100:]

      headers = {'content_type': FORM, 'content_length': str(len(body))}
      status, _, answer = send(address, 'POST', '/swap', parts(), **headers)
      assert status == 200 and len(json.loads(answer)['images']) == 31
      assert process.wait(30) == 0 and process.stderr.read() == ''
    finally:
      process.kill()
