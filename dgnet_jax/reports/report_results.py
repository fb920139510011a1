"""The results in the report about a run: the numbers to look at first, all evaluations, and the thresholds."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
from typing import Any, NamedTuple

from dgnet_jax.inference.calibration import CALIBRATION
from dgnet_jax.inference.results import evaluation_folders, read_results
from dgnet_jax.reports.html_page import Content, Section, element, join, missing, paragraph, table
from dgnet_jax.reports.inlined_images import InlinedImages
from dgnet_jax.reports.result_tables import percent_text, results_html, value_text
from dgnet_jax.reports.run_description import EMBEDDINGS, RunDescription, as_mapping, as_number
from dgnet_jax.training.best_step import best_step
from dgnet_jax.utils.bounded_files import MAX_DESCRIPTION_BYTES, read_json

MAX_EVALUATIONS = 8
# Sheets and charts of an evaluation: whether it is a chart, what it shows, and the caption.
EVALUATION_IMAGES = {
  'ranked.png': (False, 'queries with their most similar gallery images', 'Matches are framed green, others red.'),
  'swaps.png': (False, 'people in the clothes of others', 'Clothes from the top row, poses from the left column.'),
  'ground_truth.png': (False, 'generated images beside the rendered ground truth', 'Held-out people.'),
  'roc.png': (True, 'true over false positive rates', 'Over all pairs of a query and a gallery image.'),
  'alphas.png': (True, 'rank-1 and mAP over the weight of the fine-grained half', ''),
}


class Evaluation(NamedTuple):
  """An evaluation of a run.

  Attributes:
    folder: where it is.
    results: contents of its results.json.
    place: the names of the folder below `evaluation`.
    is_best: True if the step is the one with the best mAP during training.
  """

  folder: pathlib.Path
  results: Mapping[str, Any]
  place: tuple[str, ...]
  is_best: bool

  @property
  def is_own_test(self) -> bool:
    """True if it is of the test split of the run's own data."""
    return all(name.startswith('step_') for name in self.place)

  @property
  def title(self) -> str:
    """Step and data, for people."""
    words = [f'{"Teacher alone, step" if "teacher" in self.place else "Step"} {value_text(self.results.get("step"))}']
    words += ['(best during training)'] if self.is_best else []
    words += ['on held-out identities'] if 'validation' in self.place else []
    words += [f'on other data: {name}' for name in self.place if name.startswith('on_')]
    return ' '.join(words)


def read_evaluations(workdir: pathlib.Path) -> list[Evaluation]:
  """Reads the results of all evaluations of a run, the most interesting first.

  Raises:
    UserError: results or metrics.jsonl cannot be read.
  """
  best, evaluations = best_step(workdir), []  # of DG-Net, whose steps are not the teacher's
  for folder in evaluation_folders(workdir):
    results, place = read_results(folder / 'results.json'), folder.relative_to(workdir / 'evaluation').parts
    is_best = best is not None and results.get('step') == best[0] and 'teacher' not in place
    evaluations.append(Evaluation(folder, results, place, is_best))
  # The newest checkpoint, the best one, other steps, held-out identities, other data.
  return sorted(evaluations, key=lambda own: (bool(own.place), not own.is_own_test, not own.is_best))


def own_results(evaluations: Sequence[Evaluation]) -> Mapping[str, Any]:
  """Returns the first results on the run's own test split, or an empty table."""
  return next((evaluation.results for evaluation in evaluations if evaluation.is_own_test), {})


def overview(description: RunDescription, evaluations: Sequence[Evaluation], figures: Mapping[str, Any]) -> Section:
  """The numbers to look at first: of the newest evaluated checkpoint and of the best."""
  history, own = description.history, [evaluation for evaluation in evaluations if evaluation.is_own_test]
  numbers = {'steps': history.get('steps'), 'data': own_results(evaluations).get('data')}
  for evaluation in own[:1] + [evaluation for evaluation in own[1:] if evaluation.is_best][:1]:
    numbers |= _scores(evaluation, 'best step' if evaluation.is_best else 'evaluated step')
  failing, step = figures.get('num_failing_queries'), value_text(figures.get('step'))
  numbers['failing queries'] = None if failing is None else f'{value_text(failing)} at step {step}'
  numbers['time'] = history.get('time of starts that ended')
  numbers['last training'] = history.get('last training')
  terms = [
    element('div', element('dt', title), element('dd', value_text(value)))
    for title, value in numbers.items()
    if value is not None
  ]
  return Section('overview', 'Overview', element('dl', *terms) if terms else missing('Nothing was trained yet.'))


