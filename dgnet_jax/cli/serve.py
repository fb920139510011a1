"""`dgnet serve` and `page`: a trained model over HTTP, and on a page in the browser."""

import argparse
import logging
import os
import pathlib
import re

from dgnet_jax.cli.arguments import add_batch_size, add_step, at_least, run_folder
from dgnet_jax.cli.command import Command
from dgnet_jax.cli.run_arguments import DETAILS, RUN_HELP, check_run, load_model, opened_gallery
from dgnet_jax.utils.extras import require_serving_libraries
from dgnet_jax.utils.paths import packaged_models
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)


def _add_page(parser: argparse.ArgumentParser) -> None:
  named = parser.add_mutually_exclusive_group(required=True)
  named.add_argument('run', type=run_folder, metavar='RUN', nargs='?', help=RUN_HELP)
  named.add_argument('--model', choices=packaged_models(), help='a trained model that comes with the package')
  add_step(parser)
  add_batch_size(parser, 8)
  parser.add_argument('--gallery', metavar='IMAGE', nargs='+', help='images to search, usually a folder, or a gallery')
  parser.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s, this machine)')
  parser.add_argument(
    '--port', type=at_least(0), default=7860, help='port to listen at; 0 is any free port (default: %(default)s)'
  )
  parser.add_argument(
    '--allowed-host',
    type=_host_name,
    action='append',
    default=[],
    metavar='NAME',
    help='another name of the server, like that of a proxy; can be repeated. Requests that name others are refused',
  )
  parser.set_defaults(token_file=None)


def _host_name(text: str) -> str:
  """An argparse type: a name as in the header Host, without a port."""
  if not re.fullmatch('[A-Za-z0-9._-]+', text):
    raise argparse.ArgumentTypeError(f'{shortened(text)!r} must be a name or address alone, like reid.example.org')
  return text


def _add_serve(parser: argparse.ArgumentParser) -> None:
  _add_page(parser)
  parser.add_argument(
    '--token-file', type=pathlib.Path, metavar='FILE', help='holds a token that clients must send (default: none)'
  )


def _serve(options: argparse.Namespace, *, page: bool = False) -> None:
  models = packaged_models()
  options.run = options.run or models[options.model]
  check_run(options)
  require_serving_libraries()
  from dgnet_jax.data.image_lists import as_image_list
  from dgnet_jax.data.synthetic.examples import example_images
  from dgnet_jax.serving.guard import read_token
  from dgnet_jax.serving.server import is_loopback, listen, serve
  from dgnet_jax.serving.service import ModelService

  token = read_token(options.token_file) if options.token_file else ''
  with listen(options.host, options.port) as listening:
    if not is_loopback(listening) and not token:
      logger.warning(f'--host={options.host}: anyone who can reach this machine can use the model and see the gallery')
    # A model of the package has people to try at hand.
    is_packaged = options.run in models.values() or (str(options.run) in models and not os.path.isdir(options.run))
    shown = options.gallery or ([str(example_images())] if is_packaged else [])
    gallery = opened_gallery(shown) or as_image_list(shown, 'gallery') if shown else None
    service = ModelService(load_model(options), gallery)
    serve(service, listening, options.host, allowed_hosts=options.allowed_host, token=token, page=page)


def _page(options: argparse.Namespace) -> None:
  _serve(options, page=True)


COMMANDS = (
  Command(
    name='serve',
    summary='answer requests over HTTP',
    details=DETAILS,
    epilog="""examples:
  dgnet serve runs/market --gallery images/
  dgnet serve runs/market --host=0.0.0.0 --token-file=token.txt
  dgnet serve runs/market --token-file=token.txt --allowed-host=reid.example.org    # behind a proxy with TLS
  curl -F images=@anna.jpg http://127.0.0.1:7860/rank

Answers /embed, /rank, /swap, /interpolate, /trace and /health; /docs describes them, and /openapi.json does for
programs. Requests that arrive while the networks are busy are computed together, at most --batch-size images at a
time. SIGTERM stops the server when it has answered what it has begun.
""",
    add_arguments=_add_serve,
    run=_serve,
  ),
  Command(
    name='page',
    summary='swap and search on a page in the browser',
    details=DETAILS,
    epilog="""examples:
  dgnet page --model=synthetic                   # the small model of the package, with rendered people to search
  dgnet page runs/market
  dgnet page runs/market --gallery images/ --port=8080

Open the printed address in a browser on this machine. Uploads stay in memory until they are answered, and are stored
nowhere; the page loads nothing from and sends nothing to other servers. With --host=0.0.0.0 every machine of the
network can use it. The server also answers what `dgnet serve` does.
""",
    add_arguments=_add_page,
    run=_page,
  ),
)
