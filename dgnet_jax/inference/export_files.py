"""Exports a run as ONNX or TFLite files, each of which is compared with the networks before it is kept."""

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
import functools
import importlib.util
import io
import json
import logging
import pathlib
from typing import Any
import warnings

import jax
import numpy as np

from dgnet_jax.data.synthetic.people import NUM_CAMERAS, sample_people, sample_structure
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.errors import UserError
from dgnet_jax.inference.export import describe, functions_to_export
from dgnet_jax.inference.loading import Step, open_model
from dgnet_jax.inference.model_file import flat_parameters
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.inference.scoring import piece_shares, scored
from dgnet_jax.inference.tflite import convert_to_tflite, run_tflite
from dgnet_jax.models.plain_operations import plain_operations
from dgnet_jax.types import Array
from dgnet_jax.utils.atomic_files import atomic_folder, write_json
from dgnet_jax.utils.extras import JAX2ONNX, install_command
from dgnet_jax.utils.paths import check_writable

logger = logging.getLogger(__name__)

BATCH_SIZE = 8  # the largest batch that is compared
TOLERANCE = {'embed': 1e-4, 'swap': 2.0}  # of an embedding of length 1; of a pixel, in levels of 255
WAY_OUT = {  # if a conversion fails
  'embed': '--format=stablehlo needs no conversion',
  'swap': '--only=embed leaves it out, and --format=stablehlo needs no conversion',
}
INPUTS = {'embed': ('images',), 'swap': ('structures', 'appearances')}
OUTPUT = {'embed': 'embeddings', 'swap': 'images'}

Function = Callable[..., Array]  # maps images u8[N, H, W, 3] to an array


@dataclasses.dataclass(frozen=True)
class Format:
  """A kind of files.

  Attributes:
    libraries: what must be installed, and how.
    convert: returns the content of a file, from a function, its name, the size of images and the metadata.
    run: returns the output of a file for its inputs.
    batch_sizes: those that are compared.
  """

  libraries: tuple[tuple[str, ...], str]
  convert: Callable[[Function, str, tuple[int, int], Mapping[str, Any]], bytes]
  run: Callable[[pathlib.Path, Mapping[str, np.ndarray]], np.ndarray]
  batch_sizes: tuple[int, ...]


def export_files(
  run: str | pathlib.Path,
  folder: str | pathlib.Path,
  kind: str,
  *,
  only: str = '',
  step: Step = None,
) -> pathlib.Path:
  """Writes embed.KIND, swap.KIND unless the run has no generator, and model.json.

  Args:
    run: a trained model, as for `open_model`.
    folder: the folder to create.
    kind: a key of `FORMATS`.
    only: embed or swap, to write one of them.
    step: which checkpoint.

  Returns:
    The folder.

  Raises:
    UserError: there is no checkpoint or nothing to export, the folder exists, a library is missing, a network cannot be
      converted, or a file gives other results than its network; then no folder is left.
  """
  form = FORMATS[kind]
  folder = check_writable(folder)
  if folder.exists():
    raise UserError(f'{folder} exists already; name another folder, or remove it')
  names, install = form.libraries
  if missing := [name for name in names if importlib.util.find_spec(name) is None]:
    raise UserError(f'--format={kind} needs {" and ".join(missing)}: {install}')
  predictor, config, _ = open_model(run, batch_size=BATCH_SIZE, step=step)
  weights, shares = flat_parameters(predictor), piece_shares(config)
  description = describe(config, predictor)
  functions = functions_to_export(predictor, shares)
  if only == 'swap':
    predictor.require_generator()
  with atomic_folder(folder) as temporary:
    for name in [only] if only else functions:
      path = temporary / f'{name}.{kind}'
      logger.info(f'writing {folder / path.name}')
      function = functools.partial(functions[name][0], weights)
      path.write_bytes(_converted(form, function, name, predictor.networks.image_size_hw, description))
      difference = max(_difference(form, path, name, predictor, shares, size) for size in form.batch_sizes)
      logger.info(f'largest difference from the network: {difference:.2g}')
      if not difference <= TOLERANCE[name]:
        raise UserError(
          f'{path.name}: differs by up to {difference:.2g} from the network, more than {TOLERANCE[name]:g}. The '
          f'conversion is wrong, and nothing was written; {WAY_OUT[name]}'
        )
    write_json(temporary / 'model.json', description | {'tolerance': TOLERANCE})
  logger.info(f'step {predictor.step}: {folder}')
  return folder


