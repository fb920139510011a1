"""Tables of results.json for a page: all that is in it, whatever version wrote it."""

from collections.abc import Iterator, Mapping
import math
from typing import Any

from dgnet_jax.reports.html_page import MAX_TEXT, Content, Html, element, join, paragraph, table
from dgnet_jax.reports.run_description import IMAGE_MEASURES, as_mapping
from dgnet_jax.utils.text import shortened

# Rows of the tables of generated images, and the groups that they are of.
IMAGE_ROWS = {
  'cross': "cross image: another person's clothes",
  'several': 'the same from several images of the donor',
  'structure': 'baseline: the structure image itself',
  'recolored': "baseline: the structure image in the donor's mean colour",
  'self': 'self-reconstruction',
  'same_person': 'same person, clothes of another image',
}
IMAGE_GROUPS = {
  'all': '',
  'plain': ', plain clothes',
  'patterned': ', patterned clothes',
  'same_camera': ', from the same camera',
  'other_camera': ', from another camera',
}
FRECHET = "Frechet distance to real images in the teacher's features"
IMAGE_SETS = {
  'diversity.generated': 'SSIM between two images of a person: cross images',
  'diversity.real': 'SSIM between two images of a person: real images',
  'teacher_frechet_distance.generated': f'{FRECHET}: cross images',
  'teacher_frechet_distance.ground_truth': f'{FRECHET}: their rendered ground truth',
  'teacher_frechet_distance.real_halves': f'{FRECHET}: one half of the real images from the other',
  'teacher_frechet_distance.dimensions': 'dimensions of these features',
  'teacher_frechet_distance.num_real': 'real images',
  'teacher_frechet_distance.num_generated': 'cross images',
}
IMAGE_COUNTS = {'count': 'images', 'pattern_count': 'of them with a pattern'}
RANKINGS = {
  'single_query': 'Single query',
  'multi_query': 'Multi-query',
  'reranked': 'Re-ranked',
  'alphas': 'By the weight alpha of the fine-grained half',
}
COUNTS = {
  'num_queries': 'queries',
  'num_valid_queries': 'queries with a match',
  'num_gallery': 'gallery images',
  'num_distractors': 'distractors among them',
  'num_junk': 'junk among them',
  'num_multi_query': 'images for multi-query',
}


def value_text(value: Any) -> str:
  """Returns a value from JSON as a short text for people."""
  if value is None:
    return '\u2013'
  if isinstance(value, bool):
    return str(value)
  if isinstance(value, int):
    return f'{value:,}'
  if isinstance(value, float):
    return f'{value:.4g}' if math.isfinite(value) else '\u2013'
  if isinstance(value, list | tuple):
    return shortened(', '.join(map(value_text, value)) or 'none', MAX_TEXT)
  return shortened(str(value), MAX_TEXT)


def flattened(values: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields dotted names and values of nested tables."""
  for name, value in values.items():
    if isinstance(value, dict):
      yield from flattened(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


def results_html(results: Mapping[str, Any]) -> Html:
  """Returns all of a results.json: what was evaluated, overlaps, rankings, images, and whatever else there is."""
  known = {*RANKINGS, 'same_person', 'overlaps', 'images', 'files'}
  subject = {name: value for name, value in results.items() if name not in known}
  parts: list[Content] = [_overlaps(results.get('overlaps'))]
  parts += [_ranking_table(title, as_mapping(results.get(name))) for name, title in RANKINGS.items() if name in results]
  if pairs := as_mapping(results.get('same_person')):
    rates = (percent_text(pairs.get(name), '.4g') for name in ('false_positive_rate', 'true_positive_rate'))
    title = 'Same person or not, by the threshold of the calibration'
    headings = ('threshold', 'false positive rate, %', 'true positive rate, %')
    parts += [element('h4', title), table(title, headings, [(value_text(pairs.get('score')), *rates)], numbers=True)]
  if images := as_mapping(results.get('images')):
    parts.append(_image_tables(images))
  rows = [(_subject_name(name), value_text(value)) for name, value in flattened(subject)]
  evaluated = table('What was evaluated', (), rows)
  parts.append(element('details', element('summary', 'What was evaluated, and how'), evaluated))
  return join(*parts)


def _subject_name(name: str) -> str:
  """Returns the title of a row of what was evaluated: for a setting the name of its field."""
  section, _, field = name.partition('.')
  return f'evaluation.{field}' if section == 'settings' else COUNTS.get(name, name.replace('_', ' '))


def _overlaps(overlaps: Any) -> Html:
  if overlaps is None:
    return paragraph('Whether people or images are in two splits was not recorded.')
  if not isinstance(overlaps, list) or not overlaps:
    return paragraph('No person and no image is in two splits.')
  rows = [(f'{number}', value_text(text)) for number, text in enumerate(overlaps, 1)]
  heading = element('strong', 'These problems of the data make scores wrong:')
  return join(paragraph(heading), table('Overlaps', (), rows))


def _ranking_table(title: str, rows: Mapping[str, Any]) -> Html:
  metrics = list(dict.fromkeys(metric for row in rows.values() for metric in as_mapping(row)))
  names = [metric.replace('rank_', 'rank-').replace('tpr_at_', 'TPR@') for metric in metrics]
  cells = [
    (name.replace('_', '-'), *(percent_text(as_mapping(row).get(metric)) for metric in metrics))
    for name, row in rows.items()
  ]
  return join(element('h4', title), table(title, ['%', *names], cells, numbers=True))


def percent_text(value: Any, shown_as: str = '.2f') -> str:
  """Returns a fraction from JSON in percent; a dash for anything else."""
  is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
  return f'{100 * value:{shown_as}}' if is_number else '\u2013'


def _image_tables(images: Mapping[str, Any]) -> Html:
  """Returns measurements of generated images: those in groups as one table, the others one by one."""
  grouped = {
    f'{IMAGE_ROWS.get(kind, kind)}{IMAGE_GROUPS.get(group, f", {group}")}': measures
    for kind, groups in images.items()
    for group, measures in as_mapping(groups).items()
    if isinstance(measures, dict)
  }
  single = [
    (IMAGE_SETS.get(name, name.replace('_', ' ').replace('.', ': ')), value_text(value))
    for name, value in flattened(images)
    if name.count('.') < 2
  ]
  names = list(dict.fromkeys(name for measures in grouped.values() for name in measures))
  titles = {name: title for name, (title, _) in IMAGE_MEASURES.items()} | IMAGE_COUNTS
  headings = [titles.get(name, name.replace('_', ' ')) for name in names]
  rows = [(title, *(_measure(name, measures.get(name)) for name in names)) for title, measures in grouped.items()]
  parts: list[Content] = [element('h4', 'Generated images against the ground truth')]
  if rows:
    parts.append(table('Generated images', ['', *headings], rows, numbers=True))
  if single:
    parts.append(table('Sets of generated images', (), single))
  return join(*parts)


def _measure(name: str, value: Any) -> str:
  if name in IMAGE_MEASURES and isinstance(value, float) and math.isfinite(value):
    return f'{value:{IMAGE_MEASURES[name][1]}}'
  return '\u2013' if value is None else value_text(value)
