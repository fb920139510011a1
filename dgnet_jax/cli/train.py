"""`dgnet train`, `teacher`, `evaluate` and `generate`: the jobs that work on a work folder."""

import argparse
from collections.abc import Callable, Collection
import contextlib
import functools
import logging
import pathlib
import shlex
from typing import TYPE_CHECKING

from dgnet_jax.cli import processes
from dgnet_jax.cli.arguments import CONFIG_HELP, add_step, read_config, run_folder
from dgnet_jax.cli.command import Command
from dgnet_jax.config.loading import SAVED_CONFIG, changed_fields, save_config
from dgnet_jax.config.schema import Config
from dgnet_jax.errors import MissingSplit, NoMatches, UserError
from dgnet_jax.utils.console import logged_to
from dgnet_jax.utils.extras import require_wandb

if TYPE_CHECKING:
  from dgnet_jax.data.index import DatasetIndex
  from dgnet_jax.training.work_folder import WorkFolder

logger = logging.getLogger(__name__)

MODES = {
  'train': 'train the teacher and DG-Net, evaluate, and generate image sheets',
  'teacher': 'train only the teacher',
  'evaluate': 'measure rank-1/5/10 and mAP of a trained run, with ranked lists',
  'generate': 'generate images with a trained run',
}
MODES_WITH_STEP = {'evaluate', 'generate'}  # of a checkpoint that exists
EPILOGS = {
  'train': """examples:
  dgnet train --config=synthetic --workdir=runs/synthetic
  dgnet train --config=market --workdir=runs/market --config.data.root=Market-1501-v15.09.15 --config.batch_size=4
  dgnet train --workdir=runs/market                            # resumes, with the config of the work folder

Every config field can be set with --config.FIELD=VALUE. An interrupted run resumes where it stopped.
""",
  'teacher': """examples:
  dgnet teacher --config=market --workdir=runs/market --config.data.root=Market-1501-v15.09.15

Every config field can be set with --config.FIELD=VALUE. `dgnet train` trains a missing teacher first.
""",
  'evaluate': """examples:
  dgnet evaluate --workdir=runs/market
  dgnet evaluate --workdir=runs/market --config.evaluation.rerank=True
  dgnet evaluate --workdir=runs/market --step=best             # of the evaluations during training
  dgnet evaluate --workdir=runs/market --config.data.layout=dukemtmc --config.data.root=DukeMTMC-reID

Every config field can be set with --config.FIELD=VALUE. Results are written to WORKDIR/evaluation,
with --step to its subfolder step_NUMBER unless that is the newest.
""",
  'generate': """examples:
  dgnet generate --workdir=runs/market
  dgnet generate --workdir=runs/market --config.generation.plan=images --config.generation.num_images=10000

Every config field can be set with --config.FIELD=VALUE. Images are written to WORKDIR/generated.
""",
}


def add_arguments(parser: argparse.ArgumentParser, modes: Collection[str]) -> None:
  """Adds the arguments of the commands, or of one that does what several of them do."""
  parser.add_argument('--config', metavar='CONFIG', help=CONFIG_HELP)
  parser.add_argument(
    '--workdir',
    required=True,
    type=run_folder,
    metavar='FOLDER',
    help='work folder: everything is written there. It may be on object storage, like gs://bucket/run or s3://bucket/run',
  )
  parser.add_argument(
    '--distributed',
    nargs='?',
    const=processes.TO_BE_FOUND,
    default=None,
    type=processes.given,
    metavar='HOST:PORT,COUNT,INDEX',
    help='run as one of several processes with the same work folder, on a file system that they share or on object '
    'storage. Without a value they find each other (Slurm, Open MPI, Kubernetes, TPU pods; docs/launching.md); '
    'otherwise give the address at which the first one listens, the number of processes, and the index of this one, '
    'from 0',
  )

  if MODES_WITH_STEP.intersection(modes):
    add_step(parser)


