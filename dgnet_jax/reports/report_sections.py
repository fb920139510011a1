"""The parts of the report about a run, each from files in its work folder; what is missing is said in a line."""

from collections.abc import Mapping, Sequence
import pathlib
import tempfile
from typing import Any

from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.plots.curves import METRICS, draw_curves, read_metrics
from dgnet_jax.reports.html_page import Content, Html, Section, element, join, missing, paragraph, table
from dgnet_jax.reports.inlined_images import InlinedImages
from dgnet_jax.reports.result_tables import percent_text, value_text
from dgnet_jax.reports.run_description import RunDescription, as_mapping, as_number
from dgnet_jax.training.run_record import Start
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json
from dgnet_jax.utils.progress import format_seconds

MAX_FOLDERS = 4  # with figures of other data
MAX_STARTS = 50  # the last ones
MAX_SHEETS = 3  # of generated images
FIGURES_COMMAND = 'dgnet figures embeddings --workdir=RUN'


def settings(description: RunDescription) -> Section:
  """Settings that differ from the defaults first, the rest folded."""
  defaults = {name: _comparable(value) for name, value in leaves(Config().to_dict())}
  values = {name: _comparable(value) for name, value in description.settings.items()}
  changed = [name for name in values if name not in defaults or values[name] != defaults[name]]
  rows = [(name, value_text(values[name]), value_text(defaults.get(name, '\u2013'))) for name in changed]
  others = [(name, value_text(value)) for name, value in values.items() if name not in changed]
  return Section(
    'settings',
    'Settings',
    join(
      table('Changed settings', ('field', 'value', 'default'), rows)
      if rows
      else paragraph('All settings are the defaults.'),
      element(
        'details', element('summary', f'{len(others)} fields with their defaults'), table('Defaults', (), others)
      ),
    ),
  )


def _comparable(value: Any) -> Any:
  return tuple(value) if isinstance(value, list) else value


def data(description: RunDescription, results: Mapping[str, Any], figures: Mapping[str, Any]) -> Section:
  """What the run was trained and tested on."""
  trained = description.setup.get('training data')
  parts: list[Content] = [
    paragraph(f'Training data {trained}.') if trained else missing('The training data were not recorded.')
  ]
  if results:
    tested = f'{value_text(results.get("num_queries"))} queries and {value_text(results.get("num_gallery"))} gallery'
    parts.append(paragraph(f'Test data {value_text(results.get("data"))}: {tested} images.'))
  cameras = {name: as_mapping(counts) for name, counts in as_mapping(figures.get('cameras')).items()}
  if cameras:
    splits = list(dict.fromkeys(split for counts in cameras.values() for split in counts))
    rows = [(name, *(value_text(counts.get(split, 0)) for split in splits)) for name, counts in cameras.items()]
    parts.append(table('Images of each camera', ['camera', *splits], rows, numbers=True))
  else:
    parts.append(missing('Images of each camera were not counted: ', element('code', FIGURES_COMMAND), ' does.'))
  return Section('data', 'Data', join(*parts))


def training(description: RunDescription, starts: Sequence[Start]) -> Section:
  """How the run was trained: steps, time, code, machine, and every start."""
  parts: list[Content] = [table('Training', (), list(description.history.items()))]
  setup = [(name, text) for name, text in description.setup.items() if name != 'training data']
  if setup:
    parts += [element('h3', 'Code and machine'), table('Code and machine', (), setup)]
  if not starts:
    parts.append(missing('There is no record of starts (run.json), so that code, machine and time are not known.'))
    return Section('training', 'How it was trained', join(*parts))
  rows = []
  for start in starts[-MAX_STARTS:]:
    seconds = as_number(start.get('seconds'))
    steps = as_mapping(start.get('last_step'))
    rows.append(
      (
        str(start.get('started'))[:16].replace('T', ' '),
        str(start['mode']),
        '' if seconds is None else format_seconds(seconds),
        ', '.join(f'{name} {value_text(step)}' for name, step in steps.items()),
        str(start.get('outcome', 'running, or killed')),
        str(start.get('error', '')),
      )
    )
  heading = ('started, UTC', 'command', 'time', 'steps at the end', 'outcome', 'error')
  title = 'Starts' if len(starts) <= MAX_STARTS else f'The last {MAX_STARTS} of {len(starts):,} starts'
  parts += [element('h3', title), table(title, heading, rows)]
  return Section('training', 'How it was trained', join(*parts))


def _name(workdir: pathlib.Path, path: pathlib.Path) -> str:
  return path.relative_to(workdir).as_posix()


def curves(workdir: pathlib.Path, title: str, images: InlinedImages) -> Section:
  """Losses, weights and learning rates over the steps."""
  path = workdir / METRICS
  try:
    if not path.is_file() or not path.stat().st_size:
      raise UserError('There are no curves: metrics.jsonl is missing or empty.')
    with tempfile.TemporaryDirectory() as folder:
      drawn = draw_curves(read_metrics(path), pathlib.Path(folder) / 'curves.png', title)
      alt = 'losses, loss weights and learning rates over the steps of training'
      caption = 'Losses are smoothed over a fiftieth of the run; the faint lines are the measured values.'
      content = images.figure(drawn, 'curves', alt=alt, caption=caption, is_chart=True)
  except UserError as error:
    content = missing(str(error))
  return Section('curves', 'Training curves', content)


