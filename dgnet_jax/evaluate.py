"""The report on a trained run: rankings next to chance, pictures next to trivial answers, and sheets to look at."""

from collections.abc import Callable
import dataclasses
import functools
import json
import pathlib
from typing import Any

import jax
import numpy as np

from dgnet_jax.data.index import DISTRACTOR, JUNK, DatasetIndex
from dgnet_jax.data.open import TEST, open_dataset
from dgnet_jax.data.photos import PhotoFiles
from dgnet_jax.evaluation import ranking, sheets
from dgnet_jax.evaluation.ranking import RankingResult
from dgnet_jax.files import whole_file
from dgnet_jax.inference import embed_teacher
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.partitioning import replicated
from dgnet_jax.swap_report import measure_against_truth, write_swap_sheet
from dgnet_jax.train_teacher import load_teachers
from dgnet_jax.trained import Trained, load_trained, one_photo_each, results_folder

Log = Callable[[str], None]
Table = dict[str, dict[str, float]]

PROTOCOL = 'release'
RANKS = (1, 5, 10)
SHOWN_MATCHES = 10  # gallery pictures per query on the ranked sheet
LABELS = {
  'generated': 'generated',
  'structure': 'the structure picture itself',
  'recolored': "the same in the donor's mean colour",
}


@dataclasses.dataclass(frozen=True)
class Embeddings:
  """One network's view of the test pictures: f32[N, D] each; multi_query is None where the data set has none."""

  query: np.ndarray
  gallery: np.ndarray
  multi_query: np.ndarray | None


def _embed_splits(
  index: DatasetIndex, image_size_hw: tuple[int, int], who: str, embed: Callable[..., np.ndarray]
) -> Embeddings:
  """Applies `embed(files, what=...)` to the test splits."""
  made: dict[str, np.ndarray | None] = {}
  for name in ('query', 'gallery', 'multi_query'):
    paths = index.splits[name].paths
    made[name] = embed(PhotoFiles(paths, image_size_hw), what=f'{who}: embedding {name}') if paths else None
  return Embeddings(**made)  # type: ignore[arg-type]  # only multi_query may be empty


def _search(
  index: DatasetIndex, query_embedding: np.ndarray, gallery: np.ndarray, alpha: float | None
) -> RankingResult:
  return ranking.rank(
    query_embedding,
    index.query.identity,
    index.query.camera,
    gallery,
    index.gallery.identity,
    index.gallery.camera,
    alpha=alpha,
    protocol=PROTOCOL,
  )


def _scores(result: RankingResult) -> dict[str, float]:
  return {f'rank_{k}': result.at(k) for k in RANKS} | {'mAP': result.mean_average_precision}


def _alpha(config: Any) -> float | None:
  """Weight of the fine-grained half; None without one."""
  return config.evaluation.alpha if config.reid.style == 'AB' else None


def _ranking_tables(config: Any, index: DatasetIndex, dgnet: Embeddings, teacher: Embeddings) -> dict[str, Table]:
  """The scores of every embedding with single queries and, where the data set has them, multi-queries."""
  query, extra = index.query, index.multi_query
  chance = ranking.chance(query.identity, query.camera, index.gallery.identity, index.gallery.camera, protocol=PROTOCOL)
  rows: dict[str, tuple[Embeddings, float | None]] = {'teacher': (teacher, None)}
  if config.reid.style == 'AB':
    rows |= {'primary': (dgnet, 0.0), 'fine_grained': (dgnet, ranking.FINE_ONLY), 'both': (dgnet, _alpha(config))}
  else:
    rows |= {'primary': (dgnet, _alpha(config))}
  single, multi = {'chance': _scores(chance)}, {'chance': _scores(chance)}
  for name, (embeddings, alpha) in rows.items():
    single[name] = _scores(_search(index, embeddings.query, embeddings.gallery, alpha))
    if embeddings.multi_query is not None:
      pooled = ranking.multi_query_embedding(
        embeddings.query, query.identity, query.camera, embeddings.multi_query, extra.identity, extra.camera
      )
      multi[name] = _scores(_search(index, pooled, embeddings.gallery, alpha))
  return {'single_query': single} | ({'multi_query': multi} if len(extra) else {})


def _write_ranked_sheet(config: Any, index: DatasetIndex, dgnet: Embeddings, path: pathlib.Path) -> pathlib.Path:
  """Queries of different people with their best gallery pictures by the whole embedding."""
  query, gallery, size = index.query, index.gallery, tuple(config.data.image_size_hw)
  chosen = one_photo_each(query, config.evaluation.num_ranked_queries)
  best = ranking.best_matches(
    dgnet.query[chosen],
    query.identity[chosen],
    query.camera[chosen],
    dgnet.gallery,
    gallery.identity,
    gallery.camera,
    alpha=_alpha(config),
    count=SHOWN_MATCHES,
  )

  def label(identity: int, camera: int) -> list[str]:
    return ['distractor' if identity == DISTRACTOR else f'id {identity:04d}', f'camera {camera}']

  sheet = sheets.ranked_sheet(
    PhotoFiles([query.paths[i] for i in chosen], size)[:],
    [label(query.identity[i], query.camera[i]) for i in chosen],
    [PhotoFiles([gallery.paths[j] for j in row], size)[:] for row in best],
    [[label(gallery.identity[j], gallery.camera[j]) for j in row] for row in best],
    [(gallery.identity[row] == query.identity[i]).tolist() for i, row in zip(chosen, best, strict=True)],
  )
  return sheets.save_png(path, sheet)


