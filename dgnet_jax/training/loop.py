"""The main job: DG-Net's training loop around the jitted step."""

from collections.abc import Callable, Iterator
import contextlib
import functools
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.data.prefetch import device_batches
from dgnet_jax.data.sources.base import Source
from dgnet_jax.data.sources.factory import make_source
from dgnet_jax.data.synthetic.ground_truth import with_true_cross
from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.inference.functions import reconstruct
from dgnet_jax.interop.pretrained import check_pretrained, load_backbone
from dgnet_jax.models.build import Networks, make_networks, make_teacher_network
from dgnet_jax.pixels import denormalize, normalize
from dgnet_jax.plots.sheets import training_grid
from dgnet_jax.sharding import make_mesh, put_everywhere, replicated
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.metrics import MetricWriter
from dgnet_jax.training.optimizers import make_optimizers
from dgnet_jax.training.preemption import stop_signals
from dgnet_jax.training.schedules import active_terms, learning_rates, loss_weights, phase_boundaries
from dgnet_jax.training.state import create_train_state
from dgnet_jax.training.step import Metrics, make_train_step
from dgnet_jax.training.teacher_loop import train_teacher
from dgnet_jax.types import PixelBatch, TrainState
from dgnet_jax.utils.progress import Progress

logger = logging.getLogger(__name__)

IMAGED_PAIRS = 8  # people on the image grids


class LossWatch:
  """Keeps the metrics of steps not yet looked at, so that the device never waits for the host.

  Reading them finds the exact step and term at which a loss stopped being finite.
  """

  def __init__(self, checkpoints: Checkpoints) -> None:
    self._checkpoints = checkpoints
    self._pending: list[tuple[int, Metrics]] = []

  def add(self, step: int, metrics: Metrics) -> None:
    self._pending.append((step, metrics))

  def read(self) -> dict[str, float]:
    """The mean of every term since the last call, over steps and streams.

    Raises:
      UserError: a term is not finite; names the step, the term and the last good checkpoint.
    """
    fetched = [(step, jax.device_get(metrics)) for step, metrics in self._pending]
    self._pending.clear()
    for step, metrics in fetched:
      broken = [name for name, value in metrics.items() if not np.all(np.isfinite(value))]
      if broken:
        last = self._checkpoints.latest_step()
        good = f'the last good checkpoint is step {last}' if last is not None else 'there is no checkpoint yet'
        raise UserError(
          f'step {step}: {", ".join(sorted(broken))} not finite; {good} in {self._checkpoints.folder}. '
          'Lower the learning rates (optimizer.*), or set compute_dtype to float32, and run the same command again.'
        )
    names = fetched[-1][1] if fetched else {}
    return {
      name: float(np.mean([np.mean(metrics[name]) for _, metrics in fetched if name in metrics])) for name in names
    }


def _announce(config: Config, index: DatasetIndex, networks: Networks, state: TrainState) -> None:
  """What is about to happen, in a few lines."""
  counts = {
    name: sum(x.size for x in jax.tree.leaves(getattr(state, name).params))
    for name in ('generator', 'discriminator', 'reid')
  }
  sizes = ', '.join(f'{name} {count / 1e6:.2f} M' for name, count in counts.items())
  height, width = networks.image_size_hw
  logger.info(
    f'{index.name}: {len(index.train.paths)} training images of {index.num_identities} people, {height}x{width}'
  )
  logger.info(f'parameters: {sizes}; {jax.device_count()} {jax.default_backend()} device(s)')
  if not config.joint:
    source = 'the rendered truth of cross images as well' if config.teaching.images == 'ground_truth' else 'real images'
    logger.info(f'joint is False: nothing is generated, the re-id network learns from {source}')
    return
  start = config.ramps.teaching.start_step
  if not config.ramps.teaching.initial:
    logger.info(f'teaching weight 0 until step {start + 2}: the teacher matters from then on')


def _check_kind(config: Config, checkpoints: Checkpoints) -> None:
  """A run without a generator does not become one with it on the way, nor the other way round."""
  joint = checkpoints.saved_config().get('joint', True)
  if joint != config.joint:
    raise UserError(
      f'{checkpoints.folder} is of a run with joint={joint}, which cannot go on with joint={config.joint}; '
      'name another --workdir'
    )


def _batches(config: Config, index: DatasetIndex, source: Source, start: int) -> Iterator[PixelBatch]:
  """What the steps from `start` on take."""
  batches = source.batches(start)
  if config.teaching.images != 'ground_truth':
    return batches

  def is_wanted(step: int) -> bool:
    return active_terms(config.ramps, step).teaching

  return with_true_cross(batches, source.sampler, config, index.root, index.train.paths, start, is_wanted)


class Images:
  """Grids of the same training pairs at intervals: original, reconstructions, cross images, cycle."""

  def __init__(self, networks: Networks, source: Source, writer: MetricWriter) -> None:
    batch = next(source.batches(0))
    count = min(IMAGED_PAIRS, len(batch.image))
    self._image = normalize(batch.image[:count])
    self._positive = normalize(batch.positive[:count])
    self._writer = writer
    self._reconstruct = jax.jit(functools.partial(reconstruct, networks))

  def write(self, step: int, state: TrainState) -> None:
    """Draws the grid and hands it to the metric writer."""
    made = self._reconstruct(
      state.generator.params,
      state.reid.params,
      state.reid.batch_stats,
      image=self._image,
      positive=self._positive,
    )
    rows = {'original': self._image, 'positive': self._positive} | dict(made)
    rows = {name: denormalize(np.asarray(image[:, 0])) for name, image in rows.items()}
    rows['appearance of cross'] = denormalize(self._image[:, 1])
    self._writer.write_images(step, {'pairs': training_grid(rows)})