def generated(workdir: pathlib.Path, images: InlinedImages) -> Section:
  """Sheets of generated images, and the last grid of training."""
  parts: list[Content] = []
  sheets = sorted((workdir / 'generated').glob('step_*/sheet_*.png'))
  newest = [path for path in sheets if path.parent == sheets[-1].parent]
  for path in newest[:MAX_SHEETS]:
    alt = f'people of the test data in the clothes of others, {path.parent.name.replace("_", " ")}'
    parts.append(images.figure(path, _name(workdir, path), alt=alt, caption=f'Generated images: {path.name}.'))
  if len(newest) > MAX_SHEETS:
    folder = element('code', f'{_name(workdir, newest[0].parent)}/')
    parts.append(missing(f'{len(newest) - MAX_SHEETS} more sheets are in ', folder))
  if not newest:
    parts.append(missing('No sheets: ', element('code', 'dgnet generate --workdir=RUN'), ' writes them.'))
  if grids := sorted((workdir / 'images').glob('*.png')):
    alt = 'reconstructions and cross images during training'
    parts.append(images.figure(grids[-1], _name(workdir, grids[-1]), alt=alt, caption=f'{alt.capitalize()}.'))
  else:
    parts.append(missing('There are no images of training (log.images_every_steps).'))
  return Section('generated', 'Generated images', join(*parts))


def read_figures(workdir: pathlib.Path) -> Mapping[str, Any]:
  """Returns what `dgnet figures embeddings` wrote about its figures; empty if it did not run, or cannot be read."""
  try:
    return as_mapping(read_json(workdir / 'figures' / 'figures.json', MAX_DESCRIPTION_BYTES))
  except (OSError, ValueError):
    return {}


def _no_figures(workdir: pathlib.Path) -> Html:
  is_damaged = (workdir / 'figures' / 'figures.json').exists()
  reason = 'figures/figures.json cannot be read' if is_damaged else 'Not drawn'
  return missing(f'{reason}: ', element('code', FIGURES_COMMAND), ' draws them.')


def embeddings(workdir: pathlib.Path, figures: Mapping[str, Any], images: InlinedImages) -> Section:
  """The map of embeddings, the pairs of cameras, and the scores."""
  others = sorted(path.parent for path in (workdir / 'figures').glob('on_*/figures.json'))
  parts: list[Content] = [missing(f'Those of other data are in {_name(workdir, folder)}.') for folder in others]
  if not figures:
    return Section('embeddings', 'Embeddings', join(_no_figures(workdir), *parts[:MAX_FOLDERS]))
  parts = [paragraph(f'Of step {value_text(figures.get("step"))}.'), *parts[:MAX_FOLDERS]]
  texts = {
    'embeddings': 'Map of test images by identity and by camera (t-SNE). Images that the run finds similar lie close.',
    'cameras': 'Queries of each camera among the gallery images of each other camera.',
    'scores': 'Scores of a query and a gallery image, each as a share of its kind of pairs, and thresholds.',
  }
  for name, caption in texts.items():
    path = workdir / 'figures' / f'{name}.png'
    if path.is_file() and (name != 'embeddings' or figures.get('map')):
      parts.append(images.figure(path, _name(workdir, path), alt=caption.split('.')[0], caption=caption, is_chart=True))
      parts += [_worst_cameras(figures)] if name == 'cameras' else []
      parts += [_operating_points(figures)] if name == 'scores' else []
    else:
      parts.append(missing(f'figures/{name}.png is not there.'))
  return Section('embeddings', 'Embeddings', join(*parts))


def _worst_cameras(figures: Mapping[str, Any]) -> Html:
  headings = {
    **{'query_camera': 'camera of the query', 'gallery_camera': 'of the gallery images', 'num_queries': 'queries'},
    **{'rank_1': 'rank-1, %', 'mAP': 'mAP, %'},
  }
  return _rows_table('The pairs of cameras with the lowest mAP', headings, figures.get('worst_camera_pairs'))


def _operating_points(figures: Mapping[str, Any]) -> Html:
  headings = {
    'false_positive_rate': 'false positive rate, %',
    'threshold': 'threshold',
    'true_positive_rate': 'true positive rate, %',
  }
  return _rows_table('Thresholds', headings, figures.get('operating_points'))


def _rows_table(title: str, headings: Mapping[str, str], rows: Any) -> Html:
  """Returns a list of tables from JSON as one, with its title."""
  found = [as_mapping(row) for row in rows] if isinstance(rows, list) else []
  cells = [
    tuple(
      percent_text(row.get(name), '.4g') if heading.endswith('%') else value_text(row.get(name))
      for name, heading in headings.items()
    )
    for row in found
  ]
  return join(element('h3', title), table(title, list(headings.values()), cells, numbers=True))


def failures(workdir: pathlib.Path, figures: Mapping[str, Any], images: InlinedImages) -> Section:
  """The queries that fail, the worst first."""
  path = workdir / 'figures' / 'failures.png'
  failing, valid, step = (figures.get(name) for name in ('num_failing_queries', 'num_valid_queries', 'step'))
  if not figures:
    content = _no_figures(workdir)
  elif not failing:
    content = paragraph(f'At step {value_text(step)} no query fails: each finds one of its matches first.')
  else:
    counts = f'{value_text(failing)} of {value_text(valid)} queries do not find a match first'
    content = paragraph(f'At step {value_text(step)} {counts}; failures.csv lists them.')
    if path.is_file() and figures.get('num_failures_shown'):
      alt = 'the queries whose first match ranks lowest, with the wrong images before it'
      caption = f'{alt.capitalize()}: wrong images framed red, the first match green.'
      content = join(content, images.figure(path, _name(workdir, path), alt=alt, caption=caption))
    else:
      content = join(content, missing('The sheet of failures was not drawn.'))
  return Section('failures', 'Failures', content)
