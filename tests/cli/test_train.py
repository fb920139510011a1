"""The jobs on a work folder: which parts run in which order, which config they get, and what log.txt holds."""

import contextlib
import importlib.util
import json
import subprocess
import sys
import threading
import types

import jax
import pytest

from dgnet_jax.cli import train
from dgnet_jax.cli.arguments import read_config
from dgnet_jax.cli.command import parse
from dgnet_jax.cli.main import COMMANDS, main
from dgnet_jax.errors import ConfigError, Interrupted, MissingSplit, NoMatches, UserError
from dgnet_jax.training.run_lock import run_lock
from dgnet_jax.training.run_record import read_starts


class Parts:
  """Replaces the functions that a job calls.

  called: their names in order. configs, steps: the config and the step that each of them got.
  """

  def __init__(self, monkeypatch):
    self.called, self.configs, self.steps = [], {}, {}
    self._monkeypatch = monkeypatch

  def replace(self, module, name, error=None):
    def call(config=None, *_, **kwargs):
      self.called.append(name)
      self.configs[name] = config
      self.steps[name] = kwargs.get('step')
      if error:
        raise error

    self._monkeypatch.setitem(sys.modules, f'dgnet_jax.{module}', types.SimpleNamespace(**{name: call}))


@pytest.fixture
def parts(monkeypatch):
  parts = Parts(monkeypatch)
  for module, name in (
    ('training.loop', 'train'),
    ('training.teacher_loop', 'train_teacher'),
    ('reports.evaluation', 'evaluate'),
    ('reports.validation', 'make_measure'),
    ('generation.generate', 'generate'),
    ('training.training_data', 'open_training_data'),
    ('interop.pretrained', 'check_pretrained'),
  ):
    parts.replace(module, name)
  return parts


def config_of(*arguments):
  return read_config(parse(COMMANDS['train'], arguments))


@pytest.mark.parametrize('field', ['evaluation.ranked_table=5', 'generation.manifest_table=True'])
def test_tables_without_pyarrow_are_an_error_before_the_work(tmp_path, monkeypatch, field):
  arguments = '--config=synthetic', f'--workdir={tmp_path}', f'--config.{field}'
  config_of(*arguments[:2])
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=rf'{field.split("=")[0]}: Parquet needs pyarrow: pip install .*, or set it to'):
    config_of(*arguments)


class TestConfig:
  def test_overrides_are_applied(self):
    config = config_of('--config=synthetic', '--workdir=w', '--config.batch_size=4')
    assert (config.data.layout, config.batch_size) == ('synthetic', 4)

  def test_problems_of_flags_fields_and_values_are_reported_together(self):
    with pytest.raises(ConfigError) as caught:
      config_of('--config=synthetic', '--workdir=w', '--batch_size=4', '--config.sed=1', '--config.num_steps=0')
    text = str(caught.value)
    assert '--batch_size=4: unknown argument; did you mean --config.batch_size?' in text
    assert 'sed: no such field; did you mean seed?' in text
    assert 'num_steps: 0 must be above 0' in text

  def test_config_of_the_work_folder_is_used_without_config(self, parts, tmp_path):
    main(['train', '--config=synthetic', f'--workdir={tmp_path}', '--config.batch_size=4'])
    for mode in train.MODES:
      main([mode, f'--workdir={tmp_path}', '--config.evaluation.num_swaps=3'])
    assert parts.configs['evaluate'].batch_size == parts.configs['train'].batch_size == 4
    assert parts.configs['generate'].evaluation.num_swaps == 3

  def test_missing_config_is_reported(self, tmp_path):
    with pytest.raises(ConfigError, match=r'name a config, like --config=synthetic; there is no config\.json in '):
      config_of(f'--workdir={tmp_path}')

  @pytest.mark.parametrize('arguments', [[], ['--workdir=w', '--distributed=x']])
  def test_mistakes_of_the_arguments_show_the_usage(self, arguments, capsys):
    with pytest.raises(SystemExit, match='2'):
      main(['train', *arguments])
    assert 'usage: dgnet train' in capsys.readouterr().err

  def test_config_is_validated_before_jax_is_imported(self, tmp_path):
    code = (
      'import sys\n'
      'from dgnet_jax.cli.main import main\n'
      'try: main(["train", "--config=market", "--workdir=" + sys.argv[1] + "/run"])\n'
      'except SystemExit as stop: assert stop.code == 2\n'
      'print([m for m in ("jax", "numpy", "flax", "tensorflow", "PIL") if m in sys.modules])'
    )
    result = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert 'data.root: name the folder' in result.stderr and 'Traceback' not in result.stderr
    assert result.stdout == '[]\n' and not list(tmp_path.iterdir())


