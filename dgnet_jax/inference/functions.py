"""What trained networks are used for: embeddings, swaps and reconstructions.

Pure functions of (parameters, normalised images) first, then the same over long sequences of pixels, in padded batches
of one size so that each is compiled once.
"""

from collections.abc import Callable, Iterator, Sequence
import functools
import logging
import time

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.data.lazy_images import Pixels
from dgnet_jax.models.build import Networks, TeacherNetwork
from dgnet_jax.pixels import denormalize, enlarge, normalize
from dgnet_jax.sharding import batch_sharding
from dgnet_jax.types import Array, Params
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)


PROGRESS_SECONDS = 10.0  # between progress lines


def _unit(x: Array) -> Array:
  """Vectors of length 1 along the last axis; a zero vector stays zero."""
  x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  length = jnp.linalg.norm(x, axis=-1, keepdims=True)
  return x / jnp.where(length > 0, length, 1)


def _with_mirror(image: Array) -> Array:
  """f[..., 2, H, W, 3]: each image and its horizontal mirror."""
  return jnp.stack([image, image[..., ::-1, :]], axis=-4)


def embedding(networks: Networks, params: Params, batch_stats: Params, image: Array) -> Array:
  """The re-id embedding [primary | fine-grained] of images, over both mirror views (release fact 41).

  In each view both halves are normalised; the views are added and the halves normalised again. In style normal there
  is the primary half alone, in style PCB one piece for each part (the release's evaluation crashes there).

  Args:
    networks: whose appearance encoder is used.
    params: of the appearance encoder.
    batch_stats: its running statistics.
    image: f[..., H, W, 3], normalised.

  Returns:
    f[..., heads * D]; each head's piece has length 1.
  """
  views = _with_mirror(image)
  output = networks.encode_appearance(params, batch_stats, views)
  pieces = output.primary_feature  # to be [..., view, head, D]
  if output.fine_feature is None:
    pieces = pieces.reshape(*views.shape[:-3], -1, pieces.shape[-1])
  else:
    pieces = jnp.stack([pieces, output.fine_feature], axis=-2)
  return _unit(_unit(pieces).sum(axis=-3)).reshape(*image.shape[:-3], -1)


def teacher_embedding(teacher: TeacherNetwork, params: Params, batch_stats: Params, image: Array) -> Array:
  """The teacher's embedding of images: one half, mirror views as in `embedding`.

  Args:
    teacher: the network.
    params: of the teacher.
    batch_stats: its running statistics.
    image: f[..., H, W, 3], normalised, at the generator's size.

  Returns:
    f[..., D] of length 1.
  """
  output, _ = teacher.apply(params, batch_stats, enlarge(_with_mirror(image), teacher.reid_scale))
  return _unit(_unit(output.feature).sum(axis=-2))


def swap(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  structure_from: Array,
  appearance_from: Array,
) -> Array:
  """Images of one person's clothes in another's pose and place.

  Args:
    networks: from `make_networks`.
    generator_params: of structure encoder and decoder.
    reid_params: of the appearance encoder.
    reid_stats: its running statistics.
    structure_from: f[..., H, W, 3], normalised.
    appearance_from: f[..., H, W, 3], normalised, same shape.

  Returns:
    f[..., H, W, 3], normalised but not clipped.
  """
  structure_code = networks.encode_structure(generator_params, structure_from)
  appearance_code = networks.encode_appearance(reid_params, reid_stats, appearance_from).code
  return networks.decode(generator_params, structure_code, appearance_code)


def reconstruct(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  image: Array,
  positive: Array,
) -> dict[str, Array]:
  """Everything that the generator is trained to make of pairs of images, at test time.

  Args:
    networks: from `make_networks`.
    generator_params: of structure encoder and decoder.
    reid_params: of the appearance encoder.
    reid_stats: its running statistics.
    image: f[B, 2, H, W, 3], normalised; axis 1 holds the two people of a pair.
    positive: f[B, 2, H, W, 3], other images of the same people.

  Returns:
    f[B, 2, H, W, 3] each, indexed by the structure donor: self_reconstruction, positive_reconstruction (the positive's
    appearance), cross (the other person's appearance), cycle_reconstruction (from the codes of the cross images).
  """
  encode_structure = functools.partial(networks.encode_structure, generator_params)
  decode = functools.partial(networks.decode, generator_params)

  def encode_appearance(x: Array) -> Array:
    return networks.encode_appearance(reid_params, reid_stats, x).code

  structure_code, appearance_code = encode_structure(image), encode_appearance(image)
  cross = decode(structure_code, appearance_code[:, ::-1])
  return {
    'self_reconstruction': decode(structure_code, appearance_code),
    'positive_reconstruction': decode(structure_code, encode_appearance(positive)),
    'cross': cross,
    'cycle_reconstruction': decode(encode_structure(cross), encode_appearance(cross)[:, ::-1]),
  }


@functools.partial(jax.jit, static_argnums=0)
def embed_batch(networks: Networks, params: Params, batch_stats: Params, pixels: Array) -> Array:
  """`embedding` of pixels u8[N, H, W, 3]."""
  return embedding(networks, params, batch_stats, normalize(pixels))


