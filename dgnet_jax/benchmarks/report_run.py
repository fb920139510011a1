"""The run of the report on an accelerator: the setting `large` of configs/ablation.py, trained for a given time.

Its config is made without ml_collections. One process trains, another evaluates and generates, so that what was
trained is judged even if the first one crashes or has to be killed.
"""

from collections.abc import Iterator, Sequence
import contextlib
import dataclasses
import json
import logging
import pathlib
import re
import signal
import statistics
import time
from typing import Any

from dgnet_jax.benchmarks.report_cases import CORRESPONDENCE, PRECISIONS, TINY
from dgnet_jax.benchmarks.report_text import IMAGES
from dgnet_jax.config.loading import SAVED_CONFIG, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import with_fields
from dgnet_jax.errors import Interrupted

FOLDER = 'run'  # work folder of the run, in the folder of the report
RAMPS = ('structure_code', 'appearance_code', 'cycle', 'teaching')

# Where the setting `large`, with the generator that fetches pixels, differs from the defaults. A test compares.
LARGE = {
  **CORRESPONDENCE,
  'data.layout': 'synthetic',
  'data.loader': 'memory',
  'data.synthetic.num_train_identities': 512,
  'data.synthetic.num_test_identities': 256,
  'data.synthetic.num_distractors': 512,
  'data.synthetic.num_junk': 256,
  'data.synthetic.image_size_hw': (256, 128),
  'data.synthetic.cameras_per_identity': (3, 3),
  'num_steps': 10_000,
  'reid.pretrained': 'teacher',
  'teacher.last_stride': 1,
  'teacher.backbone_multiplier': 1.0,
  'teacher.random_erasing_prob': 0.5,
  'teaching.label_style': 'donors',
  'optimizer.decay_steps': 6_000,
  **{f'ramps.{name}.start_step': 3_000 for name in RAMPS},
  **{f'ramps.{name}.per_step': 0.005 for name in RAMPS},
  'ramps.teaching.maximum': 1.0,
  'evaluation.num_ground_truth_pairs': 2_048,
  'log.images_every_steps': 1_000,
  'log.checkpoint_every_steps': 1_000,
}
# What a run of a few minutes needs in its place.
LIMITED = {
  # A quarter of the images: all are rendered by one core, before anything is trained.
  'data.synthetic.num_train_identities': 128,
  'data.synthetic.num_test_identities': 64,
  'data.synthetic.num_distractors': 128,
  'data.synthetic.num_junk': 64,
  # A third of the epochs, of fewer images: 1,280 steps, not 15,360.
  'teacher.num_epochs': 20,
  'teacher.warmup_epochs': 2,
  'teacher.decay_epoch': 14,
  # All terms count from the first step, and grow for 1,000 steps: a second phase would be a second program, whose
  # compilation takes minutes and cannot be stopped when time is up.
  **{f'ramps.{name}.{field}': value for name in RAMPS for field, value in (('start_step', 0), ('per_step', 0.001))},
  **{f'ramps.{name}.initial': 0.001 for name in RAMPS if name != 'cycle'},
  'evaluation.num_ground_truth_pairs': 256,  # two images are rendered for each
  'log.images_every_steps': 10_000,  # the first image grid would compile another program; sheets are made at the end
  # A process that has to be killed loses fewer steps; older checkpoints are of no use.
  'log.checkpoint_every_steps': 250,
  'log.keep_checkpoints': 1,
}
# To try the report on a CPU: everything is done after 30 steps.
TINY_RUN = TINY | {
  'num_steps': 30,
  'batch_size': 2,
  'data.synthetic.num_train_identities': 4,
  'data.synthetic.num_test_identities': 5,
  'data.synthetic.images_per_identity': 4,
  'data.synthetic.num_distractors': 2,
  'data.synthetic.num_junk': 2,
  'correspondence.num_res_blocks': 1,
  'correspondence.style_width': 4,
  'teacher.batch_size': 8,
  'teacher.num_epochs': 15,
  'evaluation.batch_size': 16,
  'evaluation.num_swaps': 3,
  'evaluation.num_ranked_queries': 3,
  'evaluation.num_ground_truth_pairs': 10,
}


@dataclasses.dataclass(frozen=True)
class TimedRun:
  """A run as the report trains it.

  Attributes:
    seconds: time to train, from the start of the process on.
    precision: one of `PRECISIONS`.
    evaluate_seconds: time to generate and evaluate after it.
  """

  seconds: int
  precision: str = 'bfloat16'
  evaluate_seconds: int = 300


def run_config(run: TimedRun, *, tiny: bool = False) -> Config:
  """Returns the config of a run.

  Args:
    run: the run.
    tiny: small networks, few images and few steps, to try the report on a CPU.
  """
  dtype = {'compute_dtype': PRECISIONS[run.precision][1]}
  return with_fields(Config(), LARGE | LIMITED | dtype | (TINY_RUN if tiny else {}))


