"""Kills a job again and again, starts the same command until it ends, and compares with an unbroken run."""

from collections.abc import Iterator
import dataclasses
import pathlib
import random
import re
import shutil
import signal

from tests.soak.contents import Contents, contents, differences
from tests.soak.jobs import JOBS, TRAIN, Job
from tests.soak.process import Ended, Kill, environment, run

MOST_KILLS = 8  # of one run, which then goes on to its end
SIGTERM_SHARE = 1 / 3
SAVED = 130  # exit status after an interruption that saved the state
ENDS = {signal.SIGKILL: (-signal.SIGKILL,), signal.SIGTERM: (-signal.SIGTERM, SAVED)}


@dataclasses.dataclass(frozen=True)
class KillRecord:
  """A kill that hit, and what became of it.

  Attributes:
    job, stage, number: what was killed, and by which signal.
    status: the exit status.
    seconds_to_exit: from the signal to the end of the process.
    problem: what the output of this start or of the continuation shows, like a traceback; '' if nothing.
  """

  job: str
  stage: str
  number: signal.Signals
  status: int
  seconds_to_exit: float
  problem: str


@dataclasses.dataclass(frozen=True)
class RunRecord:
  """A run from its first start to its end.

  Attributes:
    job: its name.
    clock_jumps: whether the clock jumped.
    kills: in order.
    mismatches: files and arrays that differ from those of the unbroken run.
    failed: why the run has no result; '' if it has one.
  """

  job: str
  clock_jumps: bool
  kills: tuple[KillRecord, ...]
  mismatches: tuple[str, ...]
  failed: str = ''


class Soak:
  """Runs of jobs in a folder, and what they should have led to."""

  def __init__(self, folder: pathlib.Path, cache: pathlib.Path) -> None:
    """Args:
    folder: an existing folder for runs.
    cache: a folder for compiled programs.
    """
    self._folder = folder
    self.environment = environment(cache)
    self._unbroken: dict[str, tuple[Ended, Contents]] = {}

  @property
  def finished_run(self) -> pathlib.Path:
    """The work folder of the unbroken training run."""
    return self._folder / 'unbroken_train'

  def unbroken(self, job: Job) -> tuple[Ended, Contents]:
    """Runs a job without a kill, once; a second time for the times when all programs are compiled."""
    if job.name not in self._unbroken:
      if job is not TRAIN:
        self.unbroken(TRAIN)
      results = []
      for name in (f'unbroken_{job.name}', f'repeated_{job.name}'):
        folder = self._folder / name
        job.prepare(folder, self.finished_run)
        ended = run(job.arguments(folder), folder, self.environment, kill=None, clock=None)
        if ended.status:
          raise RuntimeError(f'dgnet {job.name} without a kill: status {ended.status}\n{ended.output}')
        results.append(contents(folder))
      if different := differences(*results):
        raise RuntimeError(f'dgnet {job.name} gives different results twice: {", ".join(different)}')
      self._unbroken[job.name] = ended, results[0]
    return self._unbroken[job.name]

  def killed_run(self, job: Job, seed: int, most_kills: int = MOST_KILLS) -> RunRecord:
    """Runs a job that is killed at random moments, and compares its result; a correct folder is removed.

    Args:
      job: what to run.
      seed: of the stages, the moments, the signals and the jumps of the clock, which every second run has.
      most_kills: after so many kills, the run goes on to its end.
    """
    unbroken, expected = self.unbroken(job)
    draws, folder = random.Random(f'{job.name} {seed}'), self._folder / f'{job.name}_{seed}'
    clock = seed if seed % 2 else None
    job.prepare(folder, self.finished_run)
    kills: list[KillRecord] = []
    place = 0
    while True:
      stage, later = job.stages[place], job.stages[place + 1 :]
      number = signal.SIGTERM if draws.random() < SIGTERM_SHARE else signal.SIGKILL
      kill = Kill(stage.moment(unbroken, draws.random(), later), number) if len(kills) < most_kills else None
      ended = run(job.arguments(folder), folder, self.environment, kill=kill, clock=clock)
      problem = _problem(ended)
      if problem and kills:
        kills[-1] = dataclasses.replace(kills[-1], problem=kills[-1].problem or problem)
      if ended.seconds_to_exit is not None and ended.status in ENDS[number]:
        place = _place(job, place, ended)
        kills.append(KillRecord(job.name, job.stages[place].name, number, ended.status, ended.seconds_to_exit, problem))
      elif ended.status == 0 or job.is_done(ended):
        break
      else:
        failed = f'status {ended.status}: {ended.output[-2000:]}'
        return RunRecord(job.name, clock is not None, tuple(kills), (), failed)
      place = min(place + draws.choice((1, 1, 1, 2)), len(job.stages) - 1)
    mismatches = tuple(differences(expected, contents(folder)))
    if not mismatches:
      shutil.rmtree(folder)
    return RunRecord(job.name, clock is not None, tuple(kills), mismatches)

  def runs(self, seed: int) -> Iterator[RunRecord]:
    """Yields killed runs for ever; most of them train, which has most stages."""
    while True:
      for name in ('train', 'train', 'generate', 'train', 'export'):
        yield self.killed_run(next(job for job in JOBS if job.name == name), seed)
        seed += 1


def _place(job: Job, planned: int, ended: Ended) -> int:
  """Returns the place of the stage in which a process was killed: the planned one, or a later one."""
  places = range(planned, len(job.stages))
  hit = (place for place in places if ended.change and re.search(job.stages[place].changes or '(?!)', ended.change))
  return next(hit, planned)


def _problem(ended: Ended) -> str:
  """Returns the first line of output that no interruption may lead to."""
  wrong = re.compile(r'Traceback|.*damaged|warning: |error: (?!.*exists already)')
  return next((line for _, line in ended.lines if wrong.match(line)), '')
