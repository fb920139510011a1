"""Serves a model at a free port and sends requests to it. Needs the extra `serve`."""

import base64
import contextlib
import http.client
import io
import json
import socket

import numpy as np
from PIL import Image

from dgnet_jax.serving import server
from dgnet_jax.serving.app import make_app

BOUNDARY = 'boundary-of-tests'
FORM = f'multipart/form-data; boundary={BOUNDARY}'


def served(service, **options):
  """Serves a model, with the options of `make_app`; a context that yields host and port."""
  return server.served(make_app(service, **options))


def send(address, method, path, body=None, **headers):
  """Sends a request; returns status, headers and body of the response."""
  with contextlib.closing(http.client.HTTPConnection(*address, timeout=60)) as connection:
    connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def form(**fields):
  """Encodes a form; bytes are files, a list is a field that is repeated."""
  parts = []
  for name, values in fields.items():
    for value in values if isinstance(values, list) else [values]:
      is_file = isinstance(value, bytes)
      file_name = '; filename="x.png"' if is_file else ''
      header = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{file_name}\r\n\r\n'
      parts.append(header.encode() + (value if is_file else str(value).encode()) + b'\r\n')
  return b''.join(parts) + f'--{BOUNDARY}--\r\n'.encode()


def post(address, path, **fields):
  """Posts a form; returns status and JSON of the response."""
  status, _, body = send(address, 'POST', path, form(**fields), content_type=FORM)
  return status, json.loads(body)


def post_json(address, path, content):
  """Posts JSON; returns status and JSON of the response."""
  status, _, body = send(address, 'POST', path, json.dumps(content), content_type='application/json')
  return status, json.loads(body)


def connect(address, content=b'', source='127.0.0.1'):
  """Opens a connection from an address of this machine and sends bytes."""
  connection = socket.create_connection(address, timeout=20, source_address=(source, 0))
  connection.sendall(content)
  return connection


def is_open(connection):
  """Whether the server has neither closed the connection nor sent anything."""
  connection.setblocking(False)
  try:
    connection.recv(1)
  except BlockingIOError:
    return True
  except ConnectionError:
    pass
  return False


def pixels(png):
  """Decodes a PNG file, given as bytes or in base64."""
  return np.asarray(Image.open(io.BytesIO(png if isinstance(png, bytes) else base64.b64decode(png))))
