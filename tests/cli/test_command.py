"""What all commands share: config fields on the command line, and types of arguments."""

import argparse

import pytest

from dgnet_jax.cli.arguments import at_least, data_fields, size_hw
from dgnet_jax.cli.command import Command, check_no_problems, parse
from dgnet_jax.cli.figures import FIGURES
from dgnet_jax.cli.main import COMMANDS, main
from dgnet_jax.errors import ConfigError


def make_command(fields):
  return Command(
    name='test',
    summary='test',
    epilog='',
    add_arguments=lambda parser: parser.add_argument('--work-dir'),
    run=lambda options: None,
    fields=fields,
  )


def test_config_fields_are_separated_from_arguments():
  options = parse(make_command('all'), ['--config.seed=3', '--work-dir=w', '--config.data.root', 'x'])
  assert (options.work_dir, options.overrides, options.problems) == ('w', {'seed': '3', 'data.root': 'x'}, [])
  check_no_problems(options)


def test_unknown_arguments_are_problems_with_suggestions():
  options = parse(make_command('all'), ['--workdir=w', '--seed=1', '--nonsense', 'words'])
  assert options.problems == [
    '--workdir=w: unknown argument; did you mean --work-dir?',
    '--seed=1: unknown argument; did you mean --config.seed?',
    '--nonsense: unknown argument',
    'words: unknown argument',
  ]
  with pytest.raises(ConfigError, match='4 problems'):
    check_no_problems(options)


def test_only_fields_that_the_command_takes_are_suggested():
  arguments = ['--cache_mib=1', '--batch_size=1']
  assert parse(make_command('data'), arguments).problems == [
    '--cache_mib=1: unknown argument; did you mean --config.data.cache_mib?',
    '--batch_size=1: unknown argument',
  ]


def test_flags_of_subcommands_are_suggested():
  options = parse(COMMANDS['figures'], ['swap', '--workdir=w', '--out=o', '--structure=a'])
  assert options.problems == ['--structure=a: unknown argument; did you mean --structures?']
  options = parse(COMMANDS['figures'], ['curves', '--workdir=w', '--out=o', '--step=3', '--no-compilation-cache'])
  assert options.problems == ['--step=3: unknown argument', '--no-compilation-cache: must be the first argument']


def test_commands_without_fields_refuse_them(capsys):
  with pytest.raises(SystemExit, match='2'):
    parse(make_command(''), ['--config.seed=3'])
  assert 'unrecognized arguments: --config.seed=3' in capsys.readouterr().err


def test_data_fields_are_read_as_values():
  options = parse(make_command('data'), ['--config.data.boxes=labeled', '--config.data.decode_threads=2'])
  assert data_fields(options) == {'boxes': 'labeled', 'decode_threads': 2}


def test_problems_of_data_fields_are_reported_together():
  arguments = ['--config.data.box=x', '--config.data.decode_threads=x', '--config.seed=1', '--wrong']
  with pytest.raises(ConfigError) as caught:
    data_fields(parse(make_command('data'), arguments))
  assert [problem.split(':')[0] for problem in caught.value.problems] == [
    *('seed', '--wrong', 'data.box', 'data.decode_threads')
  ]


@pytest.mark.parametrize('text', ['0', '-1', '1.5', 'x', ''])
def test_numbers_below_the_minimum_are_refused(text):
  with pytest.raises(argparse.ArgumentTypeError, match='must be a whole number of at least 1'):
    at_least(1)(text)


def test_sizes_are_height_and_width():
  assert size_hw('256x128') == (256, 128) and at_least(2)('2') == 2
  for text in ('256', 'x128', '256x', '2.5x1'):
    with pytest.raises(argparse.ArgumentTypeError, match='must be HEIGHTxWIDTH'):
      size_hw(text)


@pytest.mark.parametrize('digits', [19, 4000, 5000])  # Python reads up to 4,300
def test_numbers_of_thousands_of_digits_are_refused_in_a_short_line(digits):
  for parse_number, text in ((at_least(1), '9' * digits), (size_hw, f'9x{"9" * digits}')):
    with pytest.raises(argparse.ArgumentTypeError) as caught:
      parse_number(text)
    assert len(str(caught.value)) < 200


RUN = {'swap': ['run', '--structure=a.jpg', '--appearance=b.jpg'], 'rank': ['run', 'a.jpg', '--gallery=b.jpg']}
WRITES = {  # arguments of every command that writes, without the flag that says where
  **{mode: (['--config=synthetic'], '--workdir') for mode in ('train', 'teacher', 'evaluate', 'generate')},
  'embed': (['run', 'a.jpg'], '--out'),
  'index build': (['run', 'photos'], '--out'),
  'rank': (RUN['rank'], '--out'),
  'swap': (RUN['swap'], '--out'),
  'interpolate': (RUN['swap'], '--out'),
  'check-data': (['--root=data'], '--sheet'),
  'examples': ([], '--out'),
  **{f'prepare {name}': (['data'], '--out') for name in ('to-release', 'from-release', 'to-tfds', 'merge')},
  'prepare split': (['data', '--val-identities=2'], '--out'),
  **{f'figures {name}': (['--workdir=run'], '--out') for name in FIGURES},
  'compare': (['run', 'other'], '--out'),
  'report': (['run'], '--out'),
  'quality': (['real', 'generated'], '--out'),
  'ablation': ([], '--out'),
  'gpu-report': (['--no-tests'], '--out'),
  'convert import': (['release'], '--workdir'),
  'convert export': (['run'], '--out'),
  'export': (['run'], '--out'),
}


def test_all_commands_that_write_are_listed():
  assert {name.split()[0] for name in WRITES} == COMMANDS.keys() - {'serve', 'page', 'benchmark', 'calibrate', 'replay'}


@pytest.mark.parametrize('name', WRITES)
@pytest.mark.parametrize(
  ('out', 'words'), [('file/new', 'cannot be written to (Not a directory)'), ('az://x/y', '; copy it, or mount')]
)
def test_impossible_outputs_are_refused_before_anything_is_read(tmp_path, monkeypatch, capsys, name, out, words):
  """Nothing that the other arguments name exists."""
  monkeypatch.chdir(tmp_path)
  (tmp_path / 'file').write_text('')
  arguments, flag = WRITES[name]
  with pytest.raises(SystemExit) as caught:
    main([*name.split(), *arguments, f'{flag}={out}'])
  assert caught.value.code == 2 and words in capsys.readouterr().err.splitlines()[-1]
  assert [path.name for path in tmp_path.iterdir()] == ['file']
