"""Log records on the console and in a file, and the exit status of errors."""

import errno
import logging
import os
import subprocess
import sys
import types
import warnings

import jax
import pytest

from dgnet_jax.errors import Interrupted, UserError
from dgnet_jax.utils.console import exit_on_user_error, logged_to, show_log

logger = logging.getLogger('dgnet_jax.test')


def test_records_are_shown_once_on_stderr(capsys):
  show_log()
  show_log()
  logger.info('loss 3.5')
  logger.warning('few images')
  logger.debug('detail')
  output = capsys.readouterr()
  assert output.err == 'loss 3.5\nwarning: few images\n' and not output.out


def test_file_has_records_with_time_stamps(tmp_path):
  path = tmp_path / 'log.txt'
  with exit_on_user_error():
    for message in ('one', 'two'):
      with logged_to(path):
        logger.info(message)
    logger.info('not in the file')
  lines = path.read_text().splitlines()
  assert [line.split(' ', 2)[2] for line in lines] == ['one', 'two']
  assert all(line[4] == line[7] == '-' and line[13] == line[16] == ':' for line in lines)


@pytest.mark.filterwarnings('always')
def test_file_has_warnings_and_the_traceback_of_an_error(tmp_path):
  with pytest.raises(RuntimeError), logged_to(tmp_path / 'log.txt'):
    warnings.warn('an old API', stacklevel=1)
    raise RuntimeError('a defect')
  text = (tmp_path / 'log.txt').read_text()
  assert 'an old API' in text and 'Traceback' in text and 'RuntimeError: a defect' in text


@pytest.mark.parametrize('error', [UserError('no such folder'), Interrupted('stopped at step 3')])
def test_file_has_the_message_of_an_error_for_the_user(tmp_path, error):
  with pytest.raises(type(error)), logged_to(tmp_path / 'log.txt'):
    raise error
  text = (tmp_path / 'log.txt').read_text()
  assert text.endswith(f' {error}\n') and 'Traceback' not in text


@pytest.mark.parametrize(
  ('error', 'status', 'message'),
  [
    (UserError('no such folder'), 2, 'error: no such folder\n'),
    (Interrupted('stopped at step 3'), 130, 'stopped at step 3\n'),
    (KeyboardInterrupt(), 130, 'interrupted\n'),
    (OSError(errno.EROFS, 'Read-only file system', '/run/log'), 1, 'error: /run/log: Read-only file system\n'),
    (
      OSError(errno.ENOSPC, 'No space left on device', 'a\nb'),
      1,
      'error: a\\nb: No space left on device; free some space, and run the same command again\n',
    ),
    (MemoryError('8 GiB'), 1, 'error: not enough memory; lower the batch size, or use a larger machine (8 GiB)\n'),
  ],
)
def test_errors_become_a_message_and_a_status(capsys, error, status, message):
  with pytest.raises(SystemExit) as caught, exit_on_user_error():
    raise error
  assert caught.value.code == status and capsys.readouterr().err == message


@pytest.mark.parametrize('error', [RuntimeError('a defect'), AssertionError(), OSError('no errno'), KeyError('x')])
def test_defects_keep_their_traceback(error):
  with pytest.raises(type(error)), exit_on_user_error():
    raise error


ASK_FOR_DEVICES = """
import jax
from dgnet_jax.utils.console import exit_on_user_error
with exit_on_user_error():
  jax.numpy.ones(3)
"""


@pytest.mark.parametrize('platform', ['cuda', 'abacus'])  # JAX fails in two ways
def test_missing_device_is_one_line(platform):
  if platform == 'cuda' and any(device.platform == 'gpu' for device in jax.devices()):
    pytest.skip('there is a GPU')
  result = run_python(ASK_FOR_DEVICES, JAX_PLATFORMS=platform)
  assert result.returncode == 1
  assert result.stderr.splitlines()[-1].startswith(f'error: JAX_PLATFORMS={platform}: JAX finds no such device')
  assert 'Traceback' not in result.stderr


def run_python(code, **environment):
  environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)} | environment
  return subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env=environment, timeout=120)


def test_every_name_can_be_printed():
  """In a terminal without Unicode."""
  code = (
    'from dgnet_jax.utils.console import exit_on_user_error\n'
    'with exit_on_user_error(): print("Zo\\u00eb", "\\u5f35", "\\udc80")'
  )
  result = run_python(code, PYTHONIOENCODING='ascii')
  assert (result.returncode, result.stdout) == (0, 'Zo\\xeb \\u5f35 \\udc80\n')


def test_reader_that_leaves_early_is_no_error():
  code = (
    'from dgnet_jax.utils.console import exit_on_user_error\n'
    'with exit_on_user_error():\n'
    '  for i in range(100_000): print(i)'
  )
  environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)}
  command = [sys.executable, '-c', code]
  with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
    process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == b''
  assert process.returncode == 1


def test_log_that_cannot_be_written_is_reported_once(tmp_path, capsys):
  (tmp_path / 'log.txt').symlink_to('/dev/full')
  with logged_to(tmp_path / 'log.txt'):
    for i in range(3):
      logger.warning(f'message {i}')
  error = capsys.readouterr().err
  assert error.count('cannot be written') == 1 and 'Traceback' not in error


def test_log_has_every_name(tmp_path):
  # In a process of its own, because pytest-xdist cannot send such a message in its report.
  code = (
    'import logging, sys\n'
    'from dgnet_jax.utils.console import logged_to\n'
    'with logged_to(sys.argv[1]):\n'
    "  logging.getLogger('dgnet_jax.test').warning('Zo\\u00eb \\udc80')"
  )
  environment = os.environ | {'PYTHONPATH': ':'.join(sys.path)}
  subprocess.run([sys.executable, '-c', code, str(tmp_path / 'log.txt')], env=environment, check=True)
  assert (tmp_path / 'log.txt').read_bytes().endswith('Zo\u00eb \\udc80\n'.encode())


@pytest.mark.parametrize(
  ('error', 'shown'), [(RuntimeError('Event loop is closed'), False), (RuntimeError('a defect'), True)]
)
def test_loops_that_orbax_has_closed_are_not_shown(error, shown, monkeypatch):
  """TensorStore reports them where Python cannot raise."""
  seen = []
  monkeypatch.setattr(sys, 'unraisablehook', lambda unraisable: seen.append(unraisable.exc_value))
  with exit_on_user_error():
    sys.unraisablehook(types.SimpleNamespace(exc_value=error))
  assert seen == ([error] if shown else [])
