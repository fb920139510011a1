"""Reads the images and options of a request: a form with files, or JSON with base64. Uploads stay in memory."""

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator, Mapping
import dataclasses
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from dgnet_jax.config.validation import suggestion
from dgnet_jax.serving.errors import Refused
from dgnet_jax.utils.bounded_files import parse_json

MAX_BODY_BYTES = 32 * 2**20  # of a request, with all its images
MAX_IMAGES = 32  # in a request
MAX_OPTIONS = 100  # fields of a form that are no files
MAX_TOKENS = 2000  # of JSON, as in `parse_json`; that of 32 images has about 80
UPLOAD_SECONDS = 60  # from a request's header to the end of its body
FORM, JSON = 'multipart/form-data', 'application/json'


@dataclasses.dataclass(frozen=True)
class Choice:
  """An option with some allowed values, of which the first is the default."""

  description: str
  values: tuple[str, ...]

  @property
  def default(self) -> str:
    return self.values[0]

  def check(self, name: str, value: object) -> str:
    """Returns the value; raises Refused if it is not allowed."""
    if not (isinstance(value, str) and value in self.values):
      raise Refused('invalid', f'{name} is none of {", ".join(self.values)}')
    return value


@dataclasses.dataclass(frozen=True)
class Number:
  """An option that is a whole number of at least 1."""

  description: str
  default: int
  maximum: int

  def check(self, name: str, value: object) -> int:
    """Returns the number, also of digits in a form; raises Refused if it is not allowed."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10:
      value = int(value)
    if type(value) is not int or not 1 <= value <= self.maximum:
      raise Refused('invalid', f'{name} is no whole number from 1 to {self.maximum}')
    return value


@dataclasses.dataclass(frozen=True)
class Inputs:
  """What an endpoint takes.

  Attributes:
    images: descriptions of the fields with images, by name; each takes one or more.
    options: the other fields, by name.
  """

  images: Mapping[str, str]
  options: Mapping[str, Choice | Number] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Upload:
  """What a request has sent.

  Attributes:
    images: the files of each field, at least one.
    options: a value for each option.
  """

  images: dict[str, list[bytes]]
  options: dict[str, Any]


async def read_upload(request: Request, inputs: Inputs, parsing: asyncio.Semaphore) -> Upload:
  """Reads a request.

  Args:
    request: its body has not been read.
    inputs: what it may contain.
    parsing: held while its body is parsed, which takes several times its memory.

  Raises:
    Refused: the body is too large, too slow, or not what `inputs` allows.
  """
  kind = request.headers.get('content-type', '').partition(';')[0].strip().lower()
  if kind not in (FORM, JSON):
    raise Refused('unsupported_type', f'Content-Type must be {FORM} (files) or {JSON} (base64)')
  body = await _body(request)
  async with parsing:
    if kind == FORM:
      images, options = await _form(request, body, inputs)
    else:
      images, options = await run_in_threadpool(_json, body, inputs)
  for name in inputs.images:
    if not images[name]:
      raise Refused('invalid', f'{name} is missing: send one or more images')
  if sum(map(len, images.values())) > MAX_IMAGES:
    raise _too_many()
  checked = {
    name: option.check(name, options[name]) if name in options else option.default
    for name, option in inputs.options.items()
  }
  return Upload(images, checked)


async def _body(request: Request) -> bytes:
  """Reads the body, and stops as soon as it is too large."""
  too_large = Refused('too_large', f'the request is too large: it may have at most {MAX_BODY_BYTES // 2**20} MiB')
  length = request.headers.get('content-length', '0')
  if int(length) > MAX_BODY_BYTES:  # h11 lets through whole numbers only, of at most 20 digits
    raise too_large
  content = bytearray()
  try:
    async with asyncio.timeout(UPLOAD_SECONDS):
      async for part in request.stream():
        content += part
        if len(content) > MAX_BODY_BYTES:
          raise too_large
  except TimeoutError:
    raise Refused('too_slow', f'the upload takes too long: it must arrive within {UPLOAD_SECONDS} seconds') from None
  return bytes(content)


class _FormInMemory(MultiPartParser):
  """Starlette's parser, which would write files of more than 1 MiB to the disk, and take half a form for a whole."""

  spool_max_size = MAX_BODY_BYTES + 1
  is_complete = False

  def on_end(self) -> None:
    self.is_complete = True

  def close(self) -> None:
    for file in self._files_to_close_on_error:
      file.close()


async def _form(request: Request, body: bytes, inputs: Inputs) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
  async def stream() -> AsyncGenerator[bytes, None]:
    yield body

  parser = _FormInMemory(
    request.headers, stream(), max_files=MAX_IMAGES, max_fields=MAX_OPTIONS, max_part_size=MAX_BODY_BYTES
  )
  try:
    form = await parser.parse()
    if not parser.is_complete:
      raise ValueError('it ends too early')
    return _form_fields(form, inputs)
  except MultiPartException as error:
    if parser._current_files > MAX_IMAGES:
      raise _too_many() from error
    raise Refused('malformed', f'the body is no valid {FORM}: {error.message}') from error
  except (KeyError, ValueError) as error:  # of Starlette's parser, on damaged headers
    raise Refused('malformed', f'the body is no valid {FORM}: {error}') from error
  finally:
    parser.close()


def _form_fields(form: FormData, inputs: Inputs) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
  images: dict[str, list[bytes]] = {name: [] for name in inputs.images}
  options: dict[str, Any] = {}
  for name, value in form.multi_items():
    _check_name(name, inputs)
    if name in options:
      raise Refused('invalid', f'{name} is given twice')
    if name not in images:
      options[name] = value
    elif isinstance(value, UploadFile):
      images[name].append(value.file.read())
    else:
      raise Refused('invalid', f'{name} must be a file with a name, as of curl -F {name}=@FILE')
  return images, options


def _json(body: bytes, inputs: Inputs) -> tuple[dict[str, list[bytes]], dict[str, Any]]:
  try:
    content = parse_json(body.decode(), MAX_TOKENS)
  except ValueError as error:
    raise Refused('malformed', f'the body is no valid JSON: {error}') from error
  if not isinstance(content, dict):
    raise Refused('invalid', 'the body must be a JSON object')
  for name in content:
    _check_name(name, inputs)
  images = {name: _decoded(name, content.get(name, [])) for name in inputs.images}
  return images, {name: value for name, value in content.items() if name not in images}


def _decoded(name: str, texts: object) -> list[bytes]:
  if not isinstance(texts, list):
    raise Refused('invalid', f'{name} must be a list of images in base64')
  images = []
  for i, text in enumerate(texts):
    try:
      if not isinstance(text, str):
        raise ValueError('no string')
      images.append(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as error:
      raise Refused('invalid', f'{name}[{i}] is not base64: {error}') from error
  return images


def _too_many() -> Refused:
  return Refused('invalid', f'too many images: a request may have at most {MAX_IMAGES}; send several')


def _check_name(name: str, inputs: Inputs) -> None:
  known = [*inputs.images, *inputs.options]
  if name not in known:
    raise Refused('invalid', f'unknown field {name[:40]!r}{suggestion(name[:40], known)}; known: {", ".join(known)}')