def ranking_table(title: str, table: Table, alpha: float) -> str:
  """A table for a person, shares in percent."""
  labels = {'fine_grained': 'fine-grained', 'both': f'both, alpha {alpha:g}'}
  lines = [f'{title:<22}' + ''.join(f'{f"rank-{k}":>9}' for k in RANKS) + f'{"mAP":>9}']
  for name, row in table.items():
    lines.append(f'  {labels.get(name, name):<20}' + ''.join(f'{100 * value:>8.2f}%' for value in row.values()))
  return '\n'.join(lines)


def picture_table(title: str, table: Table) -> str:
  """A table for a person."""
  lines = [f'{title:<40}{"PSNR":>10}{"SSIM":>8}']
  for name, row in table.items():
    lines.append(f'  {LABELS[name]:<38}{row["psnr"]:>7.2f} dB{row["ssim"]:>8.3f}')
  return '\n'.join(lines)


def _describe(index: DatasetIndex, trained: Trained) -> dict[str, Any]:
  gallery = index.gallery.identity
  return {
    'step': trained.step,
    'data': index.name,
    'root': index.root,
    'protocol': PROTOCOL,
    'num_queries': len(index.query),
    'num_gallery': len(index.gallery),
    'num_distractors': int((gallery == DISTRACTOR).sum()),
    'num_junk': int((gallery == JUNK).sum()),
    'num_multi_query': len(index.multi_query),
  }


def evaluate(config: Any, workdir: str | pathlib.Path, *, log: Log = print) -> dict[str, Any]:
  """Reports on the newest checkpoint of a run: tables for `log`, results and sheets in `<workdir>/evaluation`.

  The config may name other data than the run was trained on (direct transfer): then they are in a folder of their own,
  `<workdir>/evaluation/on_<layout>_<root>`, and the teacher is judged on the same data.


  Args:
    config: of the run, validated.
    workdir: of the run.
    log: takes the tables and progress lines.

  Returns:
    What results.json holds: what was evaluated, `single_query` and, if the data set has gt_bbox, `multi_query`
    ({'teacher', 'primary', 'chance'} and, in style AB, 'fine_grained' and 'both' -> rank_1, rank_5, rank_10, mAP, as
    shares of 1), on the built-in pedestrians `pictures` ({'generated', 'structure', 'recolored'} -> psnr in dB, ssim),
    and `files`.

  Raises:
    UserError: data set, checkpoint or teacher are missing, damaged or do not fit; says which.
  """
  workdir = pathlib.Path(workdir)
  index = open_dataset(config, workdir, needs=TEST, log=log)
  trained = load_trained(config, workdir)
  results = _describe(index, trained)
  counts = f'{results["num_queries"]} queries, {results["num_gallery"]} gallery pictures'
  log(f'evaluating step {trained.step} on {index.name}: {counts}')
  size = tuple(config.data.image_size_hw)
  dgnet = _embed_splits(index, size, 'DG-Net', functools.partial(trained.embed, log=log))
  teacher = _embed_splits(index, size, 'teacher', _teacher_embedder(config, trained, workdir, log))
  tables = _ranking_tables(config, index, dgnet, teacher)
  for name, title in (('single_query', 'single query'), ('multi_query', 'multi-query')):
    if name in tables:
      log(ranking_table(title, tables[name], config.evaluation.alpha))
  results |= tables

  folder = results_folder(config, index, workdir, 'evaluation')
  files = {'swaps': folder / 'swaps.png', 'ranked': folder / 'ranked.png'}
  write_swap_sheet(config, index, trained, files['swaps'])
  _write_ranked_sheet(config, index, dgnet, files['ranked'])
  if config.data.layout == 'synthetic':
    files['truth'] = folder / 'truth.png'
    results['pictures'] = measure_against_truth(config, index, trained, files['truth'], log=log)
    title = f'{config.evaluation.num_truth_pairs} cross pictures against the truth'
    log(picture_table(title, results['pictures']))
  results['files'] = {name: path.name for name, path in files.items()}
  with whole_file(folder / 'results.json') as aside:
    aside.write_text(json.dumps(results, indent=2) + '\n')
  log(f'results and pictures: {", ".join(str(path) for path in (folder / "results.json", *files.values()))}')
  return results


def _teacher_embedder(config: Any, trained: Trained, workdir: pathlib.Path, log: Log) -> Callable[..., np.ndarray]:
  """`inference.embed_teacher` with the run's teacher, the first of several."""
  teacher = load_teachers(config, trained.num_identities, workdir)[0]
  teacher = jax.device_put(jax.device_get(teacher), replicated(trained.mesh))  # from all processes' devices to ours
  network = make_teacher_network(config, trained.num_identities)

  def embed(files: PhotoFiles, *, what: str) -> np.ndarray:
    return embed_teacher(
      network,
      teacher.params,
      teacher.batch_stats,
      files,
      config.evaluation.batch_size,
      mesh=trained.mesh,
      log=log,
      what=what,
    )

  return embed
