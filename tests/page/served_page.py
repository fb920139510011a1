"""A page on a port of its own, and what is sent to it; needs the page's extra."""

import base64
import contextlib
import http.client
import io
import json
import threading

import numpy as np
from PIL import Image

from dgnet_jax.page.server import UPLOAD_TYPE, listen, make_server


@contextlib.contextmanager
def served(answers):
  """The host and the port of a page, while it lasts."""
  with listen('127.0.0.1', 0) as listening:
    server = make_server(answers, '127.0.0.1')
    thread = threading.Thread(target=server.run, kwargs={'sockets': [listening]})
    thread.start()
    try:
      yield listening.getsockname()
    finally:
      server.should_exit = True
      thread.join()


def send(page, method, path, body=None, **headers):
  """Status, headers and body of a response."""
  with contextlib.closing(http.client.HTTPConnection(*page, timeout=60)) as connection:
    connection.request(method, path, body, {name.replace('_', '-'): value for name, value in headers.items()})
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def upload(page, path, *images):
  status, _, body = send(page, 'POST', path, b''.join(images), content_type=UPLOAD_TYPE)
  return status, json.loads(body)


def pixels(uri):
  kind, _, text = uri.partition(',')
  assert kind == 'data:image/png;base64'
  return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