class TestStep:
  @pytest.mark.parametrize(('text', 'step'), [('best', 'best'), ('0', 0), ('2000', 2000)])
  @pytest.mark.parametrize('mode', ['evaluate', 'generate'])
  def test_chooses_the_checkpoint(self, parts, tmp_path, mode, text, step):
    main([mode, '--config=synthetic', f'--workdir={tmp_path}', f'--step={text}'])
    assert parts.steps == {mode: step}

  @pytest.mark.parametrize('text', ['-1', 'newest', '1.5', '9' * 30])
  def test_other_values_are_mistakes(self, tmp_path, text, capsys):
    with pytest.raises(SystemExit, match='2'):
      main(['evaluate', '--config=synthetic', f'--workdir={tmp_path}', f'--step={text}'])
    assert 'must be the step of a checkpoint, or best' in capsys.readouterr().err

  def test_training_has_no_use_for_it(self, tmp_path, capsys):
    with pytest.raises(SystemExit, match='2'):
      main(['train', '--config=synthetic', f'--workdir={tmp_path}', '--step=best'])
    with pytest.raises(UserError, match='--step chooses a checkpoint to evaluate or generate, not to train'):
      options = parse(COMMANDS['evaluate'], ['--config=synthetic', f'--workdir={tmp_path}', '--step=5'])
      train.run('train', options)
    assert not list(tmp_path.iterdir())


