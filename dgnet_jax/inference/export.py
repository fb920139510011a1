"""Exports a run to files that need only JAX: StableHLO programs for any batch size, and weights as safetensors."""

from collections.abc import Callable, Mapping, Sequence
import logging
import pathlib
import shutil
from typing import Any

from flax import traverse_util
import jax
import numpy as np
import safetensors.numpy

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.inference import functions
from dgnet_jax.inference.loading import Step, open_model
from dgnet_jax.inference.model_file import flat_parameters
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.inference.scoring import piece_shares, scored
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.types import Array
from dgnet_jax.utils.atomic_files import atomic_folder, write_json
from dgnet_jax.utils.extras import install_command
from dgnet_jax.utils.paths import check_writable
from dgnet_jax.utils.text import shortened

logger = logging.getLogger(__name__)

PLATFORMS = ('cpu', 'cuda', 'tpu')  # by default
KNOWN_PLATFORMS = ('cpu', 'cuda', 'rocm', 'tpu')
TEMPLATE = pathlib.Path(__file__).parent / 'export_template.py'  # copied beside the programs, as load.py
PIECES = {  # the pieces of an embedding as model.json names them, by reid.style
  'AB': 'the primary and the fine-grained half',
  'normal': 'one vector',
  'PCB': 'one vector for each part',
}
Weights = Mapping[str, Array]  # arrays by names like reid/backbone/stem/kernel


def export_model(
  run: str | pathlib.Path,
  folder: str | pathlib.Path,
  *,
  platforms: Sequence[str] = PLATFORMS,
  step: Step = None,
) -> pathlib.Path:
  """Writes embed.stablehlo, swap.stablehlo unless the run has no generator, weights.safetensors, model.json, load.py.

  Args:
    run: a trained model, as for `open_model`.
    folder: the folder to create.
    platforms: platforms that the programs must run on, of `KNOWN_PLATFORMS`.
    step: which checkpoint.

  Returns:
    The folder.

  Raises:
    UserError: there is no checkpoint or no such platform, the folder exists, or flatbuffers is not installed.
  """
  folder = check_writable(folder)
  unknown = [platform for platform in platforms if platform not in KNOWN_PLATFORMS]
  if unknown or not platforms:
    problem = f'unknown platform {shortened(unknown[0])!r}' if unknown else 'no platform'
    raise UserError(f'--platforms: {problem}; name some of {", ".join(KNOWN_PLATFORMS)}')
  if folder.exists():
    raise UserError(f'{folder} exists already; name another folder, or remove it')
  try:
    import flatbuffers  # noqa: F401 (jax.export serializes with it)
  except ImportError as error:
    raise UserError(f'exporting needs flatbuffers: {install_command("export")}') from error
  predictor, config, _ = open_model(run, batch_size=1, step=step)
  weights = flat_parameters(predictor)
  shares = piece_shares(config)
  with atomic_folder(folder) as temporary:
    for name, program in export_programs(predictor, weights, shares, platforms).items():
      logger.info(f'writing {folder / name}.stablehlo for {", ".join(platforms)}')
      (temporary / f'{name}.stablehlo').write_bytes(program.serialize())
    (temporary / 'weights.safetensors').write_bytes(safetensors.numpy.save(weights))
    description = describe(config, predictor) | {'platforms': list(platforms), 'jax': jax.__version__}
    write_json(temporary / 'model.json', description)
    shutil.copy(TEMPLATE, temporary / 'load.py')
  size = sum(array.nbytes for array in weights.values())
  logger.info(f'step {predictor.step}, {len(weights)} arrays, {size / 2**20:.0f} MiB of weights: {folder}')
  return folder


def describe(config: Config, predictor: Predictor) -> dict[str, Any]:
  """Describes an exported run."""
  return {
    'step': predictor.step,
    'identities': predictor.num_identities,
    'image_size_hw': list(predictor.networks.image_size_hw),
    'embedding': {
      'length': 1,
      'score': 'the dot product of two embeddings',
      'pieces': PIECES[config.reid.style],
      'share': piece_shares(config).tolist(),  # of each piece in the score
    },
  }


def export_programs(
  predictor: Predictor, weights: Mapping[str, np.ndarray], shares: np.ndarray, platforms: Sequence[str]
) -> dict[str, jax.export.Exported]:
  """Traces the exported programs once for all platforms and batch sizes.

  Args:
    predictor: its networks are traced.
    weights: from `flat_parameters`; only their shapes and dtypes are read.
    shares: from `piece_shares`.
    platforms: platforms to lower for.

  Returns:
    embed: maps (weights, u8[B, H, W, 3]) to f32[B, D], as `api.Model.embed`. swap: maps (weights, structure_from,
    appearance_from), u8[B, H, W, 3] both, to u8[B, H, W, 3].
  """
  height, width = predictor.networks.image_size_hw
  example = np.zeros((1, height, width, 3), np.uint8)
  (images,) = jax.export.symbolic_args_specs((example,), f'(batch, {height}, {width}, 3)')
  return {
    name: jax.export.export(jax.jit(function), platforms=platforms)(weights, *[images] * num_inputs)
    for name, (function, num_inputs) in functions_to_export(predictor, shares).items()
  }


def functions_to_export(predictor: Predictor, shares: np.ndarray) -> dict[str, tuple[Callable[..., Array], int]]:
  """Returns functions of (weights, images...) and their number of image arguments: embed, and swap with a generator."""
  networks = predictor.networks

  def embed(weights: Weights, images: Array) -> Array:
    tree = _nested(weights)
    return scored(functions.embedding(networks, tree['reid'], tree['reid_stats'], normalize(images)), shares)

  def swap(weights: Weights, structures: Array, appearances: Array) -> Array:
    tree = _nested(weights)
    sources = {'structure_from': normalize(structures), 'appearance_from': normalize(appearances)}
    return denormalize(functions.swap(networks, tree['generator'], tree['reid'], tree['reid_stats'], **sources))

  return {'embed': (embed, 1)} | ({} if predictor.generator is None else {'swap': (swap, 2)})


def _nested(weights: Weights) -> dict[str, Any]:
  tree: dict[str, Any] = traverse_util.unflatten_dict(weights, sep='/')  # type: ignore[no-untyped-call]
  return tree
