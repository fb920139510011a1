"""The examples in tools/launch: their commands are valid, and their settings are those that the program reads."""

import configparser
import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

from dgnet_jax.cli import processes
from dgnet_jax.cli.arguments import read_config
from dgnet_jax.cli.command import parse
from dgnet_jax.cli.main import COMMANDS
from tests.conftest import REPO

LAUNCH = REPO / 'tools' / 'launch'
SCRIPTS = sorted([*LAUNCH.glob('*.sh'), *LAUNCH.glob('*.sbatch')])
MANIFESTS = sorted(LAUNCH.glob('kubernetes/*.yaml'))
# What the examples in comments start with, and the command of dgnet whose arguments follow.
EXAMPLES = {
  'slurm.sbatch': ('sbatch tools/launch/slurm.sbatch', ['train']),
  'tpu_pod.sh': ('tools/launch/tpu_pod.sh train', ['train']),
  'Containerfile': ('docker run', []),
}


def check_command(arguments):
  """Refuses flags, fields and values that the command does not have."""
  options = parse(COMMANDS[arguments[0]], arguments[1:])
  assert options.problems == []
  read_config(options)


def documents(name):
  return [document for document in yaml.safe_load_all((LAUNCH / 'kubernetes' / name).read_text()) if document]


def write_script(path, text):
  path.write_text(text)
  path.chmod(0o755)


def job_spec(name):
  """The spec of the Job in a manifest."""
  (job,) = [document for document in documents(name) if document['kind'] in ('Job', 'JobSet')]
  return job['spec']['replicatedJobs'][0]['template']['spec'] if job['kind'] == 'JobSet' else job['spec']


def pod_spec(name):
  return job_spec(name)['template']['spec']


def test_examples_are_there():
  assert [path.name for path in SCRIPTS] == ['slurm.sbatch', 'tpu_pod.sh']
  assert [path.name for path in MANIFESTS] == ['job.yaml', 'jobset.yaml', 'volume.yaml']


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_valid(script):
  subprocess.run(['bash', '-n', script], check=True)
  if shutil.which('shellcheck'):
    subprocess.run(['shellcheck', script], check=True)


@pytest.mark.parametrize('name', EXAMPLES)
def test_commands_in_comments_are_valid(name):
  start, command = EXAMPLES[name]
  text = re.sub(r'\\\n#\s*', '', (LAUNCH / name).read_text())
  lines = [line.lstrip('# ') for line in text.splitlines() if line.startswith('#')]
  found = [line.removeprefix(start) for line in lines if line.startswith(start)]
  assert found
  for line in found:
    arguments = shlex.split(line, comments=True)
    if not command:  # after the options of docker and the image
      arguments = arguments[[i for i, word in enumerate(arguments) if re.fullmatch('dgnet(:.*)?', word)][-1] + 1 :]
    check_command([*command, *arguments])


