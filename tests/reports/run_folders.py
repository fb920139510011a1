"""Work folders of runs, with the files that a comparison reads, written by hand."""

import json

from dgnet_jax.config.loading import save_config
from dgnet_jax.training.data_record import TrainingData, write_record
from tests.tiny_run import frozen, tiny_config

DATA = TrainingData(('ann', 'ben'), {'1.jpg': (0, ''), '2.jpg': (1, '')})
SETUP = {
  'code': {'version': '0.1.0', 'commit': '0123456789abcdef0123', 'dirty': False},
  'python': '3.11.7',
  'packages': {'jax': '0.10.2'},
  'platform': 'Linux',
  'devices': {'backend': 'gpu', 'kind': 'H100', 'count': 8, 'processes': 1},
  'changed_fields': {'batch_size': 2},
  'data': {'fingerprint': 'abc', 'num_images': 2, 'num_identities': 2},
}
START = {'id': 'a', 'mode': 'train', 'started': '2026-01-01T00:00:00+00:00', 'seconds': 90.0, 'outcome': 'done'}
# Of `dgnet figures embeddings`.
FIGURES = {
  'step': 20,
  'cameras': {'c1': {'train': 3, 'query': 1}, 'c2': {'query': 4}},
  'map': {'images': 10},
  'worst_camera_pairs': [
    {'query_camera': 'c1', 'gallery_camera': 'c2', 'num_queries': 7, 'rank_1': 0.375, 'mAP': 0.25}
  ],
  'operating_points': [{'false_positive_rate': 0.01, 'threshold': 0.625, 'true_positive_rate': 0.875}],
  'num_valid_queries': 6,
  'num_failing_queries': 2,
  'num_failures_shown': 2,
}
CALIBRATION = {
  **{'format': 1, 'step': 20, 'networks': 'a', 'alpha': 0.5},
  'data': {'layout': 'synthetic', 'splits': ['query', 'gallery'], 'test_split_of_run': True},
  **{'num_positive_pairs': 3328, 'num_negative_pairs': 683136, 'num_identities': 128},
  'thresholds': [
    {
      **{'false_positive_rate': 0.01, 'score': 0.625, 'score_interval': [0.6, 0.65]},
      **{'true_positive_rate': 0.875, 'true_positive_rate_interval': [0.8, 0.9]},
    }
  ],
}


def rankings(**scores):
  """The results of an evaluation, given rank-1 of each embedding."""
  single_query = {
    name: {'rank_1': value, 'rank_5': 0.9, 'rank_10': 1.0, 'mAP': value / 2} for name, value in scores.items()
  }
  return {
    'step': 20,
    'data': 'synthetic',
    'protocol': 'release',
    'settings': {'protocol': 'release', 'alpha': 0.5},
    'num_valid_queries': 6,
    'num_gallery': 10,
    'single_query': {'chance': {'rank_1': 0.01, 'mAP': 0.01}, **single_query},
  }


def write_run(folder, *, settings=None, starts=None, results=None, metrics=()):
  """Writes a work folder and returns it.

  Args:
    folder: to create.
    settings: field -> value, where they differ from those of `tiny_config`.
    starts: for each start in run.json what differs from `START` and `SETUP`; None writes no run.json.
    results: by folder below the work folder, the contents of results.json.
    metrics: lines of metrics.jsonl.
  """
  folder.mkdir(parents=True)
  config = tiny_config()
  config.update_from_flattened_dict(settings or {})
  save_config(frozen(config), folder / 'config.json')
  write_record(DATA, folder)
  if starts is not None:
    rows = [START | {'setup': number} | start for number, start in enumerate(starts)]
    setups = [SETUP | {name: start[name] for name in SETUP if name in start} for start in starts]
    rows = [{name: value for name, value in row.items() if name not in SETUP} for row in rows]
    (folder / 'run.json').write_text(json.dumps({'starts': rows, 'setups': setups}))
  for name, content in (results or {}).items():
    (folder / name).mkdir(parents=True)
    (folder / name / 'results.json').write_text(json.dumps(content))
  (folder / 'metrics.jsonl').write_text(''.join(f'{json.dumps(line)}\n' for line in metrics))
  return folder
