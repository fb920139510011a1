"""The OpenAPI document is valid, and real requests and answers are as it says."""

import base64
from html.parser import HTMLParser
import json

import jsonschema
import openapi_spec_validator
import pytest

EXTRA = "the extra 'serve' is not installed: pip install -e '.[serve]'"
pytest.importorskip('starlette', reason=EXTRA)
pytest.importorskip('uvicorn', reason=EXTRA)
pytest.importorskip('python_multipart', reason=EXTRA)

from dgnet_jax.serving.errors import CODES  # noqa: E402 (after the checks above)
from dgnet_jax.serving.service import ModelService  # noqa: E402
from tests.serving.http_client import FORM, form, pixels, send, served  # noqa: E402


@pytest.fixture(scope='module')
def document(page):
  return json.loads(send(page, 'GET', '/openapi.json')[2])


def validator(document, schema):
  """A validator of a schema that may refer to others of the document."""
  return jsonschema.Draft202012Validator(schema | {'components': document['components']})


def check_answer(document, path, method, answer):
  """Checks status, type and content of an answer against the document."""
  status, headers, body = answer
  response = document['paths'][path][method]['responses'][str(status)]
  content = response['content'][headers['content-type']]
  if headers['content-type'] == 'application/json':
    validator(document, content['schema']).validate(json.loads(body))
  else:
    assert body.startswith(b'\x89PNG')
  return status


def test_document_is_valid(document):
  openapi_spec_validator.validate(document)
  assert document['openapi'].startswith('3.1')


def test_answers_are_as_described(page, document, images):
  a, b = (image.read_bytes() for image in images[:2])

  def get(path, described=''):
    return check_answer(document, described or path, 'get', send(page, 'GET', path))

  def post(path, accept='*/*', **fields):
    return check_answer(
      document, path, 'post', send(page, 'POST', path, form(**fields), content_type=FORM, accept=accept)
    )

  assert [get(path) for path in ('/health', '/openapi.json')] == [200, 200]
  assert [get(f'/gallery/{index}', '/gallery/{index}') for index in (0, 10)] == [200, 404]
  assert post('/embed', images=[a, b]) == post('/embed', images=a, encoding='base64') == 200
  assert post('/rank', images=a, count=2) == post('/interpolate', images=[a, b], change='pose') == 200
  assert post('/swap', structures=a, appearances=b) == 200
  assert post('/swap', accept='image/png', structures=a, appearances=b) == 200
  assert post('/trace', structures=a, appearances=b) == 404  # design adain fetches nothing
  for path in ('/embed', '/rank', '/swap', '/interpolate'):
    assert post(path, images=b'text') == post(path) == 422
    for kind, body, status in (
      ('text/plain', b'', 415),
      ('application/json', b'{', 400),
      (FORM, bytes(2**25 + 1), 413),
    ):
      assert check_answer(document, path, 'post', send(page, 'POST', path, body, content_type=kind)) == status
    assert check_answer(document, path, 'post', send(page, 'GET', path)) == 405
    answer = send(page, 'POST', path, form(images=a), content_type=FORM, origin='http://elsewhere.org')
    assert check_answer(document, path, 'post', answer) == 403


def test_what_is_missing_is_described(document, model, images):
  a = images[0].read_bytes()
  with served(ModelService(model, None), token='x' * 16) as address:
    answer = send(address, 'POST', '/rank', form(images=a), content_type=FORM)
    assert check_answer(document, '/rank', 'post', answer) == 401
    answer = send(address, 'POST', '/rank', form(images=a), content_type=FORM, authorization=f'Bearer {"x" * 16}')
    assert check_answer(document, '/rank', 'post', answer) == 404
    assert check_answer(document, '/health', 'get', send(address, 'GET', '/health')) == 200


def test_origins_are_described(document, fetching_model, images):
  a, b, c = (image.read_bytes() for image in images)
  with served(ModelService(fetching_model, None)) as address:
    answer = send(address, 'POST', '/trace', form(structures=a, appearances=[b, c]), content_type=FORM)
    assert check_answer(document, '/trace', 'post', answer) == 200
    height, width = json.loads(send(address, 'GET', '/health')[2])['model']['image_size']
  traces = json.loads(answer[2])['traces']
  assert len(traces) == 2
  for trace in traces:
    assert len(base64.b64decode(trace['place'])) == 4 * height * width * 2
    assert {pixels(trace[name]).shape for name in ('places', 'fetched', 'trust', 'mask')} == {(height, width, 3)}


def test_requests_that_the_document_allows_are_answered_and_others_refused(page, document, images):
  text = base64.b64encode(images[0].read_bytes()).decode()
  for path, content, is_allowed in (
    ('/embed', {'images': [text]}, True),
    ('/embed', {'images': [text], 'encoding': 'base64'}, True),
    ('/embed', {'images': [text], 'encoding': 'hex'}, False),
    ('/embed', {'images': []}, False),
    ('/embed', {'images': text}, False),
    ('/embed', {'images': [text], 'other': 1}, False),
    ('/embed', {'images': [text] * 33}, False),
    ('/rank', {'images': [text], 'count': 1}, True),
    ('/rank', {'images': [text], 'count': 1001}, False),
    ('/rank', {'images': [text], 'count': 1.5}, False),
    ('/rank', {'images': [text], 'count': True}, False),
    ('/swap', {'structures': [text], 'appearances': [text]}, True),
    ('/swap', {'structures': [text]}, False),
    ('/interpolate', {'images': [text, text], 'change': 'clothes'}, True),
    ('/interpolate', {'images': [text, text], 'change': None}, False),
  ):
    schema = document['paths'][path]['post']['requestBody']['content']['application/json']['schema']
    assert validator(document, schema).is_valid(content) == is_allowed, (path, content)
    status = check_answer(
      document, path, 'post', send(page, 'POST', path, json.dumps(content), content_type='application/json')
    )
    assert (status == 200) == is_allowed, (path, content)


def test_every_code_is_described(document):
  described = {
    response['description']: int(status)
    for operations in document['paths'].values()
    for operation in operations.values()
    for status, response in operation['responses'].items()
    if status != '200'
  }
  assert described == CODES


def test_page_for_people_names_everything(page, document):
  class Text(HTMLParser):
    words = ''
    opened = []

    def handle_starttag(self, tag, attributes):
      if tag not in ('meta', 'link'):
        self.opened.append(tag)

    def handle_endtag(self, tag):
      assert self.opened.pop() == tag

    def handle_data(self, data):
      self.words += data

  text = Text()
  text.feed(send(page, 'GET', '/docs')[2].decode())
  assert not text.opened
  for path, operations in document['paths'].items():
    assert path in text.words
    for operation in operations.values():
      assert operation['description'] in text.words
      content = operation.get('requestBody', {}).get('content', {'application/json': {'schema': {'properties': {}}}})
      assert all(name in text.words for name in content['application/json']['schema']['properties'])
