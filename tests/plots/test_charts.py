"""Charts are written as PNG files of the expected size."""

import numpy as np
from PIL import Image

from dgnet_jax.plots.charts import NAME_LENGTH, dot_chart, histogram_chart, line_chart, matrix_chart, short_name


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


def test_matrix_chart_leaves_unknown_cells_empty(tmp_path):
  names = {'rows': ['1', '$x$'], 'columns': ['camera 2', '$\\frac$'], 'row_label': 'query', 'column_label': 'gallery'}
  known = pixels(matrix_chart(tmp_path / 'a.png', {'mAP': np.array([[90.0, 70], [80, 85]])}, **names))
  unknown = pixels(matrix_chart(tmp_path / 'b.png', {'mAP': np.array([[np.nan, 70], [80, np.nan]])}, **names))
  assert known.shape == unknown.shape and (unknown == 255).all(-1).sum() > (known == 255).all(-1).sum() + 5_000
  empty = matrix_chart(tmp_path / 'c.png', {'mAP': np.full((2, 2), np.nan)}, **names)
  assert pixels(empty).shape == known.shape


def test_matrix_chart_stays_bounded(tmp_path):
  names = [str(i) for i in range(60)]
  chart = pixels(
    matrix_chart(tmp_path / 'a.png', {'x': np.eye(60)}, rows=names, columns=names, row_label='', column_label='')
  )
  assert max(chart.shape) < 2_000


def test_histograms_are_shares_of_their_own_sums(tmp_path):
  edges = np.linspace(0, 1, 5)
  few, many = (
    pixels(histogram_chart(tmp_path / f'{n}.png', edges, counts, [(0.5, 'threshold')], x_label='score'))
    for n, counts in enumerate(
      [
        {'same': np.array([0, 0, 1, 1]), 'other': np.array([1, 1, 0, 0])},
        {'same': np.array([0, 0, 9, 9]), 'other': np.array([5, 5, 0, 0])},
      ]
    )
  )
  np.testing.assert_array_equal(few, many)


def test_long_names_are_cut():
  assert short_name('camera 3') == 'camera 3' and short_name('a\nb') == 'a\\nb'
  assert len(short_name('x' * 99)) == NAME_LENGTH
