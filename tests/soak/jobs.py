"""The jobs that the soak test interrupts, and the stages in which it does."""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import re
import shutil

from dgnet_jax.config.loading import save_config
from tests.soak.process import AfterLine, AtChange, Ended
from tests.tiny_run import frozen, tiny_config

NUM_STEPS, BORDER = 12, 6  # all terms are active from the border on
SET = 'generated/step_[0-9]+_images_seed0/'


@dataclasses.dataclass(frozen=True)
class Stage:
  """A part of a job.

  Attributes:
    name: for the table.
    changes: matches the files that it changes; None if the stage is a span of time.
    since: matches the line of output at which the span starts; '' is the start of the process.
    until: matches the line at which the span ends; '' is the end of the process.
  """

  name: str
  changes: str | None = None
  since: str = ''
  until: str = ''

  def moment(self, unbroken: Ended, draw: float, later: Sequence['Stage']) -> AtChange | AfterLine:
    """Returns a moment in the stage.

    Args:
      unbroken: how a run without a kill went.
      draw: in [0, 1), says which moment.
      later: the stages after this one, whose changes of files count if a continued run has too few left of its own.
    """
    if self.changes is not None:
      # Cubed, because a continued run repeats only a part of the changes.
      count = sum(re.search(self.changes, path) is not None for path in unbroken.changes)
      assert count, f'{self.name}: nothing changes {self.changes}'
      patterns = [self.changes, *(stage.changes for stage in later if stage.changes is not None)]
      return AtChange('|'.join(patterns), 1 + int(count * draw**3))
    start = _time_of(unbroken, self.since) if self.since else 0.0
    end = _time_of(unbroken, self.until) if self.until else unbroken.lines[-1][0] + 1
    return AfterLine(self.since, draw * (end - start))


def _time_of(unbroken: Ended, pattern: str) -> float:
  times = [seconds for seconds, line in unbroken.lines if re.match(pattern, line)]
  assert times, f'no line matches {pattern}: {unbroken.output}'
  return times[0]


@dataclasses.dataclass(frozen=True)
class Job:
  """A command to interrupt.

  Attributes:
    name: of the command.
    stages: in the order in which they are reached.
    prepare: makes the job's folder, given the folder of a finished training run.
    arguments: maps the job's folder to the arguments of `dgnet`.
    result: maps the job's folder to the folder to compare.
    is_done: True if an exit status other than 0 is right, because the job has done all before it was killed.
  """

  name: str
  stages: Sequence[Stage]
  prepare: Callable[[pathlib.Path, pathlib.Path], None]
  arguments: Callable[[pathlib.Path], list[str]]
  result: Callable[[pathlib.Path], pathlib.Path] = lambda folder: folder
  is_done: Callable[[Ended], bool] = lambda ended: False


def new_run(folder: pathlib.Path, _: pathlib.Path) -> None:
  """Makes the work folder of a run of tiny networks: a teacher, both phases, image grids, three checkpoints."""
  config = tiny_config()
  config.num_steps = NUM_STEPS
  config.teacher.num_epochs = 3
  config.log.update(progress_every_steps=1, checkpoint_every_steps=4, images_every_steps=5)
  config.generation.num_images = 60
  for ramp in config.ramps.values():
    ramp.update(start_step=BORDER - 2, per_step=0.5)
  folder.mkdir(parents=True)
  save_config(frozen(config), folder / 'config.json')


def _trained(folder: pathlib.Path, finished: pathlib.Path) -> None:
  folder.mkdir()
  for part in ('checkpoints', 'synthetic_data'):
    shutil.copytree(finished / part, folder / part)
  shutil.copy(finished / 'config.json', folder)


TRAIN = Job(
  'train',
  (
    Stage('start', until='mode train'),
    Stage('rendering the data', changes='^[.]?synthetic_data'),
    Stage('teacher', since='teacher: ', until='synthetic: '),
    Stage("teacher's files", changes='^teacher/'),
    Stage('first phase', since='parameters: ', until=f'{BORDER}/{NUM_STEPS} '),
    Stage('checkpoints', changes='^checkpoints/'),
    Stage('records and metrics', changes='^(metrics|tensorboard|[^/]*[.]json|[.][0-9a-f]{8}[.]part)'),
    Stage('image grid', changes='^images/'),
    Stage('second phase', since=f'{BORDER}/{NUM_STEPS} |resuming from step', until=f'{NUM_STEPS} steps done'),
    Stage('evaluation', since='evaluating step', until='results and images'),
    Stage("evaluation's files", changes='^evaluation/'),
    Stage('image sheets', changes='^generated/'),
  ),
  new_run,
  lambda folder: ['train', f'--workdir={folder}'],
)
GENERATE = Job(
  'generate',
  (
    Stage('start', until='data: '),
    Stage('images of a set', changes=f'^{SET}images/'),
    Stage('generating a set', since='60 images in', until='60 images and'),
    Stage('plan and manifest', changes=f'^{SET}([^/]*[.]part|plan.json|manifest.csv)'),
  ),
  _trained,
  lambda folder: ['generate', f'--workdir={folder}', '--config.generation.plan=images'],
)
EXPORT = Job(
  'export',
  (
    Stage('start', until='writing'),
    Stage('exported files', changes='^exported|^[^/]*[.]part'),
    Stage('exporting', since='writing', until='step '),
  ),
  _trained,
  lambda folder: ['export', str(folder), f'--out={folder / "exported"}', '--platforms=cpu'],
  # The same command again says that there is nothing to do.
  is_done=lambda ended: ended.status == 2 and 'exported exists already' in ended.output,
)
JOBS = (TRAIN, GENERATE, EXPORT)
