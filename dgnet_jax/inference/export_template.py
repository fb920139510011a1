"""Embeddings and swapped images from exported files. Needs jax and flatbuffers, nothing of dgnet_jax.

python load.py query.jpg gallery.jpg     # with Pillow, for reading and writing images
"""

import json
import pathlib
import sys

import jax
import numpy as np

FOLDER = pathlib.Path(__file__).parent


def read_safetensors(path):
  """The arrays of a .safetensors file by name."""
  content = path.read_bytes()
  start = 8 + int.from_bytes(content[:8], 'little')
  arrays = {}
  for name, about in json.loads(content[8:start]).items():
    if name != '__metadata__':
      first, last = (start + offset for offset in about['data_offsets'])
      dtype = {'F32': np.float32, 'F64': np.float64}[about['dtype']]
      arrays[name] = np.frombuffer(content[first:last], dtype).reshape(about['shape'])
  return arrays


def load(folder=FOLDER):
  """Functions embed(u8[N, H, W, 3]) -> f32[N, D] and swap(structure_from, appearance_from) -> u8[N, H, W, 3]."""
  weights = jax.device_put(read_safetensors(folder / 'weights.safetensors'))

  def program(name):
    call = jax.jit(jax.export.deserialize((folder / f'{name}.stablehlo').read_bytes()).call)
    return lambda *images: np.asarray(call(weights, *images))

  return program('embed'), program('swap')


def main(paths):
  from PIL import Image

  height, width = json.loads((FOLDER / 'model.json').read_text())['image_size_hw']
  opened = [Image.open(path).convert('RGB').resize((width, height), Image.Resampling.BICUBIC) for path in paths]
  images = np.stack([np.asarray(image) for image in opened])
  embed, swap = load()
  embeddings = embed(images)
  print('scores of the first image with the others:', embeddings[1:] @ embeddings[0])
  for i, made in enumerate(swap(np.repeat(images[:1], len(images), axis=0), images)):
    Image.fromarray(made).save(f'swapped_{i}.png')


if __name__ == '__main__':
  main(sys.argv[1:])
