"""Storage that is full, cannot be written to or loses files: one clear error, and the same command goes on later."""

import contextlib
import re
import shutil
import subprocess
import threading
import time

import pytest

from tests.exhaustive import EXHAUSTIVE
from tests.soak.contents import contents, differences
from tests.soak.jobs import EXPORT, GENERATE, TRAIN
from tests.soak.process import run

pytestmark = pytest.mark.long

ENOUGH_KIB = 64 * 1024


@pytest.fixture
def dgnet(soak):
  """Runs a command in a folder."""
  return lambda arguments, folder: run(arguments, folder, soak.environment, kill=None, clock=None)


def mount(folder, *options):
  result = subprocess.run(['mount', '-t', 'tmpfs', '-o', *options, 'tmpfs', folder], capture_output=True, text=True)
  if result.returncode:
    pytest.skip(f'needs a file system in memory, which only root can mount: {result.stderr.strip()}')


@contextlib.contextmanager
def small_disk(folder, kib):
  """Makes a folder a file system of so many KiB."""
  folder.mkdir()
  mount(folder, f'size={kib}k')
  try:
    yield folder
  finally:
    subprocess.run(['umount', folder], check=True)


def fill(job, folder, soak, scratch):
  """Puts what a job starts from into an existing folder."""
  job.prepare(scratch, soak.finished_run)
  shutil.copytree(scratch, folder, dirs_exist_ok=True)


def error_of(ended):
  """The message of a command that must have failed with one."""
  assert ended.status in (1, 2), ended.output
  assert 'Traceback' not in ended.output
  errors = [line for line in ended.output.splitlines() if re.match('(dgnet [a-z]+: )?error: ', line)]
  assert len(errors) == 1, ended.output
  return errors[0]


# Steps so small that the disk is full in several parts of the job.
@pytest.mark.parametrize(
  ('job', 'growth_kib', 'least'),
  [
    (EXPORT, 100, 1),
    *(pytest.param(*case, marks=EXHAUSTIVE) for case in [(TRAIN, 900, 3), (GENERATE, 80, 2)]),
  ],
)
def test_full_disk_costs_nothing_but_time(soak, dgnet, tmp_path, job, growth_kib, least):
  expected, folder, errors = soak.unbroken(job)[1], tmp_path / 'disk', []
  with small_disk(folder, ENOUGH_KIB):
    fill(job, folder, soak, tmp_path / 'prepared')
    kib = shutil.disk_usage(folder).used // 1024
    while True:
      kib += growth_kib
      mount(folder, f'remount,size={kib}k')
      ended = dgnet(job.arguments(folder), folder)
      if ended.status == 0:
        break
      errors.append(error_of(ended))
    assert len(errors) >= least and all('No space left' in error for error in errors), errors
    assert differences(expected, contents(folder)) == []


@pytest.mark.parametrize('command', ['train', 'generate', 'evaluate', 'export'])
def test_read_only_folder_is_one_error(soak, dgnet, tmp_path, command):
  soak.unbroken(TRAIN)
  folder = tmp_path / 'disk'
  with small_disk(folder, ENOUGH_KIB):
    shutil.copytree(soak.finished_run, folder, dirs_exist_ok=True)
    before = contents(folder)
    mount(folder, 'remount,ro')
    arguments = EXPORT.arguments(folder) if command == 'export' else [command, f'--workdir={folder}']
    error = error_of(dgnet(arguments, folder))
    assert str(folder) in error and 'Read-only file system' in error
    assert contents(folder) == before


def vanish(folder, line, images):
  """Renames a folder of images as soon as a line has been printed; returns the thread that does it."""

  def wait():
    printed = folder.with_name(f'{folder.name}.output')
    while not (printed.exists() and line in printed.read_text()):
      time.sleep(0.005)
    images.rename(images.with_name('lost'))

  thread = threading.Thread(target=wait, daemon=True)
  thread.start()
  return thread


@pytest.mark.parametrize(
  ('line', 'split'),
  [
    pytest.param('parameters: ', 'bounding_box_train', marks=EXHAUSTIVE),
    pytest.param('teacher: ', 'bounding_box_train', marks=EXHAUSTIVE),
    pytest.param('evaluating', 'bounding_box_test', marks=EXHAUSTIVE),
  ],
)
def test_images_that_vanish_are_named_and_the_run_goes_on_when_they_are_back(soak, dgnet, tmp_path, line, split):
  expected, folder = soak.unbroken(TRAIN)[1], tmp_path / 'run'
  TRAIN.prepare(folder, soak.finished_run)
  arguments = [*TRAIN.arguments(folder), '--config.data.loader=threads']
  images = folder / 'synthetic_data' / split
  thread = vanish(folder, line, images)
  error = error_of(dgnet(arguments, folder))
  thread.join()
  assert str(images) in error and 'No such file' in error
  images.with_name('lost').rename(images)
  ended = dgnet(TRAIN.arguments(folder), folder)  # another loader reads the same batches
  assert ended.status == 0, ended.output
  found = contents(folder) | {'config.json': expected['config.json']}
  assert differences(expected, found) == []
