"""Files of a work folder: settings, records, results and checkpoints, also as reports and comparisons read them."""

import logging
import warnings

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.loading import changed_fields, complete_config, load_config
from dgnet_jax.config.schema import Config
from dgnet_jax.generation.bulk import _check_plan
from dgnet_jax.inference.calibration import read_calibration
from dgnet_jax.inference.results import read_results
from dgnet_jax.plots.curves import panels_of, read_metrics
from dgnet_jax.reports.comparison import compare_runs, comparison_text
from dgnet_jax.reports.run_report import write_report
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import TrainingData, data_changes, read_record
from dgnet_jax.training.metrics import _drop_after
from dgnet_jax.training.non_finite import read_report
from dgnet_jax.training.teacher_store import check_teacher, describe_teacher, read_description
from tests.fuzz import mutations
from tests.fuzz.reader import Reader, copied, from_template, json_of, text_of
from tests.reports.page_parser import PageParser
from tests.reports.run_folders import CALIBRATION, FIGURES, SETUP, START, rankings, write_run
from tests.training.checkpoint_states import assert_same, make_state

CONFIG = Config()


def _read_config(path):
  changed_fields(path, CONFIG)
  load_config(path, {})


def _read_saved_config(path):
  """As it is stored in a checkpoint, whose description is read as JSON of bounded depth."""
  from dgnet_jax.utils.bounded_files import parse_json

  try:
    values = parse_json(path.read_text())
  except ValueError:
    return
  if isinstance(values, dict):
    complete_config(values)


PEOPLE_OF_RUN = TrainingData(('0001', '0002', 'ann'), {'a/1.jpg': (0, '1f'), 'a/2.jpg': (1, '2e'), 'b.jpg': (2, '3d')})
TEACHER = describe_teacher(CONFIG, 3, PEOPLE_OF_RUN.identities)
METRICS = '{"step": 10, "loss/total": 1.5, "rate/reid": null}\n{"step": 20, "loss/total": 1.0}\n'


def _drop(path):
  _drop_after(path, 15)


def _restore(path):
  folder = path.parents[len(path.parts) - path.parts.index('10') - 1]
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)  # reads that were in progress when the first one failed
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    assert_same(Checkpoints(folder).restore(make_state()), make_state(10))


def _read_record(path):
  record = read_record(path.parent)
  data_changes(record, PEOPLE_OF_RUN)
  assert record.fingerprint


def _compare(path):
  """Compares the run that the file is of with another one."""
  run = next(folder for folder in path.parents if (folder / 'config.json').exists())
  comparison_text(compare_runs([run, run / 'other']))


def _report(path):
  """Writes the report about the run that the file is of, which must be a page."""
  run = next(folder for folder in path.parents if (folder / 'config.json').exists())
  write_report(run, run / 'report.html')
  PageParser((run / 'report.html').read_text(encoding='utf-8'))


def _run_and_other(folder):
  write_run(folder / 'run', starts=[{}], results={'evaluation': {}})
  write_run(folder / 'run' / 'other', starts=[{}], results={'evaluation': rankings(both=0.5)})


def _run_with_figures(folder):
  _run_and_other(folder)
  (folder / 'run' / 'figures').mkdir()


READERS = {
  'config': Reader('config.json', _read_config, json_of(default_config().to_dict())),
  'saved config': Reader('config.json', _read_saved_config, json_of(default_config().to_dict())),
  'teacher': Reader(
    'teacher.json',
    lambda path: check_teacher(read_description(path.parent), CONFIG, PEOPLE_OF_RUN, path.parent),
    json_of(TEACHER | {'num_steps': 5}),
  ),
  'training data': Reader(
    'training_data.json',
    _read_record,
    json_of(
      {
        'identities': PEOPLE_OF_RUN.identities,
        'paths': ['a/1.jpg', 'a/2.jpg', 'b.jpg'],
        'classes': [0, 1, 2],
        'contents': ['1f', '2e', '3d'],
      }
    ),
  ),
  'metrics': Reader(
    'metrics.jsonl', lambda path: panels_of(read_metrics(path)), text_of(mutations.JSON_TOKENS, METRICS)
  ),
  'resumed metrics': Reader('metrics.jsonl', _drop, text_of(mutations.JSON_TOKENS, METRICS)),
  'results': Reader(
    'results.json',
    read_results,
    json_of({'step': 5, 'single_query': {'both': {'mAP': 0.5}}}),
  ),
  'run record': Reader(
    'run/run.json', _compare, json_of({'starts': [START | {'setup': 0}], 'setups': [SETUP]}), _run_and_other
  ),
  'compared results': Reader(
    'run/evaluation/results.json',
    _compare,
    json_of(rankings(both=0.5) | {'images': {'cross': {'all': {'psnr': 20.0}}, 'diversity': {'generated': 0.5}}}),
    _run_and_other,
  ),
  'compared config': Reader('run/config.json', _compare, json_of(default_config().to_dict()), _run_and_other),
  'compared metrics': Reader('run/metrics.jsonl', _compare, text_of(mutations.JSON_TOKENS, METRICS), _run_and_other),
  'reported results': Reader(
    'run/evaluation/results.json',
    _report,
    json_of(
      rankings(both=0.5)
      | {'overlaps': ['a'], 'images': {'cross': {'all': {'psnr': 20.0}}, 'diversity': {'generated': 0.5}}}
    ),
    _run_and_other,
  ),
  'reported figures': Reader('run/figures/figures.json', _report, json_of(FIGURES), _run_with_figures),
  'reported calibration': Reader('run/calibration.json', _report, json_of(CALIBRATION), _run_and_other),
  'reported record': Reader(
    'run/run.json', _report, json_of({'starts': [START | {'setup': 0}], 'setups': [SETUP]}), _run_and_other
  ),
  'reported metrics': Reader('run/metrics.jsonl', _report, text_of(mutations.JSON_TOKENS, METRICS), _run_and_other),
  'report': Reader(
    'report.json',
    read_report,
    json_of(
      {
        **{'step': 7, 'terms': ['total'], 'networks': ['reid'], 'noticed_after': 10, 'checkpoint': None},
        **{'environment': {'jax': '0.10'}, 'config': default_config().to_dict()},
      }
    ),
  ),
  'plan': Reader(
    'plan.json', lambda path: _check_plan(path, {'plan': 'images', 'seed': 0}), json_of({'plan': 'images', 'seed': 0})
  ),
  'checkpoint description': Reader(
    '10/about/metadata',
    _restore,
    from_template(mutations.JSON_TOKENS, 'checkpoint', '10', 'about', 'metadata'),
    copied('checkpoint'),
  ),
  'checkpoint metadata': Reader(
    '10/state/_METADATA',
    _restore,
    from_template(mutations.JSON_TOKENS, 'checkpoint', '10', 'state', '_METADATA'),
    copied('checkpoint'),
  ),
  'checkpoint arrays': Reader(
    '10/state/manifest.ocdbt',
    _restore,
    from_template((b'\0', b'\xff', b'\x80' * 9), 'checkpoint', '10', 'state', 'manifest.ocdbt'),
    copied('checkpoint'),
  ),
  'calibration': Reader(
    'calibration.json',
    lambda path: read_calibration(path.parent),
    json_of(
      {
        **{'format': 1, 'step': 5, 'networks': 'a', 'alpha': 0.5},
        'thresholds': [{'false_positive_rate': 0.001, 'score': 0.5}],
      }
    ),
  ),
}
