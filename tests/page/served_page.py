"""Serves a page at a free port and sends requests to it. Needs the extra `page`."""

import base64
import contextlib
import http.client
import io
import json
import socket
import threading

import numpy as np
from PIL import Image

from dgnet_jax.page.server import UPLOAD_TYPE, listen, make_server


@contextlib.contextmanager
def served(service):
  """Serves a page; yields its host and port."""
  with listen('127.0.0.1', 0) as listening:
    server = make_server(service, '127.0.0.1')
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listening]})
    thread.start()
    try:
      yield listening.getsockname()
    finally:
      server.should_exit = True
      thread.join()


def send(page, method, path, body=None, **headers):
  """Sends a request; returns status, headers and body of the response."""
  with contextlib.closing(http.client.HTTPConnection(*page, timeout=60)) as connection:
    connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def connect(page, content=b'', source='127.0.0.1'):
  """Opens a connection from an address of this machine and sends bytes."""
  connection = socket.create_connection(page, timeout=20, source_address=(source, 0))
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


def upload(page, path, *images):
  """Posts concatenated images; returns status and JSON of the response."""
  status, _, body = send(page, 'POST', path, b''.join(images), content_type=UPLOAD_TYPE)
  return status, json.loads(body)


def pixels(uri):
  """Decodes a data URI."""
  kind, _, text = uri.partition(',')
  assert kind == 'data:image/png;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