def train(config: Config, workdir: str | pathlib.Path) -> TrainState:
  """Trains (or goes on training) DG-Net in `workdir`, the teacher first if there is none.

  Args:
    config: validated.
    workdir: gets `checkpoints/`, `metrics.jsonl`, TensorBoard files, `images/` and, by default, `teacher/`.

  Returns:
    The state after the last step.

  Raises:
    UserError: a loss is not finite, pretrained weights are missing or do not fit, or the run began with the other
      value of `joint`.
    Interrupted: SIGINT or SIGTERM came; the state is saved and the same command goes on from it.
  """
  workdir = pathlib.Path(workdir)
  check_pretrained(config, workdir)
  index = open_dataset(config, workdir, verify=True)
  teachers = train_teacher(config, index, workdir)
  mesh = make_mesh()
  networks = make_networks(config, index.num_identities)
  optimizers = make_optimizers(config.optimizer)
  checkpoints = Checkpoints(workdir / 'checkpoints', config.log.keep_checkpoints, config)
  with contextlib.closing(checkpoints), stop_signals() as stopped:
    fresh = checkpoints.latest_step() is None
    backbone = load_backbone(config, 'reid', teacher=teachers[0]) if fresh else None
    state = put_everywhere(create_train_state(networks, optimizers, config.seed, backbone), replicated(mesh))
    if not fresh:
      _check_kind(config, checkpoints)
      state = checkpoints.restore(state)
      logger.info(f'going on from step {int(state.step)} in {checkpoints.folder}')
    _announce(config, index, networks, state)
    step_fn = make_train_step(networks, make_teacher_network(config, index.num_identities), optimizers, config, mesh)
    source = make_source(index.train, config)
    writer = MetricWriter(workdir, resume_step=int(state.step))
    with contextlib.closing(writer):
      images = Images(networks, source, writer) if config.joint else None
      teachers = put_everywhere(teachers, replicated(mesh))
      batches = _batches(config, index, source, int(state.step))
      return _loop(config, mesh, step_fn, batches, state, teachers, checkpoints, writer, images, stopped)


def _loop(
  config: Config,
  mesh: jax.sharding.Mesh,
  step_fn: Callable[..., tuple[TrainState, Metrics]],
  host_batches: Iterator[PixelBatch],
  state: TrainState,
  teachers: Any,
  checkpoints: Checkpoints,
  writer: MetricWriter,
  images: Images | None,
  stopped: Callable[[], bool],
) -> TrainState:
  start, total = int(state.step), config.num_steps
  phases = set(phase_boundaries(config.ramps, config.num_steps))
  watch, progress = LossWatch(checkpoints), Progress(total, start)
  with contextlib.closing(device_batches(host_batches, mesh)) as batches:
    for step in range(start, total):
      if step in phases or step == start:
        logger.info(f'step {step}: compiling for {_describe(config, active_terms(config.ramps, step))}')
      state, metrics = step_fn(state, teachers, next(batches), active_terms(config.ramps, step))
      watch.add(step, metrics)
      done = step + 1
      if done % config.log.progress_every_steps == 0 or done == total:
        _report(config, done, watch.read(), progress, writer)
      if images and (done % config.log.images_every_steps == 0 or done == total):
        images.write(done, state)
      if stopped():
        watch.read()
        checkpoints.save(done, state, wait=True)
        raise Interrupted(
          f'stopped at step {done}; saved in {checkpoints.folder}. The same command goes on from there.'
        )
      if done % config.log.checkpoint_every_steps == 0 and done < total:
        watch.read()
        checkpoints.save(done, state)
  if start < total:
    checkpoints.save(total, state, wait=True)
  logger.info(f'{total} steps done; state in {checkpoints.folder}')
  return state


def _describe(config: Config, active: Any) -> str:
  if not config.joint:
    return 'both heads' if active.teaching else 'the primary head'
  ramped = [name for name in ('codes', 'cycle', 'teaching') if getattr(active, name)]
  return f'ramped terms {", ".join(ramped)}' if ramped else 'the warm-up (no ramped terms)'


def _report(config: Config, done: int, losses: dict[str, float], progress: Progress, writer: MetricWriter) -> None:
  """One progress line, and the numbers behind it to the metrics."""
  shown = {
    'total': 'total',
    'D': 'discriminator',
    'adv': 'adversarial',
    'self': 'self_reconstruction',
    'pos': 'positive_reconstruction',
    'cyc': 'cycle',
    'id': 'identity',
    'cross id': 'cross_identity',
    'teach': 'primary_teaching',
  }
  summary = ' '.join(f'{label} {losses[name]:.3f}' for label, name in shown.items() if name in losses)
  logger.info(progress.line(done, summary))
  step = jnp.asarray(done - 1)
  weights = loss_weights(config.weights, config.ramps, config.teaching, step)
  rates = learning_rates(config.optimizer, step)
  scalars = {f'loss/{name}': value for name, value in losses.items()}
  scalars |= {f'weight/{name}': float(value) for name, value in weights.after.items()}
  scalars |= {f'rate/{name}': float(value) for name, value in rates.items()}
  writer.write_scalars(done, scalars)
