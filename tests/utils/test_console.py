"""Log records on the console and in a file, and the exit status of errors."""

import logging
import warnings

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
  ],
)
def test_errors_become_a_message_and_a_status(capsys, error, status, message):
  with pytest.raises(SystemExit) as caught, exit_on_user_error():
    raise error
  assert caught.value.code == status and capsys.readouterr().err == message
