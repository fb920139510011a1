"""The rankings of a report: every embedding, single and pooled queries, re-ranked, and over alphas, as tables."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
import csv
import dataclasses
import math
import pathlib

import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.data.index import DatasetIndex
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation import ranking
from dgnet_jax.evaluation.ranking import RankingResult
from dgnet_jax.evaluation.reranking import Reranked
from dgnet_jax.evaluation.verification import true_positive_rates
from dgnet_jax.utils.atomic_files import whole_file

Table = dict[str, dict[str, float]]

RANKS = (1, 5, 10, 20)
FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)
ROC_RATES = tuple(np.geomspace(1e-5, 1, 51))
TITLES = {
  'single_query': 'single query',
  'multi_query': 'multi-query',
  'reranked': 're-ranked',
  'alphas': 'weight of the fine half',
}
LABELS = {'fine_grained': 'fine-grained'}


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """One network's view of the test images: f32[N, D] each; multi_query is None where the data set has none."""

  query: np.ndarray
  gallery: np.ndarray
  multi_query: np.ndarray | None


def alpha_of(config: Config) -> float | None:
  """Weight of the fine-grained half; None without one."""
  return config.evaluation.alpha if config.reid.style == 'AB' else None


class _Search:
  """Scores of embeddings of a data set's queries and gallery, as the config asks for."""

  def __init__(self, config: Config, index: DatasetIndex) -> None:
    self._settings = config.evaluation
    query, gallery = index.query, index.gallery
    self._who = query.identity, query.camera
    self._whom = gallery.identity, gallery.camera

  def chance(self) -> dict[str, float]:
    return self._scores(ranking.chance(*self._who, *self._whom, protocol=self._settings.protocol))

  def ranked(self, query: np.ndarray, gallery: np.ndarray, alpha: float | None) -> dict[str, float]:
    protocol = self._settings.protocol
    scores = self._scores(ranking.rank(query, *self._who, gallery, *self._whom, alpha=alpha, protocol=protocol))
    if self._settings.verification:
      found = zip(FALSE_POSITIVE_RATES, self.accepted(query, gallery, alpha, FALSE_POSITIVE_RATES), strict=True)
      scores |= {f'tpr_at_{far:g}': rate for far, rate in found if not math.isnan(rate)}
    return scores

  def accepted(
    self, query: np.ndarray, gallery: np.ndarray, alpha: float | None, rates: Sequence[float]
  ) -> list[float]:
    """True positive rates at these false positive rates."""
    weighted = ranking.weighted(query, alpha)
    return true_positive_rates(weighted, *self._who, gallery, *self._whom, false_positive_rates=rates)

  def reranked(self, query: np.ndarray, gallery: np.ndarray, alpha: float | None) -> dict[str, float]:
    """Neighbours are sought among queries and gallery alike, so the weight is split between the two."""
    settings = self._settings.reranking
    split = alpha if alpha is None or alpha < 0 else math.sqrt(alpha)
    near = Reranked(
      ranking.weighted(query, split),
      ranking.weighted(gallery, split),
      k1=settings.k1,
      k2=settings.k2,
      weight=settings.weight,
    )
    result = ranking.rank_scores(near.blocks(), *self._who, *self._whom, protocol=self._settings.protocol)
    return self._scores(result)

  def _scores(self, result: RankingResult) -> dict[str, float]:
    scores = {f'rank_{k}': result.at(k) for k in RANKS} | {'mAP': result.mean_average_precision}
    if result.mean_inverse_negative_penalty is not None:
      scores['mINP'] = result.mean_inverse_negative_penalty
    return scores


def _rows(config: Config, dgnet: Embeddings, teacher: Embeddings) -> dict[str, tuple[Embeddings, float | None]]:
  """What is ranked: embeddings, and the weight of their fine-grained half."""
  rows: dict[str, tuple[Embeddings, float | None]] = {'teacher': (teacher, None)}
  if config.reid.style != 'AB':
    return rows | {'primary': (dgnet, None)}
  alphas = {'primary': 0.0, 'fine_grained': ranking.FINE_ONLY, 'both': alpha_of(config)}
  return rows | {name: (dgnet, alpha) for name, alpha in alphas.items()}


