"""A report about a run as one HTML file, from the files of its work folder alone. Needs no JAX."""

import os
import pathlib

import dgnet_jax
from dgnet_jax.reports import report_results
from dgnet_jax.reports import report_sections as parts
from dgnet_jax.reports.html_page import Section, join, missing, page
from dgnet_jax.reports.inlined_images import InlinedImages
from dgnet_jax.reports.run_description import describe_run
from dgnet_jax.storage.local_copies import fetched
from dgnet_jax.storage.run_files import shown_in_reports
from dgnet_jax.training.run_record import read_starts
from dgnet_jax.utils.atomic_files import atomic_file


def write_report(workdir: str | os.PathLike[str], path: pathlib.Path) -> list[str]:
  """Writes the report about a run.

  Args:
    workdir: its work folder, also on object storage, of this or an earlier version.
    path: the HTML file to write.

  Returns:
    A line for each image that had no room in the file.

  Raises:
    UserError: it is not the work folder of a run, or its config, record or results are damaged.
  """
  folder = fetched(workdir, shown_in_reports)
  description, images = describe_run(folder), InlinedImages()
  evaluations = report_results.read_evaluations(folder)
  figures, title = parts.read_figures(folder), folder.resolve().name
  # In the order of their worth while there is room for images; shown in another.
  failures = parts.failures(folder, figures, images)
  embeddings = parts.embeddings(folder, figures, images)
  curves = parts.curves(folder, title, images)
  results = report_results.results_section(evaluations, images)
  generated = parts.generated(folder, images)
  sections = [
    report_results.overview(description, evaluations, figures),
    parts.settings(description),
    parts.data(description, report_results.own_results(evaluations), figures),
    parts.training(description, read_starts(folder)),
    results,
    report_results.same_person(folder),
    curves,
    embeddings,
    failures,
    generated,
  ]
  if images.left_out:
    sections.append(Section('left_out', 'Left out', join(*map(missing, images.left_out))))
  text = page(title, f'A run of DG-Net in {workdir}', sections, f'dgnet report, dgnet_jax {dgnet_jax.__version__}')
  with atomic_file(path) as temporary:
    temporary.write_text(text, encoding='utf-8')
  return images.left_out
