"""The replay of a run that explodes: from a checkpoint, from the start, and of steps that are finite after all."""

import dataclasses
import json
import shutil

import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.errors import UserError
from dgnet_jax.training.loop import train
from dgnet_jax.training.non_finite import find_report, read_report
from dgnet_jax.training.replay import replay
from tests.tiny_run import frozen, tiny_config

pytestmark = pytest.mark.long
GOOD_STEPS = 3


def run_config(folder, **fields):
  """The re-id network alone, which compiles fast."""
  config = tiny_config()
  config.update(batch_size=8, joint=False, num_steps=12)
  config.data.root = str(folder / 'data')
  config.log.update(progress_every_steps=1, checkpoint_every_steps=GOOD_STEPS, keep_checkpoints=9)
  config.update_from_flattened_dict(fields)
  return frozen(config)


@pytest.fixture(scope='module', params=[1, 8], ids=['whole', 'split'])
def exploded(request, tmp_path_factory):
  """The work folder of a run that was resumed with a rate at which it explodes, and the message.

  With whole classifiers, and with classifiers that are split, and padded.
  """
  folder, split = tmp_path_factory.mktemp('exploded'), {'model_devices': request.param}
  train(run_config(folder, num_steps=GOOD_STEPS, **split), folder / 'run')
  with pytest.raises(UserError) as caught:
    train(run_config(folder, **split, **{'optimizer.reid_learning_rate': 1e4}), folder / 'run')
  return folder / 'run', str(caught.value)


def test_report_leads_to_the_step_again(exploded, capsys, lines):
  workdir, message = exploded
  report = read_report(find_report(workdir))
  bad, start = report.found.step, report.found.checkpoint
  assert (
    start >= GOOD_STEPS and f'step {bad}: ' in message and f'dgnet replay --workdir={workdir} --step={bad}' in message
  )
  main(['replay', f'--workdir={workdir}'])
  out = capsys.readouterr().out.splitlines()
  assert [line.split(':')[0] for line in out if line.startswith('step ')] == [
    f'step {n}' for n in range(start, bad + 1)
  ]
  assert f'step {bad}: not finite: ' in '\n'.join(out) and 'reid' in '\n'.join(out)
  assert out[-1].startswith('the first that is not finite: ') and 'reid, in ' in out[-1]
  assert f'repeating steps {start} to {bad}' in lines


def test_replayed_steps_have_the_numbers_of_the_run(exploded):
  workdir, _ = exploded
  report = read_report(find_report(workdir))
  result = replay(report, workdir)
  assert result.found == dataclasses.replace(report.found, noticed_after=report.found.step + 1) and not result.changes
  records = {
    json.loads(line)['step']: json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  }
  compared = [step for step in result.steps if step.step + 1 in records]
  assert compared
  for step in compared:
    recorded = {name.removeprefix('loss/'): x for name, x in records[step.step + 1].items() if name.startswith('loss/')}
    assert step.losses == recorded


def test_replay_without_the_checkpoint_starts_at_the_start(exploded, capsys, lines):
  workdir, _ = exploded
  copy = workdir.with_name('gone')
  shutil.copytree(workdir, copy)
  shutil.rmtree(copy / 'checkpoints')
  main(['replay', f'--workdir={copy}'])
  assert any('is gone; starting from step 0' in line for line in lines)
  recorded = read_report(find_report(copy)).found.step
  assert (
    f'the report is on step {recorded}: the replay differs' in capsys.readouterr().out
  )  # with this rate from the start


def test_replay_says_if_everything_is_finite_and_what_differs(exploded, capsys):
  workdir, _ = exploded
  copy = workdir.with_name('finite')
  shutil.copytree(workdir, copy)
  path = find_report(copy)
  values = json.loads(path.read_text())
  values['config']['optimizer']['reid_learning_rate'] = 0.002
  values['environment']['jax'] = '0.1'
  path.write_text(json.dumps(values))
  main(['replay', f'--workdir={copy}', f'--step={values["step"]}'])
  out = capsys.readouterr().out
  assert f'steps {values["checkpoint"]} to {values["step"]} are finite: the report could not be reproduced' in out
  assert 'differs from the run: jax: 0.1 -> ' in out
