"""A trained run as files that need only JAX: StableHLO programs for any batch size, and weights as safetensors."""

from collections.abc import Callable, Mapping, Sequence
import json
import logging
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.inference.functions import embedding, swap
from dgnet_jax.inference.trained import Trained, load_trained
from dgnet_jax.pixels import IMAGENET_MEAN, IMAGENET_STD, normalize
from dgnet_jax.types import Array
from dgnet_jax.utils.atomic_files import whole_folder

logger = logging.getLogger(__name__)


PLATFORMS = ('cpu', 'cuda', 'tpu')
EXAMPLE = pathlib.Path(__file__).parent / 'exported_example.py'  # copied beside the programs, as load.py
Weights = Mapping[str, Array]


def _flat(tree: Any, prefix: str = '') -> dict[str, np.ndarray]:
  """Arrays by names like reid/backbone/stem/kernel."""
  if not isinstance(tree, Mapping):
    return {prefix.removesuffix('/'): np.asarray(tree)}
  flat: dict[str, np.ndarray] = {}
  for name, part in tree.items():
    flat |= _flat(part, f'{prefix}{name}/')
  return flat


def _nested(weights: Weights, prefix: str) -> dict[str, Any]:
  """The tree below `prefix` of flat names."""
  tree: dict[str, Any] = {}
  for name, array in weights.items():
    if name.startswith(f'{prefix}/'):
      *path, last = name.split('/')[1:]
      node = tree
      for part in path:
        node = node.setdefault(part, {})
      node[last] = array
  return tree


def _pixels(image: Array) -> Array:
  """Normalised f[..., 3] to u8[..., 3], clipped."""
  values = (image * IMAGENET_STD.astype(np.float32) + IMAGENET_MEAN.astype(np.float32)) * 255
  return jnp.round(jnp.clip(values, 0, 255)).astype(jnp.uint8)


def programs(trained: Trained) -> dict[str, tuple[Callable[..., Array], int]]:
  """What is exported: functions of (weights, images...), and how many arrays of images each takes.

  embed: u8[B, H, W, 3] to f32[B, D], as `inference.embedding`. swap: structure_from and appearance_from, u8[B, H, W, 3]
  each, to u8[B, H, W, 3].
  """
  networks = trained.networks

  def embed(weights: Weights, images: Array) -> Array:
    return embedding(networks, _nested(weights, 'reid'), _nested(weights, 'reid_stats'), normalize(images))

  def swap_images(weights: Weights, structure_from: Array, appearance_from: Array) -> Array:
    made = swap(
      networks,
      _nested(weights, 'generator'),
      _nested(weights, 'reid'),
      _nested(weights, 'reid_stats'),
      structure_from=normalize(structure_from),
      appearance_from=normalize(appearance_from),
    )
    return _pixels(made)

  return {'embed': (embed, 1), 'swap': (swap_images, 2)}


def export_model(
  config: Config, workdir: str | pathlib.Path, folder: str | pathlib.Path, *, platforms: Sequence[str] = PLATFORMS
) -> pathlib.Path:
  """Writes embed.stablehlo, swap.stablehlo, weights.safetensors, model.json and load.py, an example that uses them.

  Args:
    config: of the run.
    workdir: of the run.
    folder: to make.
    platforms: that the programs shall run on, of cpu, cuda, rocm and tpu.

  Returns:
    The folder.

  Raises:
    UserError: there is no checkpoint, the folder is there already, or flatbuffers is not installed.
  """
  folder = pathlib.Path(folder)
  if folder.exists():
    raise UserError(f'{folder} is there already; name another folder, or remove it')
  try:
    import flatbuffers  # noqa: F401 (what jax.export writes with)
  except ImportError as error:
    raise UserError('exporting needs flatbuffers: install dgnet_jax[export]') from error
  trained = load_trained(config, workdir)
  parts = {'generator': trained.generator, 'reid': trained.reid, 'reid_stats': trained.reid_stats}
  weights = {name: np.ascontiguousarray(array) for name, array in _flat(jax.device_get(parts)).items()}
  height, width = config.data.image_size_hw
  forms = {name: jax.ShapeDtypeStruct(array.shape, array.dtype) for name, array in weights.items()}
  images = jax.ShapeDtypeStruct((*jax.export.symbolic_shape('batch'), height, width, 3), jnp.uint8)
  with whole_folder(folder) as aside:
    for name, (program, count) in programs(trained).items():
      logger.info(f'writing {folder / name}.stablehlo for {", ".join(platforms)}')
      exported = jax.export.export(jax.jit(program), platforms=platforms)(forms, *[images] * count)
      (aside / f'{name}.stablehlo').write_bytes(exported.serialize())
    safetensors.numpy.save_file(weights, aside / 'weights.safetensors')
    about = {
      'step': trained.step,
      'image_size_hw': [height, width],
      'platforms': list(platforms),
      'embedding': 'pieces of length 1 (release fact 41): primary, then fine-grained'
      if _has_halves(config)
      else 'whole',
      'jax': jax.__version__,
    }
    (aside / 'model.json').write_text(json.dumps(about, indent=2) + '\n')
    shutil.copy(EXAMPLE, aside / 'load.py')
  size = sum(array.nbytes for array in weights.values())
  logger.info(f'step {trained.step}, {len(weights)} arrays, {size / 2**20:.0f} MiB of weights: {folder}')
  return folder


def _has_halves(config: Config) -> bool:
  return bool(config.reid.style == 'AB')
