"""Charts are written as PNG files of the expected size."""

import numpy as np
from PIL import Image

from dgnet_jax.plots.charts import dot_chart, line_chart


def pixels(path):
  with Image.open(path) as image:
    assert image.format == 'PNG'
    return np.asarray(image.convert('RGB')).astype(int)


def test_line_chart_draws_its_marker(tmp_path):
  curves = {'rank-1': ([0, 0.5, 1], [60, 70, 65])}
  plain = pixels(line_chart(tmp_path / 'a.png', curves, x_label='alpha', y_label='%'))
  marked = pixels(line_chart(tmp_path / 'b.png', curves, x_label='alpha', y_label='%', marker=(0.25, 'chosen')))
  assert plain.shape == marked.shape and (plain != marked).any()


def test_line_chart_on_a_logarithmic_axis(tmp_path):
  curves = {'both': ([1e-4, 1e-2, 1], [0.2, 0.5, 1])}
  linear = pixels(line_chart(tmp_path / 'a.png', curves, x_label='x', y_label='y'))
  logarithmic = pixels(line_chart(tmp_path / 'new' / 'b.png', curves, x_label='x', y_label='y', log_x=True))
  assert (linear != logarithmic).any()
  assert [path.name for path in (tmp_path / 'new').iterdir()] == ['b.png']


def test_dot_chart_grows_with_rows_and_panels(tmp_path):
  rows = {'teacher': [50.0, 52.0], 'DG-Net': [60.0, 63.0]}
  one = pixels(dot_chart(tmp_path / 'a.png', {'rank-1': rows}))
  two = pixels(dot_chart(tmp_path / 'b.png', {'rank-1': rows, 'mAP': rows}))
  taller = pixels(dot_chart(tmp_path / 'c.png', {'rank-1': rows | {'both': [1.0, 2.0]}}))
  assert two.shape[1] == 2 * one.shape[1] and taller.shape[0] > one.shape[0]