class TestKubernetes:
  @pytest.mark.parametrize('name', ['job.yaml', 'jobset.yaml'])
  def test_arguments_are_valid(self, name):
    (container,) = pod_spec(name)['containers']
    assert '--distributed' in container['args']
    check_command(container['args'])

  @pytest.mark.parametrize('name', ['job.yaml', 'jobset.yaml'])
  def test_every_pod_finds_the_others(self, name):
    job = job_spec(name)
    (container,) = pod_spec(name)['containers']
    variables = {one['name']: one.get('value', 'pod-0.service') for one in container['env']}
    address = variables[processes.ADDRESS].replace('$(COORDINATOR)', variables.get('COORDINATOR', ''))
    variables |= {processes.ADDRESS: address, 'KUBERNETES_SERVICE_HOST': '10.0.0.1'}
    assert job['completionMode'] == 'Indexed' and job['completions'] == job['parallelism'] > 1
    for index in range(job['completions']):
      found = processes.find(variables | {processes.KUBERNETES_INDEX: str(index)})
      assert (found.address, found.count, found.index) == (address, job['parallelism'], index)

  def test_pods_of_the_job_have_names(self):
    service, job = documents('job.yaml')
    name, subdomain = job['metadata']['name'], pod_spec('job.yaml')['subdomain']
    (container,) = pod_spec('job.yaml')['containers']
    assert service['metadata']['name'] == subdomain and service['spec']['selector'] == {'job-name': name}
    assert service['spec']['clusterIP'] == 'None' and service['spec']['publishNotReadyAddresses']
    assert {one['name']: one['value'] for one in container['env']}[processes.ADDRESS].startswith(
      f'{name}-0.{subdomain}:'
    )

  @pytest.mark.parametrize('name', ['job.yaml', 'jobset.yaml'])
  def test_pods_share_a_volume_and_have_time_to_save(self, name):
    pod = pod_spec(name)
    (claim,) = documents('volume.yaml')
    (container,) = pod['containers']
    assert claim['spec']['accessModes'] == ['ReadWriteMany']
    volumes = {volume['name']: volume for volume in pod['volumes']}
    mounts = {mount['mountPath']: mount['name'] for mount in container['volumeMounts']}
    assert volumes[mounts['/work']]['persistentVolumeClaim']['claimName'] == claim['metadata']['name']
    assert set(mounts.values()) == volumes.keys()
    assert pod['restartPolicy'] == 'Never'  # as a podFailurePolicy needs
    assert pod['terminationGracePeriodSeconds'] >= 120 and pod['shareProcessNamespace']

  @pytest.mark.parametrize('name', ['job.yaml', 'jobset.yaml'])
  def test_mistakes_are_not_tried_again(self, name):
    rules = job_spec(name)['podFailurePolicy']['rules']
    (rule,) = [rule for rule in rules if rule['action'] == 'FailJob']
    assert rule['onExitCodes']['values'] == [2] and rule['onExitCodes']['operator'] == 'In'
    assert rule['onExitCodes']['containerName'] == pod_spec(name)['containers'][0]['name']


class TestContainer:
  text = (LAUNCH / 'Containerfile').read_text()

  def test_extras_exist(self):
    setup = configparser.ConfigParser(interpolation=None)
    setup.read(REPO / 'setup.cfg')
    named = re.findall(r'EXTRAS[= ]+([\w,]+)', self.text)
    assert named and {extra for one in named for extra in one.split(',')} <= setup['options.extras_require'].keys()

  def test_what_is_copied_is_sent_to_the_builder(self):
    copied = [word for line in re.findall(r'^COPY (?!--)(.*) \S+$', self.text, re.M) for word in line.split()]
    sent = [line[1:] for line in (REPO / '.dockerignore').read_text().splitlines() if line.startswith('!')]
    assert sorted(copied) == sorted(sent) and all((REPO / name).exists() for name in copied)

  def test_it_does_not_run_as_root(self):
    assert re.findall(r'^USER (\d+)$', self.text, re.M) == ['1000'] == re.findall(r'useradd --uid (\d+)', self.text)


SRUN = """#!/bin/sh
[ "$*" = "--gpu-bind=none --wait=60 dgnet train --distributed --workdir=my runs" ] || exit 99
exit "$STATUS"
"""


