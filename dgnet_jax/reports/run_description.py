"""What the files of a work folder say about a run: settings, starts, code and machine, results. Needs no JAX."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import math
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.config.loading import SAVED_CONFIG, read_config_file
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.inference.results import read_results
from dgnet_jax.plots.curves import read_metrics
from dgnet_jax.training.data_record import read_record, saved_steps
from dgnet_jax.training.run_record import CHECKPOINTS, Start, describe_data, read_starts
from dgnet_jax.utils.progress import format_seconds

COMMIT_DIGITS = 8
LARGEST = 1e15  # no number of a run
OTHER_RANKINGS = {'multi_query': 'multi-query', 'reranked': 're-ranked'}
EMBEDDINGS = {'both': 'both', 'primary': 'primary', 'fine_grained': 'fine-grained', 'teacher': 'teacher'}
RANKING_METRICS = {'rank_1': 'rank-1', 'rank_5': 'rank-5', 'rank_10': 'rank-10', 'mAP': 'mAP'}
SUBJECT = {
  'step': 'step',
  'data': 'data',
  'protocol': 'protocol',
  'num_valid_queries': 'queries with a match',
  'num_gallery': 'gallery images',
}
IMAGE_KINDS = {
  'cross': 'cross',
  'several': 'cross from several',
  'self': 'self-reconstruction',
  'same_person': 'same person',
}
IMAGE_MEASURES = {  # title and format
  'psnr': ('PSNR, dB', '.2f'),
  'ssim': ('SSIM', '.3f'),
  'colour_error': ('colour error', '.2f'),
  'pattern_fidelity': ('pattern fidelity', '.3f'),
}


class Result(NamedTuple):
  """A number and its format, as for `comparison.Row`, or a text or count without one."""

  value: Any
  shown_as: str = ''


Results = dict[str, Result]


@dataclasses.dataclass(frozen=True)
class RunDescription:
  """What is known about a run. What its files do not say is missing.

  Attributes:
    history: starts, steps and times, for people.
    settings: value of each config field, by its dotted name.
    setup: code, versions, machine and data of training, for people; several values if they changed between starts.
    results: by topic, each in the order in which it is shown.
  """

  history: Mapping[str, str]
  settings: Mapping[str, Any]
  setup: Mapping[str, str]
  results: Mapping[str, Results]


def describe_run(workdir: pathlib.Path) -> RunDescription:
  """Reads the files of a run.

  Args:
    workdir: the work folder of a run of this or an earlier version.

  Raises:
    UserError: it is not the work folder of a run, or one of its files is damaged.
  """
  if not workdir.is_dir():
    raise UserError(f'{workdir}: no such folder; name the work folder of a run')
  if not (workdir / SAVED_CONFIG).is_file():
    raise UserError(f'{workdir}: not the work folder of a run: there is no {SAVED_CONFIG} in it')
  starts = read_starts(workdir)
  training = [start for start in starts if start['mode'] in ('train', 'teacher')]
  return RunDescription(
    history=_history(workdir, starts, training),
    settings=dict(leaves(read_config_file(workdir / SAVED_CONFIG))),
    setup=_recorded_data(workdir) | _setup(training),
    results={**_evaluations(workdir), 'losses at the end': _losses(workdir)},
  )


def _history(workdir: pathlib.Path, starts: Sequence[Start], training: Sequence[Start]) -> dict[str, str]:
  """Describes when and how often a run was started, and how its training ended."""
  steps = saved_steps(workdir / CHECKPOINTS['dgnet'])
  history = {'steps': f'{max(steps):,}'} if steps else {}
  if not starts:
    return history
  history['first start, UTC'] = str(starts[0].get('started'))[:16].replace('T', ' ')
  modes = [start['mode'] for start in starts]
  history['starts'] = ', '.join(f'{modes.count(mode)} {mode}' for mode in dict.fromkeys(modes))
  if training:
    outcome = str(training[-1].get('outcome', 'running, or killed'))
    error = training[-1].get('error')
    history['last training'] = f'{outcome}: {error}' if error else outcome
  if changed := _changed_settings(training):
    history['settings changed on resuming'] = ', '.join(changed)
  seconds = [as_number(start.get('seconds')) for start in starts]
  history['time of starts that ended'] = format_seconds(sum(filter(None, seconds)))
  return history


def _changed_settings(starts: Sequence[Start]) -> list[str]:
  """Returns the fields whose values differ between starts; config.json has those of the last one only."""
  fields = [as_mapping(start.get('changed_fields')) for start in starts]
  names = sorted({name for values in fields for name in values})
  return [name for name in names if any(values.get(name) != fields[0].get(name) for values in fields)]


def _setup(starts: Sequence[Start]) -> dict[str, str]:
  """Describes code, versions and machine; what changed from start to start is listed in order."""
  packages = dict.fromkeys(name for start in starts for name in as_mapping(start.get('packages')))
  describe: dict[str, Callable[[Start], str]] = {
    'dgnet_jax': _code,
    'python': lambda start: str(start.get('python', '')),
    **{name: functools.partial(_package, name) for name in packages},
    'platform': lambda start: str(start.get('platform', '')),
    'host': lambda start: str(start.get('host', '')),
    'devices': _devices,
    'training data': _training_data,
  }
  setup = {}
  for name, text_of in describe.items():
    texts = [text for text in map(text_of, starts) if text]
    changes = [text for place, text in enumerate(texts) if not place or text != texts[place - 1]]
    if changes:
      setup[name] = ' -> '.join(changes)
  return setup


def _code(start: Start) -> str:
  code = as_mapping(start.get('code'))
  commit = f' {str(code["commit"])[:COMMIT_DIGITS]}' if 'commit' in code else ''
  return f'{code.get("version", "")}{commit}{"+changes" if code.get("dirty") else ""}'


def _devices(start: Start) -> str:
  devices = as_mapping(start.get('devices'))
  if not devices:
    return ''
  processes = devices.get('processes')
  in_processes = f' in {processes} processes' if processes != 1 else ''
  return f'{devices.get("count")} x {devices.get("kind")}{in_processes}'


def _package(name: str, start: Start) -> str:
  return str(as_mapping(start.get('packages')).get(name, ''))


def _training_data(start: Start) -> str:
  data = as_mapping(start.get('data'))
  counts = f'{data.get("num_images")} images of {data.get("num_identities")} identities'
  return f'{data.get("fingerprint")}: {counts}' if data else ''


def _recorded_data(workdir: pathlib.Path) -> dict[str, str]:
  """Describes the training data of the last training start, whatever version it was of."""
  data = read_record(workdir)
  return {} if data is None else {'training data': _training_data({'data': describe_data(data)})}


def _evaluations(workdir: pathlib.Path) -> dict[str, Results]:
  """Returns rankings and image quality, on the run's own data and on others."""
  folder = workdir / 'evaluation'
  topics: dict[str, Results] = {}
  for path in (folder / 'results.json', *sorted(folder.glob('on_*/results.json'))):
    if path.is_file():
      results, suffix = read_results(path), '' if path.parent == folder else f' {path.parent.name}'
      topics[f'evaluation{suffix}'] = _rankings(results)
      topics[f'generated images{suffix}'] = _images(results)
  return topics


