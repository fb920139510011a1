"""The `dgnet` command: its list of commands, their help, and what is imported for it."""

import argparse
import re
import subprocess
import sys

import pytest

from dgnet_jax.cli.command import make_parser
from dgnet_jax.cli.main import COMMANDS, GROUPS, main

HEAVY = ('jax', 'numpy', 'PIL', 'matplotlib', 'tensorflow', 'flax', 'optax', 'orbax', 'starlette')


def help_of(capsys, *arguments):
  with pytest.raises(SystemExit) as caught:
    main([*arguments, '--help'])
  assert caught.value.code == 0
  return capsys.readouterr().out


def test_help_lists_every_command(capsys):
  text = help_of(capsys)
  assert sorted(name for names in GROUPS.values() for name in names) == sorted(COMMANDS)
  for name, command in COMMANDS.items():
    assert re.search(rf'^  {name} +{re.escape(command.summary)}$', text, re.MULTILINE)


@pytest.mark.parametrize('name', COMMANDS)
def test_help_of_a_command_has_examples_that_parse(name, capsys, monkeypatch):
  monkeypatch.setenv('COLUMNS', '100')
  text = help_of(capsys, name)
  assert max(map(len, text.splitlines())) <= 120
  examples = re.sub(r'\\\n *', '', COMMANDS[name].epilog)
  commands = re.findall(r'^ +dgnet (\S+) (.*?)(?: {2,}#.*)?$', examples, re.MULTILINE)
  assert name in {command for command, _ in commands}
  for command, arguments in commands:
    words = [word.strip("'") for word in arguments.split() if not word.startswith('--config.')]
    make_parser(COMMANDS[command]).parse_args(words)


def test_arguments_have_a_help_text():
  def parsers(parser):
    yield parser
    for action in parser._actions:
      if isinstance(action, argparse._SubParsersAction):
        for sub in action.choices.values():
          yield from parsers(sub)

  for command in COMMANDS.values():
    for parser in parsers(make_parser(command)):
      for action in parser._actions:
        if action.option_strings:
          assert action.help, f'{parser.prog} {action.option_strings}'


def test_help_and_version_import_nothing_heavy():
  code = (
    'import contextlib, io, sys\n'
    'from dgnet_jax.cli.main import COMMANDS, main\n'
    'for arguments in (["--help"], ["--version"], *([name, "--help"] for name in COMMANDS)):\n'
    '  try: main(arguments)\n'
    '  except SystemExit as stop: assert stop.code == 0\n'
    f'print([module for module in {HEAVY} if module in sys.modules])'
  )
  result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
  assert 'usage: dgnet' in result.stdout and 'dgnet_jax 0.' in result.stdout and result.stdout.endswith('[]\n')


def test_unknown_command_is_reported_with_a_similar_one(capsys):
  with pytest.raises(SystemExit, match='2'):
    main(['trian', '--workdir=w'])
  assert "'trian' is not a command; did you mean train?" in capsys.readouterr().err
  with pytest.raises(SystemExit, match='2'):
    main([])
  assert 'required: COMMAND' in capsys.readouterr().err
