"""The re-id half of trained networks on arbitrary images: embeddings, rankings and galleries."""

from collections.abc import Iterator, Sequence
import functools
import os
import pathlib

import numpy as np
import PIL.Image

from dgnet_jax.config.schema import Config
from dgnet_jax.data.image_lists import ImageList, as_image_list, list_images
from dgnet_jax.data.lazy_images import ImageFiles, ImageSequence
from dgnet_jax.gallery.build import BuildOptions, build_gallery
from dgnet_jax.gallery.gallery import Gallery, Match
from dgnet_jax.gallery.photos import Paths
from dgnet_jax.gallery.ranking import check_search, rank_gallery
from dgnet_jax.gallery.store import Description, check_networks
from dgnet_jax.gallery.tracks import pool_tracks, track_members
from dgnet_jax.inference.calibration import threshold_of
from dgnet_jax.inference.embedding_parts import EmbeddingParts
from dgnet_jax.inference.predictor import Predictor
from dgnet_jax.inference.scoring import piece_shares, scored
from dgnet_jax.utils.paths import local_path

ImageLike = str | os.PathLike[str] | PIL.Image.Image | np.ndarray
Images = ImageLike | Sequence[ImageLike] | ImageList


class Embedder:
  """Embeds images, and searches galleries of them; `api.Model` adds generation, and says what the attributes are."""

  def __init__(self, predictor: Predictor, config: Config, workdir: pathlib.Path) -> None:
    """Wraps the networks of a run; `load` is the usual way to get a model."""
    self._predictor = predictor
    self.config = config
    self.workdir = workdir
    self.image_size_hw: tuple[int, int] = config.data.image_size_hw
    self.num_identities = predictor.num_identities
    self.step = predictor.step

  def __repr__(self) -> str:
    height, width = self.image_size_hw
    return f'<DG-Net, {self.num_identities} identities, step {self.step}, images {height}x{width}, {self.workdir}>'

  def embed(self, images: Images, *, alpha: float | None = None) -> np.ndarray:
    """Embeds images for re-identification. The dot product of two embeddings is their score in `rank`.

    Args:
      images: one or more images.
      alpha: as for `rank`.

    Returns:
      f32[N, D] of length 1, also for a single image: the primary half, then the fine-grained half, each scaled by the
      root of its share in the score, 1 / (1 + alpha) and alpha / (1 + alpha).

    Raises:
      UserError: alpha is not allowed, or some images cannot be read. Every method that takes images raises the latter.
    """
    shares = piece_shares(self.config, alpha)
    return scored(self._predictor.embed(self._resized(as_image_list(images))), shares)

  def embed_files(self, paths: Sequence[str], *, alpha: float | None = None, label: str = 'embedding') -> np.ndarray:
    """Like `embed`, for the images of a data set, which are not verified first; `label` names the work."""
    shares = piece_shares(self.config, alpha)
    return scored(self._predictor.embed(ImageFiles(paths, self.image_size_hw), label=label), shares)

  def embed_to(
    self, folder: pathlib.Path, images: Sequence[str], *, alpha: float | None = None, share: tuple[int, int] = (0, 1)
  ) -> None:
    """Embeds any number of image files into a folder of Parquet files, but for those that it has already.

    Args:
      folder: as in `EmbeddingParts`, whose errors are raised; pyarrow must be installed.
      images: paths of images and of folders.
      alpha: as for `rank`.
      share: as in `EmbeddingParts.write`.
    """
    paths = [str(path) for path in list_images(list(images))]
    parts = EmbeddingParts(folder, paths, piece_shares(self.config, alpha), self._predictor.digest())
    parts.write(lambda part: self.embed(part, alpha=alpha), share=share)

  def rank(
    self,
    queries: Images | Gallery,
    gallery: Images | Gallery,
    *,
    alpha: float | None = None,
    count: int | None = None,
    search: str = 'exact',
    rerank: bool = False,
    false_positive_rate: float | None = None,
  ) -> list[list[Match]]:
    """Ranks gallery images by their similarity to each query.

    Args:
      queries: images of people to find, or tracks of them, from `gallery`.
      gallery: images to search, or the result of `gallery` or `open_gallery`.
      alpha: weight of the fine-grained half of the embedding; 0 is the primary half alone, -1 the fine-grained half
        alone. The default is the run's `evaluation.alpha`. Only style AB has two halves.
      count: number of matches for each query; all by default.
      search: 'exact', or 'faiss': approximate, in a gallery on disk only, and with a count.
      rerank: order the 200 (or `count`, if that is more) best by k-reciprocal re-ranking, with the run's
        `evaluation.reranking`; the others follow.
      false_positive_rate: the calibrated rate whose threshold decides `Match.same_person`; by default the first one
        that `dgnet calibrate` was given.

    Returns:
      For each query its matches, the most similar first; ties keep the order of the gallery. Scores are similarities
      in the re-ranked order, too.

    Raises:
      UserError: an argument is not allowed, or the gallery is by other networks.
    """
    shares = piece_shares(self.config, alpha)
    check_search(search, count, gallery if isinstance(gallery, Gallery) else None)
    # Both are verified first.
    asked = queries if isinstance(queries, Gallery) else as_image_list(queries, 'queries')
    searched = gallery if isinstance(gallery, Gallery) else as_image_list(gallery, 'gallery')
    for side in (asked, searched):
      if isinstance(side, Gallery):
        self.check_gallery(side)
    threshold = self.threshold(alpha, false_positive_rate)
    num_images = asked.num_images if isinstance(asked, Gallery) else (1,) * len(asked)
    features = (
      asked.features
      if isinstance(asked, Gallery)
      else self._predictor.embed(self._resized(asked), label='embedding the queries')
    )
    return rank_gallery(
      features,
      searched if isinstance(searched, Gallery) else self.gallery(searched),
      shares=shares,
      count=count,
      search=search,
      reranking=self.config.evaluation.reranking if rerank else None,
      thresholds=[threshold if number == 1 else None for number in num_images],
    )

  def check_gallery(self, gallery: Gallery) -> None:
    """Raises UserError if a gallery from `open_gallery` was built by other networks."""
    if gallery.folder and gallery.description:
      check_networks(gallery.folder, gallery.description, self._description)

  def threshold(self, alpha: float | None = None, false_positive_rate: float | None = None) -> float | None:
    """Returns the lowest score of images of one person, as `dgnet calibrate` found it for this checkpoint and alpha.

    Args:
      alpha: as for `rank`.
      false_positive_rate: as for `rank`.

    Returns:
      The score; None if the run was not calibrated, or, with a warning, if it was at another checkpoint or alpha.

    Raises:
      UserError: the rate was not calibrated.
    """
    return threshold_of(self.workdir, self.config, lambda: self.networks_digest, alpha, false_positive_rate)

  def gallery(self, images: Images, *, tracks: bool = False) -> Gallery:
    """Embeds images once, so that `rank` can search them any number of times.

    Args:
      images: one or more images.
      tracks: the images of one folder are a track, which is one entry: the mean of their embeddings, in which each half
        is normalised again.
    """
    image_list = as_image_list(images, 'gallery')
    features = self._predictor.embed(self._resized(image_list), label='embedding the gallery')
    if not tracks:
      return Gallery(image_list.paths, features)
    members = track_members([os.path.dirname(os.path.abspath(path)) if path else None for path in image_list.paths])
    return Gallery(
      [image_list.paths[indices[0]] for indices in members],
      pool_tracks(features, members, self._description.num_pieces),
      num_images=[len(indices) for indices in members],
    )

  def store_gallery(self, folder: str | os.PathLike[str], images: Paths, options: BuildOptions | None = None) -> None:
    """Builds a gallery on disk for `open_gallery`, or brings it up to date; see `gallery.build.build_gallery`.

    Args:
      folder: of the gallery; pyarrow must be installed.
      images: one path or several, of images and of folders.
      options: patterns, tracks, and what to do about photos that are gone or bad.
    """

    def embed(paths: Sequence[str]) -> Iterator[np.ndarray]:
      return self._predictor.embed_batches(self._resized(ImageList(paths)))

    build_gallery(local_path(folder), images, embed, self._description, options or BuildOptions())

  @property
  def networks_digest(self) -> str:
    """SHA-256 of the parameters that embed: galleries and calibrations are of these."""
    return self._description.networks

  @functools.cached_property
  def _description(self) -> Description:
    """Describes the networks as a stored gallery does."""
    return Description(
      networks=self._predictor.embedder_digest(),
      step=self.step,
      run=str(self.workdir),
      image_size_hw=self.image_size_hw,
      size=self._predictor.embedding_size(self.image_size_hw),
      num_pieces=len(piece_shares(self.config)),
    )

  def pixels(self, images: Images) -> np.ndarray:
    """Returns the images at the size of the networks' input: u8[N, H, W, 3]."""
    return self._resized(as_image_list(images))[:]

  def _resized(self, images: ImageList) -> ImageSequence:
    return images.resized(self.image_size_hw)