def _rankings(results: Mapping[str, Any]) -> Results:
  rankings = {title: Result(results[name]) for name, title in SUBJECT.items() if name in results}
  rankings |= {
    f'evaluation.{name}': Result(value)
    for name, value in leaves(as_mapping(results.get('settings')))
    if name != 'protocol'
  }
  tables = {title: ('single_query', embedding) for embedding, title in EMBEDDINGS.items()}
  final = next((name for name in EMBEDDINGS if name in as_mapping(results.get('single_query'))), '')  # both, or primary
  tables |= {f'{title}, {EMBEDDINGS.get(final)}': (table, final) for table, title in OTHER_RANKINGS.items()}
  for title, (table, embedding) in tables.items():
    scores = as_mapping(as_mapping(results.get(table)).get(embedding))
    for metric, heading in RANKING_METRICS.items():
      if (fraction := as_number(scores.get(metric))) is not None:
        rankings[f'{title}: {heading}, %'] = Result(100 * fraction, '.2f')
  return rankings


def _images(results: Mapping[str, Any]) -> Results:
  """Returns how generated images of the built-in people compare with the ground truth, as far as it was measured."""
  measured, images = as_mapping(results.get('images')), {}
  for kind, title in IMAGE_KINDS.items():
    scores = as_mapping(as_mapping(measured.get(kind)).get('all'))
    for measure, (heading, shown_as) in IMAGE_MEASURES.items():
      if (value := as_number(scores.get(measure))) is not None:
        images[f'{title}: {heading}'] = Result(value, shown_as)
  for key, title, shown_as in (
    ('diversity', 'cross: SSIM within an identity', '.3f'),
    ('teacher_frechet_distance', "cross: Frechet distance (teacher's)", '.4f'),
  ):
    if (value := as_number(as_mapping(measured.get(key)).get('generated'))) is not None:
      images[title] = Result(value, shown_as)
  return images


def _losses(workdir: pathlib.Path) -> Results:
  """Returns the means of the last report; without the terms that are no longer computed."""
  path = workdir / 'metrics.jsonl'
  if not path.is_file() or not path.stat().st_size:  # empty until the first report
    return {}
  series = {name: curve for name, curve in read_metrics(path).items() if name.startswith('loss/')}
  last = max((int(steps[-1]) for steps, _ in series.values()), default=0)
  ends = {name.removeprefix('loss/'): values[-1] for name, (steps, values) in series.items() if steps[-1] == last}
  return {'step': Result(last)} | {name: Result(as_number(float(value)), '#.4g') for name, value in ends.items()}


def as_mapping(value: Any) -> Mapping[str, Any]:
  """Returns a value from JSON if it is a table, else an empty one."""
  return value if isinstance(value, dict) else {}


def as_number(value: Any) -> float | None:
  """Returns a number from JSON; None for anything else, and for what is not finite or out of all proportion."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool)
  return float(value) if is_number and math.isfinite(value) and abs(value) < LARGEST else None