def _scores(evaluation: Evaluation, kind: str) -> dict[str, Any]:
  """Returns the step, named as what kind of step it is, and the scores of the final embedding."""
  rankings = as_mapping(evaluation.results.get('single_query'))
  name = next((name for name in EMBEDDINGS if name in rankings), '')
  numbers = {kind: evaluation.results.get('step')}
  for metric, title in (('rank_1', 'rank-1'), ('mAP', 'mAP')):
    score = as_number(as_mapping(rankings.get(name)).get(metric))
    heading = f'{title}, {EMBEDDINGS.get(name)}{" (best step)" if evaluation.is_best else ""}'
    numbers[heading] = None if score is None else f'{100 * score:.2f}%'
  return numbers


def results_section(evaluations: Sequence[Evaluation], images: InlinedImages) -> Section:
  """All results, on the run's own data and on others, with their sheets."""
  parts: list[Content] = []
  if not any(evaluation.is_own_test or evaluation.place == ('teacher',) for evaluation in evaluations):
    parts.append(missing('Not evaluated: ', element('code', 'dgnet evaluate --workdir=RUN'), ' writes results.'))
  for evaluation in evaluations[:MAX_EVALUATIONS]:
    parts += [element('h3', evaluation.title), results_html(evaluation.results)]
    parts += _evaluation_images(evaluation, images)
  if len(evaluations) > MAX_EVALUATIONS:
    names = ', '.join('/'.join(evaluation.place) for evaluation in evaluations[MAX_EVALUATIONS:])
    parts.append(missing(f'Left out of evaluation/: {names}'))
  return Section('results', 'Results', join(*parts))


def _evaluation_images(evaluation: Evaluation, images: InlinedImages) -> list[Content]:
  """Returns the sheets and charts of an evaluation; the one with the failures is elsewhere."""
  shown: list[Content] = []
  for name, (is_chart, alt, caption) in EVALUATION_IMAGES.items():
    path = evaluation.folder / name
    if path.is_file():
      text = f'{alt[0].upper()}{alt[1:]}. {caption}'.strip()
      full_name = '/'.join(('evaluation', *evaluation.place, name))
      shown.append(images.figure(path, full_name, alt=alt, caption=text, is_chart=is_chart))
  return shown


def same_person(workdir: pathlib.Path) -> Section:
  """The scores from which on two images are taken to show one person, as `dgnet calibrate` found them."""
  name, title, command = 'same_person', 'Same person or not', element('code', 'dgnet calibrate RUN')
  path = workdir / CALIBRATION
  if not path.is_file():
    return Section(name, title, missing('Not calibrated: ', command, ' finds the thresholds.'))
  try:
    values = as_mapping(read_json(path, MAX_DESCRIPTION_BYTES))
  except (OSError, ValueError):
    values = {}
  found = values.get('thresholds')
  if not isinstance(found, list):
    return Section(name, title, missing(f'{CALIBRATION} cannot be read: ', command, ' writes it anew.'))
  rows = [_threshold_row(as_mapping(row)) for row in found]
  headings = ('false positive rate, %', 'score', '95% interval', 'true positive rate, %', '95% interval')
  positive, negative, people = (
    value_text(values.get(f'num_{kind}')) for kind in ('positive_pairs', 'negative_pairs', 'identities')
  )
  data = as_mapping(values.get('data'))
  text = f'Found at step {value_text(values.get("step"))} with {positive} pairs of one person and {negative} of two, '
  text += f'of {people} people in the splits {value_text(data.get("splits"))} of {value_text(data.get("layout"))}.'
  own_test = " These are the run's own test images: expect other rates on other people."
  text += own_test if data.get('test_split_of_run') is True else ''
  return Section(name, title, join(paragraph(text), table(title, headings, rows, numbers=True)))


def _threshold_row(row: Mapping[str, Any]) -> tuple[str, ...]:
  rate, score = percent_text(row.get('false_positive_rate'), '.4g'), value_text(row.get('score'))
  return (
    rate,
    score,
    _interval(row.get('score_interval'), value_text),
    percent_text(row.get('true_positive_rate')),
    _interval(row.get('true_positive_rate_interval'), percent_text),
  )


def _interval(value: Any, text_of: Callable[[Any], str]) -> str:
  return ' to '.join(map(text_of, value)) if isinstance(value, list) and len(value) == 2 else '\u2013'
