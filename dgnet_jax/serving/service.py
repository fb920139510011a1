"""The model's answers to uploaded images. Independent of HTTP, and writes nothing to disk."""

from collections.abc import Sequence
import os
from typing import Any

import numpy as np

from dgnet_jax.api import Gallery, Match, Model
from dgnet_jax.data.image_lists import ImageList
from dgnet_jax.data.images import decode_rgb, read_encoded
from dgnet_jax.data.index import printable
from dgnet_jax.errors import UserError
from dgnet_jax.inference.scoring import piece_shares, scored
from dgnet_jax.plots.figure_sheets import place_colours
from dgnet_jax.serving.batching import BatchFunction
from dgnet_jax.serving.errors import Refused
from dgnet_jax.serving.images import MAX_BYTES, MAX_PIXELS, decode_upload
from dgnet_jax.serving.uploads import MAX_BODY_BYTES, MAX_IMAGES

JsonObject = dict[str, Any]

NUM_FRAMES = 8  # of an interpolation: one batch if the batch size is at least that
THUMBNAIL_SIZE = 256  # pixels, the longer side of a gallery image as it is shown


class ModelService:
  """Applies a model to images, and searches a gallery."""

  def __init__(self, model: Model, gallery: ImageList | Gallery | None) -> None:
    """Embeds the gallery, unless it is from `open_gallery`.

    Args:
      model: the loaded model; no batch is larger than its batch size, rounded down to a power of 2.
      gallery: images to search; None disables the search.
    """
    # By the number of images in a call: few images do not pay for a whole batch.
    self._models = {2**i: model.with_batch_size(2**i) for i in range(model.batch_size.bit_length())}
    self._model = model
    self._gallery = model.gallery(gallery) if isinstance(gallery, ImageList) else gallery
    if self._gallery is not None:
      model.check_gallery(self._gallery)
    self._shares = piece_shares(model.config)
    paths = [] if gallery is None else [os.path.abspath(path) for path in gallery.paths]
    self._root = os.path.commonpath([os.path.dirname(path) for path in paths]) if paths else ''

  @property
  def functions(self) -> dict[str, BatchFunction]:
    """What the networks compute, by name: `embed` images, `swap` and `trace` pairs, `interpolate` between pairs."""
    sizes = list(self._models)
    return {
      'embed': BatchFunction(self.embed, sizes),
      'swap': BatchFunction(self.swap, sizes),
      'interpolate': BatchFunction(self.interpolate, [1]),
      'trace': BatchFunction(self.trace, [1]),
    }

  def read(self, content: bytes, name: str) -> np.ndarray:
    """Decodes an uploaded file as `decode_upload` does, at the size of the networks' input: u8[H, W, 3]."""
    pixels: np.ndarray = self._model.pixels(decode_upload(content, name))[0]
    return pixels

  def warm_up(self) -> None:
    """Compiles the networks, so that the first client does not wait for it."""
    gray = np.full((*self._model.image_size_hw, 3), 128, np.uint8)
    for size in self._models:
      self.embed([gray] * size)
      if self._model.config.joint:
        self.swap([(gray, gray)] * size)
    if self._model.config.joint:
      self.interpolate([(change, gray, gray) for change in ('clothes', 'pose')])
    if self._fetches:
      self.trace([(gray, gray)])

  def health(self) -> JsonObject:
    """Describes the model, the number of gallery images (None without a gallery) and the limits."""
    model = self._model
    return {
      'status': 'ok',
      'model': {
        'run': model.workdir.name,
        'step': model.step,
        'identities': model.num_identities,
        'image_size': list(model.image_size_hw),
        'design': model.config.generator.design if model.config.joint else None,
      },
      'gallery': len(self._gallery.paths) if self._gallery else None,
      'limits': {
        'image_bytes': MAX_BYTES,
        'image_pixels': MAX_PIXELS,
        'images': MAX_IMAGES,
        'request_bytes': MAX_BODY_BYTES,
      },
    }

  def embed(self, images: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    """Computes a feature vector f32[D] of each image u8[H, W, 3], for `embeddings` and `rank`.

    As `swap`, it takes as many as `functions` says.
    """
    return list(self._models[len(images)].gallery(list(images)).features)

  def embeddings(self, features: Sequence[np.ndarray]) -> np.ndarray:
    """Returns f32[N, D] of length 1, as `Model.embed`; dot products are scores."""
    return scored(np.stack(features), self._shares)

  def check_generator(self) -> None:
    """Raises Refused if the run has no generator."""
    if not self._model.config.joint:
      raise Refused('not_found', 'this run was trained with joint=False: it has no generator to generate images with')

  def check_fetching(self) -> None:
    """Raises Refused if the run has no generator that fetches pixels."""
    self.check_generator()
    if not self._fetches:
      design = self._model.config.generator.design
      raise Refused(
        'not_found', f'only a generator of design correspondence fetches pixels; this run has generator.design={design}'
      )

  def check_gallery(self) -> Gallery:
    """Returns the gallery; raises Refused if there is none."""
    if self._gallery is None:
      raise Refused('not_found', 'there is no gallery to search: start the server with --gallery FOLDER')
    return self._gallery

  def swap(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Sequence[np.ndarray]:
    """Generates u8[H, W, 3] from each pair of images u8[H, W, 3], which give the structure and the appearance."""
    model = self._models[len(pairs)]
    structures, appearances = ([pair[i] for pair in pairs] for i in (0, 1))
    return list(model.decode(model.structure_code(structures), model.appearance_code(appearances)))

  def interpolate(self, requests: Sequence[tuple[str, np.ndarray, np.ndarray]]) -> Sequence[np.ndarray]:
    """Interpolates from the first person to the first person in the second's clothes, or pose.

    Args:
      requests: clothes or pose, and two images u8[H, W, 3].

    Returns:
      u8[NUM_FRAMES, H, W, 3] for each request.
    """
    model = self._models[max(size for size in self._models if size <= NUM_FRAMES)]
    results = []
    for change, first, second in requests:
      people = [first, second]
      structures, appearances = (people[:1], people) if change == 'clothes' else (people, people[:1])
      results.append(model.interpolate(structure_from=structures, appearance_from=appearances, steps=NUM_FRAMES))
    return results

  def trace(self, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Sequence[dict[str, np.ndarray]]:
    """Says where the pixels of a swap come from; takes one pair at a time.

    Args:
      pairs: as for `swap`.

    Returns:
      place: f32[H, W, 2], (row, column) in the appearance image, in pixels. Images u8[H, W, 3]: places, in which place
      is a colour; fetched, what is there in the light of the structure image; trust, the share of what was fetched in
      what was generated; mask, the part of the structure image that was generated.
    """
    traces = []
    for structure, appearance in pairs:
      found = self._models[1].trace(structure_from=[structure], appearance_from=[appearance])
      gray = {name: np.round(255 * found[name][0]).astype(np.uint8) for name in ('trust', 'mask')}
      traces.append(
        {'place': found['place'][0], 'places': place_colours(found['place'])[0], 'fetched': found['fetched'][0]}
        | {name: np.repeat(values[..., None], 3, axis=-1) for name, values in gray.items()}
      )
    return traces

  def rank(self, features: Sequence[np.ndarray], count: int) -> list[list[JsonObject]]:
    """Finds the gallery images most similar to each query, the most similar first.

    A match is {score, path, index, same_person}; the last is None if the run was not calibrated.

    Args:
      features: of the queries, from `embed`.
      count: matches of each query.

    Raises:
      Refused: there is no gallery.
    """
    queries = Gallery(('',) * len(features), np.stack(features))
    rankings = self._model.rank(queries, self.check_gallery(), count=count)
    return [[self._described(match) for match in matches] for matches in rankings]

  def thumbnail(self, index: int) -> np.ndarray:
    """Reads a gallery image, scaled down to `THUMBNAIL_SIZE`: u8[h, w, 3].

    Raises:
      Refused: there is no such image, or it cannot be read any more.
    """
    paths = self.check_gallery().paths
    if index >= len(paths):
      raise Refused('not_found', f'the gallery has no image {index}: it has {len(paths)}, counted from 0')
    try:
      image = decode_rgb(read_encoded(paths[index]), os.path.basename(paths[index]))
    except UserError as error:
      raise Refused('not_found', str(error)) from error
    image.thumbnail((THUMBNAIL_SIZE, THUMBNAIL_SIZE))
    return np.asarray(image)

  @property
  def _fetches(self) -> bool:
    config = self._model.config
    return config.joint and config.generator.design == 'correspondence'

  def _described(self, match: Match) -> JsonObject:
    """Describes a match, with its path within the gallery: clients do not see the folders above it."""
    path = printable(os.path.relpath(os.path.abspath(match.path), self._root))
    return {'score': match.score, 'path': path, 'index': match.index, 'same_person': match.same_person}
