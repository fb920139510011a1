"""Throughput of the HTTP interface with several clients, with and without batches of their requests."""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import functools
import http.client
import pathlib

import jax
import numpy as np

from dgnet_jax.api import Model
from dgnet_jax.benchmarks.timing import Alternative, median_seconds
from dgnet_jax.config.schema import Config
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.models.build import make_networks
from dgnet_jax.serving.app import make_app
from dgnet_jax.serving.images import encode_png
from dgnet_jax.serving.server import served
from dgnet_jax.serving.service import ModelService
from dgnet_jax.sharding import make_mesh, replicated

CLIENTS = (1, 4, 16)
BATCH_SIZES = {'one at a time': 1, 'in batches': 8}

Address = tuple[str, int]


def benchmark_serving(config: Config, *, requests: int, people: int, rounds: int) -> None:
  """Prints how many images per second are embedded over HTTP, with fresh networks.

  Args:
    config: the networks and the size of images.
    requests: number of requests in a turn, of one image each, which the clients share.
    people: identities that the re-id network distinguishes.
    rounds: turns that count.
  """
  model = _fresh_model(config, people)
  height, width = config.data.image_size_hw
  image = encode_png(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))
  print(f'{height}x{width}, {requests} requests of one image, {config.compute_dtype}, {jax.devices()[0].device_kind}')
  print('ratio of images per second to those of one client whose requests are computed one at a time:')
  with contextlib.ExitStack() as stack:
    addresses = {name: stack.enter_context(_served(model.with_batch_size(size))) for name, size in BATCH_SIZES.items()}
    alternatives: dict[str, Alternative] = {
      f'{count} clients, {name}': functools.partial(_embed_all, address, image, count, requests)
      for count in CLIENTS
      for name, address in addresses.items()
    }
    seconds = median_seconds(alternatives, rounds)
  reference = next(iter(seconds.values()))
  for name, value in seconds.items():
    print(f'  {name:<26}{value:8.3f} s{requests / value:9.2f} images/s{reference / value:7.2f}x', flush=True)


def _fresh_model(config: Config, people: int) -> Model:
  networks = make_networks(config, people)
  mesh = make_mesh(jax.local_devices()[:1])
  generator_key, reid_key = jax.random.split(jax.random.key(0))
  parameters = networks.init_generator(generator_key), *networks.init_reid(reid_key)
  generator, reid, reid_stats = jax.device_put(parameters, replicated(mesh))
  predictor = Predictor(networks, generator, reid, reid_stats, mesh, 1, people, 0)
  return Model(predictor, config, pathlib.Path('benchmark'))


@contextlib.contextmanager
def _served(model: Model) -> Iterator[Address]:
  """Serves a model on this machine, with the embedder compiled for every size of a batch; yields the address."""
  service = ModelService(model, None)
  for size in service.functions['embed'].sizes:
    service.embed([np.zeros((*model.image_size_hw, 3), np.uint8)] * size)
  with served(make_app(service)) as address:
    yield address


def _embed_all(address: Address, image: bytes, num_clients: int, num_requests: int) -> None:
  """Sends the requests, each client one after the other."""
  boundary = 'boundary-of-the-form'
  header = f'--{boundary}\r\nContent-Disposition: form-data; name="images"; filename="x"\r\n\r\n'
  body = header.encode() + image + f'\r\n--{boundary}--\r\n'.encode()

  def client(number: int) -> None:
    with contextlib.closing(http.client.HTTPConnection(*address)) as connection:
      for _ in range(number, num_requests, num_clients):
        connection.request('POST', '/embed', body, {'Content-Type': f'multipart/form-data; boundary={boundary}'})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
          raise RuntimeError(f'{response.status}: {answer[:200]!r}')

  with concurrent.futures.ThreadPoolExecutor(num_clients) as pool:
    list(pool.map(client, range(num_clients)))
