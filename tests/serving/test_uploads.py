"""Bodies of requests: whatever they hold, they are read or refused; and the client of docs/serving.md."""

import asyncio
import io
import json
import os
import re
import shutil
import tracemalloc

from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from starlette.requests import Request  # noqa: E402 (after the checks above)

from dgnet_jax.serving.errors import Refused  # noqa: E402
from dgnet_jax.serving.openapi import ENDPOINTS  # noqa: E402
from dgnet_jax.serving.uploads import read_upload  # noqa: E402
from tests.conftest import REPO  # noqa: E402
from tests.serving.http_client import BOUNDARY, FORM, form, send  # noqa: E402

EXAMPLES = int(os.environ.get('DGNET_FUZZ_EXAMPLES', 60))


def read(body, kind, path='/rank'):
  """The upload of a body, or the code of its refusal."""

  async def receive():
    return {'type': 'http.request', 'body': body, 'more_body': False}

  headers = [(b'content-type', kind.encode('latin-1'))]
  request = Request({'type': 'http', 'method': 'POST', 'path': path, 'headers': headers}, receive)
  try:
    return asyncio.run(read_upload(request, ENDPOINTS[path], asyncio.Semaphore()))
  except Refused as refusal:
    assert len(str(refusal)) < 500
    return refusal.code


WHOLE = form(images=[b'first', b'second'], count=3)
PIECES = (
  *(f'--{BOUNDARY}'.encode(), f'--{BOUNDARY}--'.encode(), b'\r\n', b'\r\n\r\n', b'--', b'\x00', b'\xff'),
  *(b'Content-Disposition: form-data; name="images"', b'; filename="x"', b"; filename*=utf-8''%ff", b'name='),
  *(b'Content-Type: multipart/mixed', b'Content-Transfer-Encoding: base64', b'content', b'images', b'count', b'"'),
)


def test_a_form_is_read():
  upload = read(WHOLE, FORM)
  assert upload.images == {'images': [b'first', b'second']} and upload.options == {'count': 3}


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=4)), max_size=30).map(b''.join))
def test_forms_of_any_pieces_are_read_or_refused(body):
  read(body, FORM)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.integers(0, len(WHOLE)), st.integers(0, 20), st.one_of(st.sampled_from(PIECES), st.binary(max_size=20)))
def test_changed_forms_are_read_or_refused(place, removed, inserted):
  read(WHOLE[:place] + inserted + WHOLE[place + removed :], FORM)


@settings(max_examples=EXAMPLES, deadline=None)
@given(st.text(max_size=60))
def test_any_content_type_is_read_or_refused(kind):
  read(WHOLE, f'multipart/form-data;{kind.encode("latin-1", "replace").decode("latin-1")}')


@settings(max_examples=EXAMPLES, deadline=None)
@given(
  st.dictionaries(
    st.one_of(st.sampled_from(['images', 'count', 'encoding']), st.text(max_size=5)),
    st.recursive(
      st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
      lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
      max_leaves=8,
    ),
    max_size=3,
  )
)
def test_json_of_any_values_is_read_or_refused(content):
  upload = read(json.dumps(content).encode(), 'application/json')
  if not isinstance(upload, str):
    assert upload.images['images'] and type(upload.options['count']) is int


@pytest.mark.parametrize('piece', [b'[],', b'"aa",', b'0.5,', b'{"a":0},'])
def test_json_of_many_small_values_is_refused_in_little_memory(piece):
  body = b'{"images":[' + piece * (2**20 // len(piece)) + b'""]}'
  tracemalloc.start()
  try:
    assert read(body, 'application/json') == 'malformed'
    assert tracemalloc.get_traced_memory()[1] < 4 * len(body)
  finally:
    tracemalloc.stop()


def test_json_with_two_values_of_one_option_is_refused():
  assert read(b'{"images": ["YQ=="], "count": 1, "count": 2}', 'application/json') == 'malformed'


def test_json_of_all_images_and_options_is_read():
  content = {'images': ['YQ=='] * 32, 'count': 3}
  assert read(json.dumps(content).encode(), 'application/json').images['images'] == [b'a'] * 32


def test_damaged_forms_fill_no_log(page, caplog):
  assert send(page, 'POST', '/embed', b'--boundary-of-tests\r\nnonsense\x00', content_type=FORM)[0] == 400
  assert not caplog.records


def test_the_client_of_the_documentation_works(page, images, tmp_path, monkeypatch, capsys):
  (client,) = re.findall(r'```python\n(.*?)```', (REPO / 'docs' / 'serving.md').read_text(), re.DOTALL)
  for name, image in zip(('anna.jpg', 'ben.jpg'), images, strict=False):
    shutil.copy(image, tmp_path / name)
  monkeypatch.chdir(tmp_path)
  exec(client.replace('127.0.0.1:7860', '{}:{}'.format(*page)), {})
  assert images[0].name in capsys.readouterr().out
  assert Image.open(io.BytesIO((tmp_path / 'anna.png').read_bytes())).size == (16, 32)