class StepTimes(logging.Handler):
  """When a job's first step began and its progress lines were logged, each of which waits for the device."""

  def __init__(self) -> None:
    super().__init__()
    self._first: tuple[float, int] | None = None  # time, and steps done before
    self._lines: list[tuple[float, int]] = []  # time, and steps done
    self._num_steps = 0

  def emit(self, record: logging.LogRecord) -> None:
    message = record.getMessage()
    if done := re.match(r'(?:teacher )?(\d+)/(\d+) ', message):
      self._lines.append((record.created, int(done[1])))
      self._num_steps = int(done[2])
    elif compiling := re.match(r'step (\d+): compiling for ', message):
      self._first = self._first or (record.created, int(compiling[1]))

  def summary(self, images: int) -> dict[str, Any]:
    """Returns what is known.

    Args:
      images: seen by a step.

    Returns:
      For JSON: steps done, num_steps, step_seconds (median of the intervals between progress lines) and
      images_per_second, and first_step_seconds, with its compilation; None if too few lines were logged.
    """
    if not self._lines:
      return {
        'steps': 0,
        'num_steps': None,
        'step_seconds': None,
        'images_per_second': None,
        'first_step_seconds': None,
      }
    pairs = zip(self._lines, self._lines[1:], strict=False)
    intervals = [(after - before) / (done - earlier) for (before, earlier), (after, done) in pairs]
    seconds = statistics.median(intervals) if intervals else None
    first = None
    if self._first is not None and seconds is not None:
      (began, before), (logged, done) = self._first, self._lines[0]
      first = logged - began - (done - before - 1) * seconds
    return {
      'steps': self._lines[-1][1],
      'num_steps': self._num_steps,
      'step_seconds': seconds,
      'images_per_second': images / seconds if seconds else None,
      'first_step_seconds': first,
    }


@contextlib.contextmanager
def _stage(name: str, images: int = 0, stopping: Sequence[int] = ()) -> Iterator[dict[str, Any]]:
  """Measures a stage, and prints it as a line of JSON, even if it does not end well.

  Args:
    name: of the stage.
    images: seen by a step, if it is a training job.
    stopping: has entries after the process was asked to stop.

  Yields:
    More to print: fields for `results`.

  Raises:
    Interrupted: at the end of the stage, if the process was asked to stop.
  """
  start, times, more = time.monotonic(), StepTimes(), dict[str, Any]()
  training = logging.getLogger('dgnet_jax.training')
  training.addHandler(times)
  message: dict[str, Any] = {'stage': name}
  try:
    yield more
    if stopping:
      raise Interrupted(f'stopped after stage {name}')
  except Interrupted:
    message['stopped'] = True
    raise
  finally:
    training.removeHandler(times)
    message['seconds'] = time.monotonic() - start
    message |= {'steps': times.summary(images)} if images else {}
    print(json.dumps(message | {'results': more}), flush=True)


def train_run(run: TimedRun, out: pathlib.Path, *, tiny: bool) -> None:
  """Renders the data, and trains teacher and DG-Net in OUT/run until SIGTERM, after which their state is saved.

  A run that was stopped is resumed. Prints a line of JSON for each stage.
  """
  stopping: list[int] = []
  # The training loops handle the signal themselves. It is sent again and again, so that they also see one that came
  # before they began. An exception from here could end in the middle of an import.
  signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
  with contextlib.suppress(Interrupted):
    with _stage('start', stopping=stopping) as results:
      results |= _start(run)
      from dgnet_jax.reports.validation import make_measure
      from dgnet_jax.training.loop import train
      from dgnet_jax.training.teacher_loop import train_teacher
      from dgnet_jax.training.training_data import open_training_data

      config, folder = run_config(run, tiny=tiny), out / FOLDER
      save_config(config, folder / SAVED_CONFIG)
    with _stage('data', stopping=stopping):
      index = open_training_data(config, folder)
    with _stage('teacher', config.teacher.batch_size, stopping):
      train_teacher(config, index, folder)
    with _stage('training', 4 * config.batch_size, stopping):
      train(config, folder, make_measure=make_measure)
  signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the interpreter, which ends now, would restore the default


def evaluate_run(run: TimedRun, out: pathlib.Path, *, tiny: bool) -> None:
  """Generates image sheets with the newest checkpoint of OUT/run, and evaluates it.

  Prints a line of JSON for each of both.
  """
  from dgnet_jax.generation.generate import generate
  from dgnet_jax.reports.evaluation import evaluate

  _start(run)
  config, folder = run_config(run, tiny=tiny), out / FOLDER
  with _stage('images') as results:  # first, because it takes less time
    sheets = sorted(generate(config, folder).glob('sheet_*.png'))
    results['sheets'] = [str(path.relative_to(out)) for path in sheets]
  with _stage('evaluation') as results:
    evaluation = evaluate(config, folder)
    results['step'] = evaluation['step']
    results['scores'] = {
      name: {measure: row[measure] for measure in ('rank_1', 'mAP')} for name, row in evaluation['single_query'].items()
    }
    results['image_quality'] = {kind: evaluation['images'][kind]['all'] for kind in IMAGES}
    results['ground_truth_sheet'] = str(pathlib.Path(FOLDER, 'evaluation', evaluation['files']['ground_truth']))


JOBS = {'train': train_run, 'evaluate': evaluate_run}


def _start(run: TimedRun) -> dict[str, Any]:
  """Sets the precision, and returns the device and JAX's version."""
  import jax

  jax.config.update('jax_default_matmul_precision', PRECISIONS[run.precision][0])  # type: ignore[no-untyped-call]
  return {'device': jax.devices()[0].device_kind, 'jax': jax.__version__}
