"""Embeddings and swapped images from exported files. Needs jax and flatbuffers, but not dgnet_jax.

python load.py query.jpg gallery.jpg     # with Pillow, for reading and writing images
"""

from collections.abc import Callable, Sequence
import json
import pathlib
import sys

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent
DTYPES: dict[str, type[np.floating]] = {'F32': np.float32, 'F64': np.float64}


def read_safetensors(path: pathlib.Path) -> dict[str, np.ndarray]:
  """Reads the arrays of a .safetensors file by name."""
  content = path.read_bytes()
  start = 8 + int.from_bytes(content[:8], 'little')
  arrays = {}
  for name, entry in json.loads(content[8:start]).items():
    if name != '__metadata__':
      first, last = (start + offset for offset in entry['data_offsets'])
      arrays[name] = np.frombuffer(content[first:last], DTYPES[entry['dtype']]).reshape(entry['shape'])
  return arrays


def load(folder: pathlib.Path = FOLDER) -> tuple[Callable[..., np.ndarray], Callable[..., np.ndarray] | None]:
  """Loads the exported programs.

  Returns:
    embed(images), which maps u8[N, H, W, 3] to embeddings f32[N, D] of length 1, whose dot products are the scores of
    `dgnet rank`, and swap(structure_from, appearance_from), which maps u8[N, H, W, 3] each to generated images
    u8[N, H, W, 3]; None if the run has no generator. Both work for any N.
  """
  weights = jax.device_put(read_safetensors(folder / 'weights.safetensors'))

  def program(name: str) -> Callable[..., np.ndarray]:
    call = jax.jit(jax.export.deserialize(bytearray((folder / f'{name}.stablehlo').read_bytes())).call)
    return lambda *images: np.asarray(call(weights, *images))

  return program('embed'), program('swap') if (folder / 'swap.stablehlo').exists() else None


def main(paths: Sequence[str]) -> None:
  from PIL import Image, ImageOps

  height, width = json.loads((FOLDER / 'model.json').read_text())['image_size_hw']
  upright = [ImageOps.exif_transpose(Image.open(path)).convert('RGB') for path in paths]
  images = np.stack([np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)) for image in upright])
  embed, swap = load()
  embeddings = embed(images)
  print('score of the others for the first image:', embeddings[1:] @ embeddings[0])
  for i, swapped in enumerate(swap(np.repeat(images[:1], len(images), axis=0), images) if swap else ()):
    Image.fromarray(swapped).save(f'swapped_{i}.png')


if __name__ == '__main__':
  main(sys.argv[1:])