class TestRun:
  @pytest.mark.parametrize(
    ('mode', 'expected'),
    [
      ('train', ['train', 'evaluate', 'generate']),
      ('teacher', ['check_pretrained', 'open_training_data', 'train_teacher']),
      ('evaluate', ['evaluate']),
      ('generate', ['generate']),
    ],
  )
  def test_modes_call_their_parts_in_order(self, parts, tmp_path, mode, expected):
    main([mode, '--config=synthetic', f'--workdir={tmp_path}'])
    assert parts.called == expected
    assert f'mode {mode}, config synthetic' in (tmp_path / 'log.txt').read_text()
    assert (tmp_path / 'config.json').exists() == (mode in ('train', 'teacher'))

  def test_nothing_is_generated_without_a_generator(self, parts, tmp_path):
    main(['train', '--config=synthetic', f'--workdir={tmp_path}', '--config.joint=False'])
    assert parts.called == ['train', 'evaluate']

  def test_the_best_step_is_named_at_the_end(self, parts, tmp_path, capsys):
    (tmp_path / 'checkpoints' / '20').mkdir(parents=True)
    (tmp_path / 'metrics.jsonl').write_text('{"step": 20, "validation/mAP": 0.5}\n')
    main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    assert 'best step' not in capsys.readouterr().err
    main(['train', '--config=synthetic', f'--workdir={tmp_path}', '--config.evaluation.every_steps=10'])
    last = capsys.readouterr().err.strip().split('\n')[-1]
    assert f'best step 20, mAP 50.00%; `dgnet evaluate --workdir={tmp_path} --step=best` evaluates it' in last

  def test_changed_config_is_reported_and_saved(self, parts, tmp_path, capsys):
    main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    main(['train', '--config=synthetic', f'--workdir={tmp_path}', '--config.batch_size=16'])
    assert 'batch_size: 8 -> 16' in capsys.readouterr().err
    assert json.loads((tmp_path / 'config.json').read_text())['batch_size'] == 16

  @pytest.mark.parametrize(
    ('name', 'words'),
    [
      ('a[1]', 'cannot be read from a folder with [ in its path'),
      ('a\\b', 'a path of Windows'),
      ('az://bucket/run', 'only gs:// and s3:// are supported'),
      ('file/run', 'cannot be written to (Not a directory)'),
      ('x' * 300, 'cannot be written to (File name too long)'),
    ],
  )
  def test_unusable_work_folders_are_refused_before_the_work(self, parts, tmp_path, monkeypatch, capsys, name, words):
    (tmp_path / 'file').write_text('')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
      main(['train', '--config=synthetic', f'--workdir={name}'])
    assert caught.value.code == 2 and not parts.called
    assert words in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ['file']

  @pytest.mark.parametrize(
    ('error', 'status'), [(UserError('no such folder'), 2), (Interrupted('stopped at step 3'), 130)]
  )
  def test_errors_for_the_user_are_messages(self, parts, tmp_path, capsys, error, status):
    parts.replace('training.loop', 'train', error)
    with pytest.raises(SystemExit) as caught:
      main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    assert caught.value.code == status
    assert parts.called == ['train']
    for text in (capsys.readouterr().err, (tmp_path / 'log.txt').read_text()):
      assert text.count(str(error)) == 1 and 'Traceback' not in text

  def test_every_start_is_recorded_with_its_end(self, parts, tmp_path):
    errors = [Interrupted('stopped'), UserError('not finite'), RuntimeError('a defect'), None]
    for error in errors:
      parts.replace('training.loop', 'train', error)
      with contextlib.suppress(SystemExit, RuntimeError):
        main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    main(['evaluate', f'--workdir={tmp_path}'])
    assert [(start['mode'], start['outcome'], start.get('error')) for start in read_starts(tmp_path)] == [
      ('train', 'interrupted', None),
      ('train', 'failed', 'not finite'),
      ('train', 'failed', 'RuntimeError: a defect'),
      ('train', 'done', None),
      ('evaluate', 'done', None),
    ]

  @pytest.mark.parametrize('error', [MissingSplit, NoMatches])
  def test_training_does_not_need_test_images(self, parts, tmp_path, capsys, error):
    parts.replace('reports.evaluation', 'evaluate', error('no images of query'))
    main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    assert parts.called == ['train', 'evaluate', 'generate']
    assert 'warning: nothing to evaluate: no images of query' in capsys.readouterr().err
    with pytest.raises(SystemExit):
      main(['evaluate', f'--workdir={tmp_path}'])

  def test_defect_keeps_its_traceback(self, parts, tmp_path):
    parts.replace('training.loop', 'train', RuntimeError('a defect'))
    with pytest.raises(RuntimeError):
      main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    text = (tmp_path / 'log.txt').read_text()
    assert 'Traceback' in text and 'RuntimeError: a defect' in text

  @pytest.mark.parametrize('mode', ['train', 'teacher'])
  def test_second_job_in_a_work_folder_is_refused(self, parts, tmp_path, capsys, mode):
    """And does not touch it."""
    main(['train', '--config=synthetic', f'--workdir={tmp_path}'])
    files = {path: path.read_bytes() for path in tmp_path.iterdir()}
    parts.called.clear()

    def second():
      with pytest.raises(SystemExit) as caught:
        main([mode, '--config=synthetic', f'--workdir={tmp_path}', '--config.batch_size=16'])
      assert caught.value.code == 2
      finished.append(mode)

    finished = []
    with run_lock(tmp_path):
      thread = threading.Thread(target=second)  # has a lock of its own, as another process has
      thread.start()
      thread.join()
    assert finished and not parts.called
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith(f'error: the work folder {tmp_path} is in use by another process (process ')
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == files

  def test_other_processes_have_their_own_log(self, parts, tmp_path, monkeypatch):
    monkeypatch.setattr(jax, 'process_index', lambda: 1)
    main(['train', '--config=synthetic', f'--workdir={tmp_path / "run"}'])
    assert [path.name for path in (tmp_path / 'run').glob('log*')] == ['log.1.txt']
