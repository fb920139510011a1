"""Ranking tables for every embedding: single and multi-query, re-ranked, and over alpha; ROC curves."""

from collections.abc import Mapping, Sequence
import csv
import dataclasses
import math
import os
from typing import NamedTuple

import numpy as np

from dgnet_jax.config.network_schema import ReidConfig
from dgnet_jax.config.schema import EvaluationConfig
from dgnet_jax.errors import UserError
from dgnet_jax.evaluation import ranking
from dgnet_jax.evaluation.embeddings import FINE_ONLY, Embeddings, pool_multi_query, weighted
from dgnet_jax.evaluation.ranking import RankingResult
from dgnet_jax.evaluation.reranking import Reranker
from dgnet_jax.evaluation.verification import true_positive_rates
from dgnet_jax.plots.charts import line_chart
from dgnet_jax.utils.atomic_files import atomic_file

Table = dict[str, dict[str, float]]  # embedding -> metric -> value as a fraction

RANKS = (1, 5, 10, 20)
FALSE_POSITIVE_RATES = (1e-4, 1e-3, 1e-2)
ROC_RATES = tuple(np.geomspace(1e-5, 1, 51))
TITLES = {
  'single_query': 'single query',
  'multi_query': 'multi-query',
  'reranked': 're-ranked',
  'alphas': 'alpha',
}


@dataclasses.dataclass(frozen=True, eq=False)
class SplitEmbeddings:
  """One network's embeddings of the test splits; `multi_query` is None if the data set has none."""

  query: Embeddings
  gallery: Embeddings
  multi_query: Embeddings | None


class TableRow(NamedTuple):
  """Embeddings, and the weight of their fine-grained half (as for `evaluation.ranking.rank`)."""

  embeddings: SplitEmbeddings
  alpha: float | None


def alpha_of(reid: ReidConfig, evaluation: EvaluationConfig) -> float | None:
  """Returns the weight of the fine-grained half; None if the embedding has no halves."""
  return evaluation.alpha if reid.style == 'AB' else None


def table_rows(
  reid: ReidConfig, evaluation: EvaluationConfig, dgnet: SplitEmbeddings, teacher: SplitEmbeddings | None
) -> dict[str, TableRow]:
  """Returns the rows of every table: teacher, if there is one, and primary and, in style AB, fine_grained and both."""
  rows = {'teacher': TableRow(teacher, None)} if teacher is not None else {}
  if reid.style != 'AB':
    return rows | {'primary': TableRow(dgnet, None)}
  alphas = {'primary': 0.0, 'fine_grained': FINE_ONLY, 'both': evaluation.alpha}
  return rows | {name: TableRow(dgnet, alpha) for name, alpha in alphas.items()}


def ranking_tables(evaluation: EvaluationConfig, rows: Mapping[str, TableRow]) -> dict[str, Table]:
  """Ranks the gallery with every row of the tables.

  Args:
    evaluation: selects the protocol and the tables.
    rows: from `table_rows`; all embed the same images.

  Returns:
    'single_query' and, if there are such images, 'multi_query': 'chance' and the given rows. If `evaluation.rerank`,
    'reranked': the given rows. If `evaluation.alpha_steps` and there is a row 'both', 'alphas': one row per weight.

  Raises:
    UserError: there are too few images to re-rank.
  """
  any_embeddings = next(iter(rows.values())).embeddings
  num_images = len(any_embeddings.query) + len(any_embeddings.gallery)
  if evaluation.rerank and evaluation.reranking.k1 >= num_images:
    k1 = evaluation.reranking.k1
    raise UserError(f'evaluation.reranking.k1 = {k1} must be less than the number of images, {num_images}')
  chance = ranking.chance(any_embeddings.query, any_embeddings.gallery, protocol=evaluation.protocol)
  tables = {'single_query': {'chance': metrics_of(chance)}}
  if any_embeddings.multi_query is not None:
    tables['multi_query'] = {'chance': metrics_of(chance)}
  for name, (embeddings, alpha) in rows.items():
    query, gallery = embeddings.query, embeddings.gallery
    tables['single_query'][name] = _ranked(query, gallery, alpha, evaluation)
    if embeddings.multi_query is not None:
      pooled = pool_multi_query(query, embeddings.multi_query)
      tables['multi_query'][name] = _ranked(pooled, gallery, alpha, evaluation)
  if evaluation.rerank:
    tables['reranked'] = {
      name: _reranked(row.embeddings.query, row.embeddings.gallery, row.alpha, evaluation) for name, row in rows.items()
    }
  if evaluation.alpha_steps and 'both' in rows:
    both, alphas = rows['both'].embeddings, np.linspace(0, 1, evaluation.alpha_steps).tolist()
    tables['alphas'] = {f'{alpha:.3g}': _ranked(both.query, both.gallery, alpha, evaluation) for alpha in alphas}
  return tables