@functools.partial(jax.jit, static_argnums=0)
def embed_teacher_batch(teacher: TeacherNetwork, params: Params, batch_stats: Params, pixels: Array) -> Array:
  """`teacher_embedding` of pixels u8[N, H, W, 3]."""
  return teacher_embedding(teacher, params, batch_stats, normalize(pixels))


@functools.partial(jax.jit, static_argnums=0)
def _swap_batch(
  networks: Networks, generator: Params, reid: Params, stats: Params, structures: Array, appearances: Array
) -> Array:
  structures, appearances = normalize(structures), normalize(appearances)
  return swap(networks, generator, reid, stats, structure_from=structures, appearance_from=appearances)


def _padded(pixels: np.ndarray, batch_size: int) -> np.ndarray:
  """The images and as many black ones as are missing."""
  return np.concatenate([pixels, np.zeros((batch_size - len(pixels), *pixels.shape[1:]), pixels.dtype)])


def in_batches(
  function: Callable[..., Array], sources: Sequence[Pixels], batch_size: int, mesh: jax.sharding.Mesh | None, what: str
) -> Iterator[np.ndarray]:
  """Applies `function` to runs of the sources and yields its output without the padding.

  Every call has `batch_size` examples (rounded up to the devices), however few there are: one compilation for all. The
  next run is read while the last one computes.

  Args:
    function: of one array for each source.
    sources: of equal length.
    batch_size: images at a time.
    mesh: devices to spread a batch over; None leaves it to jax.
    what: said in that line.
  """
  total = len(sources[0])
  if any(len(source) != total for source in sources):
    raise ValueError(f'{what}: sources of different length, {[len(source) for source in sources]}')
  devices = mesh.size if mesh else 1
  batch_size = -(-batch_size // devices) * devices
  sharding = batch_sharding(mesh) if mesh else None
  progress, last_line = Progress(total, unit='images'), time.monotonic()
  pending: tuple[Array, int] | None = None
  for start in range(0, total, batch_size):
    runs = [source[slice(start, start + batch_size)] for source in sources]
    placed = [jax.device_put(_padded(run, batch_size), sharding) for run in runs]
    computing = function(*placed), len(runs[0])
    if pending:
      yield np.asarray(pending[0])[: pending[1]]
    pending = computing
    if time.monotonic() - last_line > PROGRESS_SECONDS:
      logger.info(f'{what}: {progress.line(start)}')
      last_line = time.monotonic()
  if pending:
    yield np.asarray(pending[0])[: pending[1]]


def embed(
  networks: Networks,
  params: Params,
  batch_stats: Params,
  images: Pixels,
  batch_size: int,
  *,
  mesh: jax.sharding.Mesh | None = None,
  what: str = 'embedding',
) -> np.ndarray:
  """`embedding` of any number of images, each counted once.

  Args:
    networks: from `make_networks`.
    params: of the appearance encoder; replicated over `mesh` if there is one.
    batch_stats: its running statistics.
    images: u8[N > 0, H, W, 3] or files.
    batch_size: images at a time.
    mesh: devices to spread a batch over; None leaves it to jax.
    what: said in that line.

  Returns:
    f32[N, 2 * D].
  """
  function = functools.partial(embed_batch, networks, params, batch_stats)
  return np.concatenate(list(in_batches(function, [images], batch_size, mesh, what)))


def embed_teacher(
  teacher: TeacherNetwork,
  params: Params,
  batch_stats: Params,
  images: Pixels,
  batch_size: int,
  *,
  mesh: jax.sharding.Mesh | None = None,
  what: str = 'embedding by the teacher',
) -> np.ndarray:
  """`teacher_embedding` of any number of images; arguments as of `embed`. Returns f32[N, D]."""
  function = functools.partial(embed_teacher_batch, teacher, params, batch_stats)
  return np.concatenate(list(in_batches(function, [images], batch_size, mesh, what)))


def swap_images(
  networks: Networks,
  generator_params: Params,
  reid_params: Params,
  reid_stats: Params,
  *,
  structures: Pixels,
  appearances: Pixels,
  batch_size: int,
  mesh: jax.sharding.Mesh | None = None,
  what: str = 'generating',
) -> Iterator[np.ndarray]:
  """`swap` of any number of pairs, as pixels.

  Args:
    networks: from `make_networks`.
    generator_params: of structure encoder and decoder; replicated over `mesh` if there is one.
    reid_params: of the appearance encoder, likewise.
    reid_stats: its running statistics, likewise.
    structures: u8[N, H, W, 3] or files.
    appearances: u8[N, H, W, 3] or files.
    batch_size: pairs at a time.
    mesh: devices to spread a batch over; None leaves it to jax.
    what: said in that line.

  Yields:
    u8[n, H, W, 3], in order, N in all.
  """
  function = functools.partial(_swap_batch, networks, generator_params, reid_params, reid_stats)
  for made in in_batches(function, [structures, appearances], batch_size, mesh, what):
    yield denormalize(made)
