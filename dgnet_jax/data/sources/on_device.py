"""All training images in the memory of every device: each batch is gathered there, and only indices travel."""

from collections.abc import Iterator, Mapping
import itertools
from typing import Any

import jax
from jax.sharding import Mesh, PartitionSpec
import numpy as np

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.data.index import Split
from dgnet_jax.data.sampling import PairSampler, SingleSampler
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.in_memory import decode_all
from dgnet_jax.errors import UserError
from dgnet_jax.sharding import DATA_AXIS, batch_sharding, device_put_global, make_mesh, place_rows, replicated
from dgnet_jax.types import PixelBatch


def _device_memory(device: jax.Device) -> float:
  """Returns the bytes that are left for JAX in a device's memory; infinity on CPU, which does not report it."""
  stats = device.memory_stats() or {}
  return float(stats.get('bytes_limit', 'inf')) - float(stats.get('bytes_in_use', 0))


def _check_memory(split: Split, image_size_hw: tuple[int, int], mesh: Mesh) -> None:
  """Raises UserError if a device of this process cannot hold the images."""
  height, width = image_size_hw
  needed, present = len(split) * height * width * 3, min(map(_device_memory, mesh.local_devices))
  if needed > present:
    raise UserError(
      f'{len(split)} images of {height}x{width} need {needed / 2**30:.1f} GiB on each device, and JAX has '
      f"{present / 2**30:.1f} GiB left there; the loaders 'memory', 'threads' and 'tfdata' (data.loader) keep only "
      'batches on devices'
    )


class DeviceSource(Source):
  """A source that holds every image on every device, and yields global arrays that are split over the devices.

  The gathering is a program of its own, so that the compiled step does not depend on the number of images.
  """

  def __init__(
    self, split: Split, data_config: DataConfig, sampler: PairSampler, single_sampler: SingleSampler
  ) -> None:
    """Decodes every image and moves them to all devices; the arguments are those of `Source`.

    Raises:
      UserError: images are unreadable, or the machine or a device has not enough memory.
    """
    super().__init__(split, data_config, sampler, single_sampler)
    mesh, image_size_hw = make_mesh(), data_config.image_size_hw
    _check_memory(split, image_size_hw, mesh)
    pixels = decode_all(split, data_config, place=f'on each of {mesh.size} device(s)')
    # Without short axes, which TPUs would pad.
    self._pixels = device_put_global(pixels.reshape(len(split), -1), replicated(mesh))
    self._sharding = batch_sharding(mesh)

    def gather(pixels: jax.Array, indices: dict[str, jax.Array]) -> dict[str, jax.Array]:
      """u8[N, H * W * 3] and i32[...] -> u8[..., H, W, 3]."""
      return {
        name: pixels.at[i].get(mode='promise_in_bounds').reshape(*i.shape, *image_size_hw, 3)
        for name, i in indices.items()
      }

    rows = PartitionSpec(DATA_AXIS)  # type: ignore[no-untyped-call]
    everything = PartitionSpec()  # type: ignore[no-untyped-call]
    local = jax.shard_map(gather, mesh=mesh, in_specs=(everything, rows), out_specs=rows)
    self._gather = jax.jit(local, out_shardings=self._sharding)

  def _take(self, draw: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Returns what a sampler drew, with images u8[..., H, W, 3] in place of their indices i64[...]."""
    rows: dict[str, Any] = {name: value.astype(np.int32) for name, value in draw.items()}
    indices = place_rows(rows, self._sharding)
    identity = indices.pop('identity')
    return {**self._gather(self._pixels, indices), 'identity': identity}

  def batches(self, start_step: int) -> Iterator[PixelBatch]:
    """See `Source`; also raises UserError for a batch that does not divide among the devices."""
    for step in itertools.count(start_step):
      yield PixelBatch(**self._take(self.sampler.batch(step)))

  def single_batches(self, start_step: int) -> Iterator[tuple[jax.Array, jax.Array]]:
    """See `Source`; also raises UserError for a batch that does not divide among the devices."""
    for step in itertools.count(start_step):
      taken = self._take(self.single_sampler.batch(step))
      yield taken['image'], taken['identity']