@contextlib.contextmanager
def _refused_by_name(name: str) -> Iterator[None]:
  """Converters raise anything, and print and warn about what does not concern users.

  Raises:
    UserError: names the network that cannot be converted.
  """
  logging.disable(logging.WARNING)
  try:
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
      warnings.simplefilter('ignore')
      yield
  except Exception as error:
    message = (str(error).splitlines() or [''])[0][:300]
    raise UserError(f'{name} cannot be converted ({type(error).__name__}: {message}); {WAY_OUT[name]}') from error
  finally:
    logging.disable(logging.NOTSET)


def _converted(
  form: Format, function: Function, name: str, image_size_hw: tuple[int, int], description: Mapping[str, Any]
) -> bytes:
  """Returns the content of a file."""
  with _refused_by_name(name), plain_operations():
    return form.convert(function, name, image_size_hw, description)


def _difference(
  form: Format, path: pathlib.Path, name: str, predictor: Predictor, shares: np.ndarray, batch_size: int
) -> float:
  """Returns the largest difference between a file's output and the network's, for random images and for pedestrians."""
  differences = []
  for images in _test_images(predictor.networks.image_size_hw, batch_size):
    sources = dict(zip(INPUTS[name], (images, images[::-1]), strict=False))
    with _refused_by_name(name):
      found = form.run(path, sources)
    if name == 'embed':
      expected = scored(predictor.embed(images, label='comparing'), shares)
    else:
      expected = predictor.swap(structure_from=images, appearance_from=images[::-1], label='comparing')
    if found.shape != expected.shape or found.dtype != expected.dtype:
      raise UserError(
        f'{path.name}: gives {found.dtype}{found.shape}, and the network {expected.dtype}{expected.shape}'
      )
    differences.append(float(np.abs(found.astype(np.float64) - expected).max()))
  return max(differences, key=lambda difference: (np.isnan(difference), difference))


def _test_images(image_size_hw: tuple[int, int], count: int) -> Sequence[np.ndarray]:
  """Returns random images and built-in pedestrians, u8[count, H, W, 3] each."""
  rng = np.random.default_rng(0)
  people = [
    render(person.appearance, sample_structure(rng, 1 + i % NUM_CAMERAS, person.body), image_size_hw)
    for i, person in enumerate(sample_people(rng, count))
  ]
  return rng.integers(0, 256, (count, *image_size_hw, 3), np.uint8), np.stack(people)


def _convert_to_onnx(
  function: Function, name: str, image_size_hw: tuple[int, int], description: Mapping[str, Any]
) -> bytes:
  import jax2onnx

  (count,) = jax.export.symbolic_shape('N')
  images = jax.ShapeDtypeStruct((count, *image_size_hw, 3), np.uint8)  # type: ignore[no-untyped-call]
  inputs = INPUTS[name]
  model = jax2onnx.to_onnx(
    function, [images] * len(inputs), model_name=name, input_names=inputs, output_names=[OUTPUT[name]]
  )
  for key, value in description.items():
    entry = model.metadata_props.add()
    entry.key, entry.value = key, json.dumps(value)
  content: bytes = model.SerializeToString()
  return content


def _run_onnx(path: pathlib.Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
  import onnxruntime

  options = onnxruntime.SessionOptions()
  options.log_severity_level = 3  # not warnings: jax2onnx leaves constants that nothing reads
  session = onnxruntime.InferenceSession(path, options, providers=['CPUExecutionProvider'])
  (output,) = session.run(None, dict(inputs))
  return np.asarray(output)


def _convert_to_tflite(
  function: Function, name: str, image_size_hw: tuple[int, int], description: Mapping[str, Any]
) -> bytes:
  return convert_to_tflite(function, INPUTS[name], OUTPUT[name], (1, *image_size_hw, 3))


FORMATS = {
  'onnx': Format(
    (('jax2onnx', 'onnx', 'onnx_ir', 'onnxruntime'), f'{install_command("onnx")} && {JAX2ONNX}'),
    _convert_to_onnx,
    _run_onnx,
    (1, BATCH_SIZE),
  ),
  'tflite': Format((('tensorflow',), install_command('tfdata')), _convert_to_tflite, run_tflite, (1,)),
}
