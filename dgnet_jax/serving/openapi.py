"""The interface as an OpenAPI document. `app.py` reads what `ENDPOINTS` says; what it answers is described here."""

from typing import Any

import dgnet_jax
from dgnet_jax.serving.errors import CODES
from dgnet_jax.serving.images import MAX_BYTES, MAX_PIXELS
from dgnet_jax.serving.service import NUM_FRAMES, THUMBNAIL_SIZE
from dgnet_jax.serving.uploads import FORM, JSON, MAX_BODY_BYTES, MAX_IMAGES, Choice, Inputs, Number

Schema = dict[str, Any]

_PAIRS = Inputs(images={'structures': 'give pose, position and background', 'appearances': 'give the clothes'})
ENDPOINTS = {  # what can be posted
  '/embed': Inputs(
    images={'images': 'images of people'},
    options={'encoding': Choice('of an embedding: numbers, or base64 of little-endian float32', ('list', 'base64'))},
  ),
  '/rank': Inputs(
    images={'images': 'people to find'},
    options={'count': Number('matches of each image', 16, 1000)},
  ),
  '/swap': _PAIRS,
  '/interpolate': Inputs(
    images={'images': 'two images, from the first to the second'},
    options={'change': Choice('what changes', ('clothes', 'pose'))},
  ),
  '/trace': _PAIRS,
}
_SUMMARIES = {
  '/embed': ('Embed images', 'Embeddings have length 1; the dot product of two is the score of /rank.'),
  '/rank': ('Search the gallery', 'The gallery images most similar to each image, the most similar first.'),
  '/swap': (
    'Generate people in the clothes of others',
    'The numbers of structures and appearances are equal, or one of them is 1. A single result is a PNG file if Accept '
    'has image/png.',
  ),
  '/interpolate': ('Interpolate between two people', f'{NUM_FRAMES} images that change the first person step by step.'),
  '/trace': (
    'Show where the pixels of a swap come from',
    'Structures and appearances are as for /swap. Only a generator of design correspondence fetches pixels.',
  ),
  '/gallery/{index}': (
    'A gallery image',
    f'The image of a match as a PNG of at most {THUMBNAIL_SIZE} x {THUMBNAIL_SIZE} pixels.',
  ),
  '/health': ('State of the server', 'The model, the size of the gallery and the limits. Needs no token.'),
  '/openapi.json': ('This document', 'OpenAPI 3.1. Needs no token.'),
}
_PNG: Schema = {'type': 'string', 'contentEncoding': 'base64', 'contentMediaType': 'image/png'}
_NATURAL: Schema = {'type': 'integer', 'minimum': 0}
_ERRORS = {  # codes that a kind of request can be refused with
  'any': ('malformed', 'unauthorized', 'other_site', 'method_not_allowed', 'too_many_requests', 'failed', 'busy'),
  'post': ('too_slow', 'too_large', 'unsupported_type', 'invalid'),
}


def document() -> dict[str, Any]:
  """Returns the OpenAPI 3.1 document."""
  mebibytes = f'{MAX_BYTES // 2**20} MiB and {MAX_PIXELS // 10**6} million pixels'
  description = (
    f'Images are JPEG, PNG, BMP or WebP files of at most {mebibytes}, sent as files ({FORM}) or in base64 ({JSON}). '
    f'A request may have {MAX_IMAGES} images and {MAX_BODY_BYTES // 2**20} MiB. Uploads stay in memory until they are '
    'answered. Whatever is refused is answered with the schema Error.'
  )
  return {
    'openapi': '3.1.0',
    'info': {'title': 'DG-Net', 'version': dgnet_jax.__version__, 'summary': 'Person re-identification and generation'}
    | {'description': description, 'license': {'name': 'Apache-2.0', 'identifier': 'Apache-2.0'}},
    'servers': [{'url': '/'}],
    'security': [{}, {'token': []}],
    'paths': {path: _operations(path) for path in _SUMMARIES},
    'components': {
      'schemas': _schemas(),
      'securitySchemes': {'token': {'type': 'http', 'scheme': 'bearer', 'description': 'if started with --token-file'}},
    },
  }