def _ranked(
  query: Embeddings, gallery: Embeddings, alpha: float | None, evaluation: EvaluationConfig
) -> dict[str, float]:
  metrics = metrics_of(ranking.rank(query, gallery, alpha=alpha, protocol=evaluation.protocol))
  if evaluation.verification:
    rates = true_positive_rates(weighted(query, alpha), gallery, false_positive_rates=FALSE_POSITIVE_RATES)
    by_rate = zip(FALSE_POSITIVE_RATES, rates, strict=True)
    metrics |= {f'tpr_at_{false_rate:g}': rate for false_rate, rate in by_rate if not math.isnan(rate)}
  return metrics


def _reranked(
  query: Embeddings, gallery: Embeddings, alpha: float | None, evaluation: EvaluationConfig
) -> dict[str, float]:
  settings = evaluation.reranking
  # Neighbours are sought among queries and gallery images, so both sides get the root of the weight.
  root = alpha if alpha is None or alpha < 0 else math.sqrt(alpha)
  reranker = Reranker(
    weighted(query, root).features,
    weighted(gallery, root).features,
    k1=settings.k1,
    k2=settings.k2,
    weight=settings.weight,
  )
  return metrics_of(ranking.rank_scores(reranker.blocks(), query, gallery, protocol=evaluation.protocol))


def metrics_of(result: RankingResult) -> dict[str, float]:
  """Returns the metrics of a row by name, as fractions: rank_1 to rank_20, mAP and, if the protocol has it, mINP."""
  metrics = {f'rank_{k}': result.at(k) for k in RANKS} | {'mAP': result.mean_average_precision}
  if result.mean_inverse_negative_penalty is not None:
    metrics['mINP'] = result.mean_inverse_negative_penalty
  return metrics


def ranking_table(title: str, table: Table, alpha: float) -> str:
  """Formats a table as text, in percent; `alpha` is the weight in the row 'both'."""
  metrics = list(dict.fromkeys(metric for row in table.values() for metric in row))
  widths = {metric: max(10, len(_heading(metric)) + 2) for metric in metrics}
  lines = [f'{title:<24}' + ''.join(f'{_heading(metric):>{width}}' for metric, width in widths.items())]
  for name, row in table.items():
    label = f'both, alpha {alpha:g}' if name == 'both' else _label(name)
    cells = (f'{f"{100 * row[metric]:.2f}%" if metric in row else "-":>{width}}' for metric, width in widths.items())
    lines.append(f'  {label:<22}' + ''.join(cells))
  return '\n'.join(lines)


def _heading(metric: str) -> str:
  return metric.replace('rank_', 'rank-').replace('tpr_at_', 'TPR@')


def _label(name: str) -> str:
  return name.replace('_', '-')


def plot_roc(path: str | os.PathLike[str], rows: Mapping[str, TableRow]) -> None:
  """Draws true over false positive rates over all pairs as a PNG, a curve for each row."""
  curves: dict[str, tuple[Sequence[float], Sequence[float]]] = {}
  for name, (embeddings, alpha) in rows.items():
    query = weighted(embeddings.query, alpha)
    rates = true_positive_rates(query, embeddings.gallery, false_positive_rates=ROC_RATES)
    curves[_label(name)] = ROC_RATES, rates
  line_chart(path, curves, x_label='false positive rate', y_label='true positive rate', log_x=True)


def plot_alphas(path: str | os.PathLike[str], table: Table, alpha: float) -> None:
  """Draws rank-1 and mAP over the weight of the fine-grained half as a PNG.

  Args:
    path: the PNG file to write.
    table: 'alphas' of `ranking_tables`.
    alpha: the configured weight, marked by a line.
  """
  weights = [float(weight) for weight in table]
  curves = {_heading(metric): (weights, [100 * row[metric] for row in table.values()]) for metric in ('rank_1', 'mAP')}
  marker = alpha, 'evaluation.alpha'
  line_chart(path, curves, x_label='alpha, the weight of the fine-grained half', y_label='%', marker=marker)


def write_csv(path: str | os.PathLike[str], tables: Mapping[str, Table]) -> None:
  """Writes a line for each number: table, embedding, metric, value as a fraction."""
  records = [
    [table, name, metric, repr(value)]
    for table, rows in tables.items()
    for name, row in rows.items()
    for metric, value in row.items()
  ]
  with atomic_file(path) as temporary, temporary.open('w', encoding='utf-8', newline='') as file:
    csv.writer(file).writerows([['table', 'embedding', 'metric', 'value'], *records])