class TestSlurm:
  @pytest.mark.parametrize(('status', 'requeued'), [(0, False), (1, False), (2, False), (130, True)])
  def test_a_saved_run_goes_back_to_the_queue(self, tmp_path, status, requeued):
    write_script(tmp_path / 'srun', SRUN)
    write_script(tmp_path / 'scontrol', '#!/bin/sh\necho "scontrol $*"\n')
    environment = {'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'STATUS': str(status), 'SLURM_JOB_ID': '7'}
    command = ['bash', LAUNCH / 'slurm.sbatch', '--workdir=my runs']
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert ended.returncode == status and ('scontrol requeue 7' in ended.stdout) == requeued

  def test_the_signal_leaves_time_to_save(self):
    text = (LAUNCH / 'slurm.sbatch').read_text()
    options = dict(re.findall(r'^#SBATCH --([\w-]+)(?:=(\S+))?$', text, re.M))
    assert options['signal'].startswith('TERM@') and int(options['signal'][5:]) >= 120 and 'requeue' in options
    assert options['gpus-per-node'] == options['ntasks-per-node']


GCLOUD = """#!/usr/bin/env bash
# Runs the commands for all workers here, in this folder.
cd "$(dirname "$0")" || exit
for argument in "$@"; do
  [[ $argument != --command=* ]] || bash -c "${argument#--command=}" || exit
done
[[ $* != *' list '* ]] || cat state
"""
DGNET = """#!/usr/bin/env bash
trap 'echo stopped >> "$0.log"; exit 130' TERM
printf '%s\\n' "$@" > "$0.log"
while [ -e wait ]; do sleep 0.05; done
exit "$(cat result)"
"""


class TestTpuPod:
  """With a gcloud that runs what it should run on the workers here."""

  @pytest.fixture
  def pod(self, tmp_path):
    (tmp_path / 'venv/bin').mkdir(parents=True)
    write_script(tmp_path / 'gcloud', GCLOUD)
    write_script(tmp_path / 'venv/bin/dgnet', DGNET)
    (tmp_path / 'state').write_text('READY\n')
    (tmp_path / 'result').write_text('0')
    return tmp_path

  def call(self, pod, *arguments):
    environment = os.environ | {'PATH': f'{pod}:{os.environ["PATH"]}', 'TPU': 'pod', 'ZONE': 'zone'}
    return subprocess.run(
      [LAUNCH / 'tpu_pod.sh', *arguments], env=environment, capture_output=True, text=True, timeout=60
    )

  def wait_for(self, path, words):
    for _ in range(200):
      if path.exists() and words in path.read_text():
        return
      subprocess.run(['sleep', '0.05'], check=True)
    raise AssertionError(f'{path} has no {words!r}')

  def test_arguments_arrive_and_stop_reaches_the_process(self, pod):
    (pod / 'wait').touch()
    assert self.call(pod, 'train', '--workdir=/shared/my runs', '--config.data.root=a$b').returncode == 0
    log = pod / 'venv/bin/dgnet.log'
    self.wait_for(log, 'root')
    assert log.read_text().split('\n')[:-1] == [
      *('train', '--distributed', '--workdir=/shared/my runs', '--config.data.root=a$b')
    ]
    second = self.call(pod, 'train', '--workdir=w')
    assert second.returncode == 1 and 'is running already' in second.stderr
    assert self.call(pod, 'stop').returncode == 0
    self.wait_for(pod / 'dgnet.status', '130')

  def test_a_mistake_ends_keep(self, pod):
    (pod / 'dgnet.status').write_text('2\n')
    ended = self.call(pod, 'keep', '--workdir=w')
    assert ended.returncode == 1 and 'ended 2; see' in ended.stderr

  def test_keep_ends_when_training_has(self, pod):
    (pod / 'dgnet.status').write_text('0\n')
    ended = self.call(pod, 'keep', '--workdir=w')
    assert ended.returncode == 0 and 'finished' in ended.stdout

  def test_keep_starts_again_after_a_failure(self, pod):
    (pod / 'dgnet.status').write_text('1\n')
    write_script(pod / 'sleep', '#!/bin/sh\n')
    ended = self.call(pod, 'keep', '--workdir=w')
    assert ended.returncode == 0 and 'finished' in ended.stdout
    assert (pod / 'venv/bin/dgnet.log').read_text() == 'train\n--distributed\n--workdir=w\n'

  def test_without_a_command_the_comment_is_the_help(self, pod):
    ended = self.call(pod)
    assert ended.returncode == 2 and 'tools/launch/tpu_pod.sh create' in ended.stderr