def ranking_tables(config: Config, index: DatasetIndex, dgnet: Embeddings, teacher: Embeddings) -> dict[str, Table]:
  """Every table that the config asks for.

  Args:
    config: reid.style and evaluation are read.
    index: of the data set.
    dgnet: embeddings by DG-Net.
    teacher: embeddings by the teacher.

  Returns:
    'single_query' and, where the data set has them, 'multi_query': {'chance', 'teacher', 'primary' and, in style AB,
    'fine_grained' and 'both'}; 'reranked' if `evaluation.rerank`: the same without chance; 'alphas' if
    `evaluation.alpha_steps`: a row for each weight. Values are shares of 1.

  Raises:
    UserError: there are too few images to re-rank.
  """
  num_images = len(index.query) + len(index.gallery)
  if config.evaluation.rerank and config.evaluation.reranking.k1 >= num_images:
    k1 = config.evaluation.reranking.k1
    raise UserError(f'evaluation.reranking.k1: {k1} neighbours of {num_images} images; take fewer')
  search, rows = _Search(config, index), _rows(config, dgnet, teacher)
  query, extra = index.query, index.multi_query
  tables = {'single_query': {'chance': search.chance()}}
  if len(extra):
    tables['multi_query'] = dict(tables['single_query'])
  for name, (embeddings, alpha) in rows.items():
    tables['single_query'][name] = search.ranked(embeddings.query, embeddings.gallery, alpha)
    if embeddings.multi_query is not None:
      pooled = ranking.multi_query_embedding(
        embeddings.query, query.identity, query.camera, embeddings.multi_query, extra.identity, extra.camera
      )
      tables['multi_query'][name] = search.ranked(pooled, embeddings.gallery, alpha)
  if config.evaluation.rerank:
    tables['reranked'] = {name: search.reranked(x.query, x.gallery, alpha) for name, (x, alpha) in rows.items()}
  if config.evaluation.alpha_steps and config.reid.style == 'AB':
    weights = np.linspace(0, 1, config.evaluation.alpha_steps)
    tables['alphas'] = {f'{alpha:.3g}': search.ranked(dgnet.query, dgnet.gallery, float(alpha)) for alpha in weights}
  return tables


def _heading(metric: str) -> str:
  return metric.replace('rank_', 'rank-').replace('tpr_at_', 'TPR@')


def ranking_table(title: str, table: Table, alpha: float) -> str:
  """A table for a person, shares in percent."""
  labels = LABELS | {'both': f'both, alpha {alpha:g}'}
  metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
  widths = {metric: max(10, len(_heading(metric)) + 2) for metric in metrics}
  lines = [f'{title:<24}' + ''.join(f'{_heading(metric):>{width}}' for metric, width in widths.items())]
  for name, row in table.items():
    cells = (f'{f"{100 * row[metric]:.2f}%" if metric in row else "-":>{width}}' for metric, width in widths.items())
    lines.append(f'  {labels.get(name, name):<22}' + ''.join(cells))
  return '\n'.join(lines)


def plot_roc(path: pathlib.Path, config: Config, index: DatasetIndex, dgnet: Embeddings, teacher: Embeddings) -> None:
  """True over false positive rates of all pairs, a curve for each embedding.

  Args:
    path: of the PNG.
    config: reid.style and evaluation are read.
    index: of the data set.
    dgnet: embeddings by DG-Net.
    teacher: embeddings by the teacher.
  """
  search = _Search(config, index)
  curves = {
    LABELS.get(name, name): (ROC_RATES, search.accepted(x.query, x.gallery, alpha, ROC_RATES))
    for name, (x, alpha) in _rows(config, dgnet, teacher).items()
  }
  _plot(path, curves, 'false positive rate', 'true positive rate', scale='log')


def plot_alphas(path: pathlib.Path, table: Table, chosen: float) -> None:
  """rank-1 and mAP over the weight of the fine-grained half, the configured weight marked.

  Args:
    path: of the PNG.
    table: 'alphas' of `ranking_tables`.
    chosen: the configured weight.
  """
  weights = [float(alpha) for alpha in table]
  curves = {
    label: (weights, [100 * row[metric] for row in table.values()])
    for metric, label in (('rank_1', 'rank-1'), ('mAP', 'mAP'))
  }
  _plot(path, curves, 'alpha, the weight of the fine-grained half', '%', marked=(chosen, 'evaluation.alpha'))


def _plot(
  path: pathlib.Path,
  curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
  x_label: str,
  y_label: str,
  *,
  scale: str = 'linear',
  marked: tuple[float, str] | None = None,
) -> None:
  """Curves (x, y) with a legend, as a PNG; `marked` is a place on the x axis with its label."""
  from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it takes a second
  from matplotlib.figure import Figure

  figure = Figure(figsize=(5, 3.5), layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.add_subplot(xlabel=x_label, ylabel=y_label, xscale=scale)
  for label, (x, y) in curves.items():
    axes.plot(x, y, 'o-', markersize=3, label=label)
  if marked:
    axes.axvline(marked[0], color='0.6', linestyle='--', label=marked[1])
  axes.legend()
  axes.grid(alpha=0.3)
  with whole_file(path) as aside:
    figure.savefig(aside, format='png', dpi=150)


def _records(tables: dict[str, Table]) -> Iterator[list[str]]:
  for table, rows in tables.items():
    for name, row in rows.items():
      yield from ([table, name, metric, repr(value)] for metric, value in row.items())


def write_csv(path: pathlib.Path, tables: dict[str, Table]) -> None:
  """A line for each number: table, embedding, metric, value as a share of 1."""
  lines: Iterable[list[str]] = _records(tables)
  with whole_file(path) as aside, aside.open('w', newline='') as file:
    csv.writer(file).writerows([['table', 'embedding', 'metric', 'value'], *lines])
