import pathlib
import subprocess
import sys
import types

import pytest

from dgnet_jax import main
from dgnet_jax.errors import ConfigError, Interrupted, MissingSplit, UserError
from dgnet_jax.utils import console

REPO = pathlib.Path(__file__).resolve().parent.parent
SYNTHETIC = str(REPO / 'configs' / 'synthetic.py')


@pytest.fixture
def calls(monkeypatch):
  """Stands in for the rooms that main dispatches to; notes the order."""
  noted = []

  def room(module, name, result=None):
    def call(*arguments, **_):
      noted.append(name)
      if isinstance(result, Exception):
        raise result
      return result

    monkeypatch.setitem(sys.modules, f'dgnet_jax.{module}', types.SimpleNamespace(**{name: call}))

  for module in ('train', 'train_teacher', 'evaluate', 'generate'):
    room(module, module)
  room('data.open', 'open_dataset')
  noted_and_room = types.SimpleNamespace(noted=noted, room=room)
  return noted_and_room


class TestParse:
  def test_overrides_reach_the_config(self):
    options, config = main.parse([f'--config={SYNTHETIC}', '--workdir=w', '--config.batch_size=4', '--mode=evaluate'])
    assert (options.mode, options.workdir, config.batch_size) == ('evaluate', 'w', 4)

  def test_flags_fields_and_values_are_told_at_once(self):
    arguments = [f'--config={SYNTHETIC}', '--workdir=w', '--batch_size=4', '--config.sed=1', '--config.num_steps=0']
    with pytest.raises(ConfigError) as caught:
      main.parse(arguments)
    text = str(caught.value)
    assert 'did you mean --config.batch_size?' in text
    assert 'did you mean seed?' in text
    assert 'num_steps: 0 must be above 0' in text

  @pytest.mark.parametrize('arguments', [['--workdir=w'], ['--config=c'], ['--config=c', '--workdir=w', '--mode=fly']])
  def test_flags_of_the_parser(self, arguments, capsys):
    with pytest.raises(SystemExit) as caught:
      main.main(arguments)
    assert caught.value.code == 2
    assert 'usage:' in capsys.readouterr().err


class TestRun:
  @pytest.mark.parametrize(
    ('mode', 'expected'),
    [
      ('train', ['train', 'evaluate', 'generate']),
      ('teacher', ['open_dataset', 'train_teacher']),
      ('evaluate', ['evaluate']),
      ('generate', ['generate']),
    ],
  )
  def test_modes(self, calls, tmp_path, mode, expected):
    main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}', f'--mode={mode}'])
    assert calls.noted == expected
    assert f'mode {mode}' in (tmp_path / 'log.txt').read_text()
    assert (tmp_path / 'config.json').exists() == (mode in ('train', 'teacher'))

  def test_a_changed_config_is_told(self, calls, tmp_path, capsys):
    main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}'])
    main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}', '--config.batch_size=16'])
    assert 'batch_size: 8 -> 16' in capsys.readouterr().out

  @pytest.mark.parametrize(
    ('error', 'status'), [(UserError('no such folder'), 2), (Interrupted('stopped at step 3'), 130)]
  )
  def test_what_ends_a_run_plainly(self, calls, tmp_path, capsys, error, status):
    calls.room('train', 'train', error)
    with pytest.raises(SystemExit) as caught:
      main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}'])
    assert caught.value.code == status
    assert calls.noted == ['train']
    assert str(error) in capsys.readouterr().err
    assert str(error) in (tmp_path / 'log.txt').read_text()

  def test_training_needs_no_test_images(self, calls, tmp_path, capsys):
    calls.room('evaluate', 'evaluate', MissingSplit('no images of query'))
    main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}'])
    assert calls.noted == ['train', 'evaluate']
    assert 'nothing to evaluate: no images of query' in capsys.readouterr().out
    with pytest.raises(SystemExit):
      main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}', '--mode=evaluate'])

  def test_a_defect_keeps_its_traceback(self, calls, tmp_path):
    calls.room('train', 'train', RuntimeError('a defect'))
    with pytest.raises(RuntimeError):
      main.main([f'--config={SYNTHETIC}', f'--workdir={tmp_path}'])
    assert 'Traceback' in (tmp_path / 'log.txt').read_text()


class TestCommandLine:
  def run(self, *arguments):
    return subprocess.run(
      [sys.executable, '-m', 'dgnet_jax.main', *arguments], capture_output=True, text=True, cwd=REPO, check=False
    )

  def test_help_has_an_example(self):
    result = self.run('--help')
    assert result.returncode == 0
    assert '--config=configs/synthetic.py --workdir=runs/synthetic' in result.stdout

  def test_mistakes_end_before_anything_is_written(self, tmp_path):
    workdir = tmp_path / 'run'
    result = self.run('--config=configs/market.py', f'--workdir={workdir}', '--config.batch_sise=4')
    assert result.returncode == 2
    assert 'did you mean batch_size?' in result.stderr
    assert 'data.root' in result.stderr
    assert 'Traceback' not in result.stderr
    assert not workdir.exists()


def test_console_copies_lines_with_their_time(tmp_path, capsys):
  with console.copied_to(tmp_path / 'log.txt'):
    print('one')
    print('10%\r20%\r', end='')
    print('30%')
    print('warning', file=sys.stderr)
    print('open end', end='')
  text = (tmp_path / 'log.txt').read_text().splitlines()
  assert [line.split(' ', 2)[-1] for line in text] == ['one', '30%', 'warning', 'open end']
  assert capsys.readouterr().out == 'one\n10%\r20%\r30%\nopen end'


class TestDistributed:
  def test_processes_are_told_or_found(self):
    parse = main._parser().parse_args
    needed = ['--config=c', '--workdir=w']
    assert parse(needed).distributed is None
    assert parse([*needed, '--distributed']).distributed == {}
    assert parse([*needed, '--distributed=localhost:99,4,3']).distributed == {
      'coordinator_address': 'localhost:99',
      'num_processes': 4,
      'process_id': 3,
    }

  @pytest.mark.parametrize('value', ['localhost:99', 'localhost,2,0', ':99,2,0', 'localhost:99,2,2', 'localhost:x,2,0'])
  def test_mistakes_are_told(self, value, capsys):
    with pytest.raises(SystemExit):
      main._parser().parse_args(['--config=c', '--workdir=w', f'--distributed={value}'])
    assert 'HOST:PORT,COUNT,INDEX' in capsys.readouterr().err