def _operations(path: str) -> dict[str, Any]:
  """Returns the operations of a path."""
  summary, description = _SUMMARIES[path]
  name = path.strip('/').partition('/')[0].partition('.')[0]
  operation: dict[str, Any] = {'summary': summary, 'description': description, 'operationId': name}
  codes = list(_ERRORS['any'])
  content: dict[str, Any] = {'application/json': {'schema': {'$ref': f'#/components/schemas/{name.capitalize()}'}}}
  if path in ENDPOINTS:
    operation['requestBody'] = _request_body(ENDPOINTS[path])
    codes += [*_ERRORS['post'], *(['not_found'] if path != '/embed' else [])]
  if path == '/gallery/{index}':
    operation['parameters'] = [{'name': 'index', 'in': 'path', 'required': True, 'schema': _NATURAL}]
    codes.append('not_found')
    content = {}
  elif path == '/openapi.json':
    content = {'application/json': {'schema': {'type': 'object'}}}
  elif path in ('/swap', '/interpolate'):
    content = {'application/json': {'schema': {'$ref': '#/components/schemas/Images'}}}
  if path in ('/swap', '/gallery/{index}'):
    content['image/png'] = {'schema': {}}
  error = {'application/json': {'schema': {'$ref': '#/components/schemas/Error'}}}
  responses: dict[str, Any] = {'200': {'description': 'The answer', 'content': content}}
  for code in sorted(codes, key=CODES.__getitem__):
    responses[str(CODES[code])] = {'description': code, 'content': error}
  return {'post' if path in ENDPOINTS else 'get': operation | {'responses': responses}}


def _request_body(inputs: Inputs) -> dict[str, Any]:
  """Describes a body as a form with files and as JSON with base64."""

  def schema(image: Schema) -> Schema:
    images = {
      name: {'type': 'array', 'items': image, 'minItems': 1, 'maxItems': MAX_IMAGES, 'description': text}
      for name, text in inputs.images.items()
    }
    options = {name: _option(option) for name, option in inputs.options.items()}
    return {
      'type': 'object',
      'properties': images | options,
      'required': list(images),
      'additionalProperties': False,
    }

  file, base64 = {'type': 'string', 'format': 'binary'}, {'type': 'string', 'contentEncoding': 'base64'}
  return {'required': True, 'content': {FORM: {'schema': schema(file)}, JSON: {'schema': schema(base64)}}}


def _option(option: Choice | Number) -> Schema:
  allowed: Schema = (
    {'type': 'string', 'enum': list(option.values)}
    if isinstance(option, Choice)
    else {'type': 'integer', 'minimum': 1, 'maximum': option.maximum}
  )
  return allowed | {'default': option.default, 'description': option.description}


def _object(**properties: Schema) -> Schema:
  """Returns the schema of an object that has exactly these properties."""
  return {
    'type': 'object',
    'properties': properties,
    'required': list(properties),
    'additionalProperties': False,
  }


def _list(items: Schema) -> Schema:
  return {'type': 'array', 'items': items}


def _schemas() -> dict[str, Schema]:
  """Returns the schemas of answers."""
  text: Schema = {'type': 'string'}
  embedding = {'oneOf': [_list({'type': 'number'}), {'type': 'string', 'contentEncoding': 'base64'}]}
  match = _object(
    score={'type': 'number', 'description': '1 for the same image'},
    path={'type': 'string', 'description': 'within the gallery'},
    index=_NATURAL | {'description': 'of /gallery/{index}'},
    same_person={'type': ['boolean', 'null'], 'description': 'by the calibrated threshold; null without one'},
  )
  model = _object(
    run=text,
    step=_NATURAL,
    identities=_NATURAL,
    image_size=_list(_NATURAL) | {'description': 'height and width of generated images'},
    design={'type': ['string', 'null'], 'description': 'of the generator; null without one'},
  )
  limits = _object(image_bytes=_NATURAL, image_pixels=_NATURAL, images=_NATURAL, request_bytes=_NATURAL)
  trace = _object(
    place={
      'type': 'string',
      'contentEncoding': 'base64',
      'description': 'float32[height, width, 2], little-endian: for every pixel of the result, row and column in the '
      'appearance image that it was fetched from, in pixels of the image_size in /health',
    },
    places=_PNG | {'description': 'place as a colour'},
    fetched=_PNG | {'description': 'what was fetched, in the light of the structure image'},
    trust=_PNG | {'description': 'the share of what was fetched in what was generated; white is all of it'},
    mask=_PNG | {'description': 'what was generated (white), and what was kept of the structure image (black)'},
  )
  statuses = sorted(set(CODES.values()))
  return {
    'Embed': _object(dimensions=_NATURAL, embeddings=_list(embedding)),
    'Rank': _object(rankings=_list(_list(match)) | {'description': 'one list for each image'}),
    'Images': _object(images=_list(_PNG)),
    'Trace': _object(traces=_list(trace) | {'description': 'one for each pair'}),
    'Health': _object(
      status={'const': 'ok'},
      model=model,
      gallery={'type': ['integer', 'null'], 'description': 'number of its images; null without one'},
      limits=limits,
    ),
    'Error': _object(
      error=_object(
        status={'type': 'integer', 'enum': statuses, 'description': 'that of HTTP'},
        code={'type': 'string', 'enum': list(CODES), 'description': 'for programs'},
        message={'type': 'string', 'description': 'for people'},
      )
    ),
  }