def run(mode: str, options: argparse.Namespace) -> None:
  """Runs a job.

  Args:
    mode: a key of `MODES`.
    options: `config`, `workdir`, `distributed`, `overrides` and `problems`, and `step` in `MODES_WITH_STEP`.
  """
  step = getattr(options, 'step', None)
  if step is not None and mode not in MODES_WITH_STEP:
    raise UserError(f'--step chooses a checkpoint to {" or ".join(sorted(MODES_WITH_STEP))}, not to {mode}')
  config = read_config(options)  # validate before importing JAX
  if mode in ('train', 'teacher'):
    require_wandb(config.log.wandb_project)
  import jax

  if options.distributed is not None:
    processes.connect(options.distributed)
  from dgnet_jax.training.agreement import from_first_process
  from dgnet_jax.training.run_record import recorded
  from dgnet_jax.training.work_folder import opened

  process = jax.process_index()
  log_name = f'log.{process}.txt' if process else 'log.txt'
  with contextlib.ExitStack() as stack:
    folder = stack.enter_context(opened(options.workdir, log_name))
    workdir = folder.path
    if mode in ('train', 'teacher'):
      from dgnet_jax.training.run_lock import run_lock

      stack.enter_context(run_lock(workdir))
    stack.enter_context(logged_to(workdir / log_name))
    logger.info(f'mode {mode}, config {options.config or workdir / SAVED_CONFIG}, results in {workdir}')
    if not folder.is_shared:
      _check_one_process_writes(mode, config)
    stack.enter_context(recorded(workdir, mode, config))
    _report_changes(config, workdir / SAVED_CONFIG)
    if mode in ('train', 'teacher'):
      from_first_process(lambda: save_config(config, workdir / SAVED_CONFIG))
    _dispatch(mode, config, folder, step)


def _check_one_process_writes(mode: str, config: Config) -> None:
  """Raises UserError if several processes would write files of their own, which they cannot do on object storage."""
  fields = {}
  if mode in ('train', 'generate') and config.generation.plan != 'sheets':
    fields['generation.plan'] = config.generation.plan
  if mode in ('train', 'evaluate') and config.evaluation.ranked_table:
    fields['evaluation.ranked_table'] = str(config.evaluation.ranked_table)
  for name, value in fields.items():
    raise UserError(
      f'{name}={value}: several processes write these files together, which needs a work folder on a file system that '
      'they share; use one process, or such a folder'
    )


def _report_changes(config: Config, path: pathlib.Path) -> None:
  """Logs how the config differs from the one that the folder was made with."""
  for change in changed_fields(path, config):
    logger.info(f'config differs from the last run here: {change}')


def _dispatch(mode: str, config: Config, folder: 'WorkFolder', step: int | str | None) -> None:
  from dgnet_jax.training.preemption import let_signals_end_the_process

  workdir = folder.path
  if mode == 'teacher':
    from dgnet_jax.interop.pretrained import check_pretrained
    from dgnet_jax.reports.validation import make_measure
    from dgnet_jax.training.agreement import in_all_processes
    from dgnet_jax.training.teacher_loop import train_teacher
    from dgnet_jax.training.training_data import open_training_data

    def prepare() -> 'DatasetIndex':
      check_pretrained(config, workdir)
      return open_training_data(config, workdir, teacher_only=True)

    train_teacher(config, in_all_processes(prepare), workdir, make_measure=make_measure)
  if mode == 'train':
    from dgnet_jax.reports.validation import make_measure
    from dgnet_jax.training.loop import train

    train(config, workdir, make_measure=make_measure)
    folder.refresh()
  let_signals_end_the_process()
  if mode in ('train', 'evaluate'):
    from dgnet_jax.reports.evaluation import evaluate

    _run_if_possible(mode, 'evaluate', lambda: evaluate(config, workdir, step=step))
  if mode == 'generate' or (mode == 'train' and config.joint):
    from dgnet_jax.generation.generate import generate

    _run_if_possible(mode, 'generate', lambda: generate(config, workdir, step=step))
  if mode == 'train' and config.evaluation.every_steps:
    _name_best_step(folder)


def _name_best_step(folder: 'WorkFolder') -> None:
  """Logs which checkpoint was the best during training, and how to evaluate it."""
  from dgnet_jax.training.best_step import MEASURE, best_step

  best = best_step(folder.path)
  if best is not None:
    place = shlex.quote(folder.address or str(folder.path))
    logger.info(
      f'best step {best[0]}, {MEASURE} {best[1]:.2%}; `dgnet evaluate --workdir={place} --step=best` evaluates it'
    )


def _run_if_possible(mode: str, verb: str, job: Callable[[], object]) -> None:
  """Runs a job that needs test images. In mode train it may lack them: training, the main job, is done."""
  try:
    job()
  except (MissingSplit, NoMatches) as error:
    if mode != 'train':
      raise
    logger.warning(f'nothing to {verb}: {error}')


COMMANDS = tuple(
  Command(
    name=mode,
    summary=summary,
    epilog=EPILOGS[mode],
    add_arguments=functools.partial(add_arguments, modes=[mode]),
    run=functools.partial(run, mode),
    fields='all',
  )
  for mode, summary in MODES.items()
)
