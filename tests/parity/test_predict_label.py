"""The teacher's labels against the release's, in float64: five styles, both normalisations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.interop import torch_names
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.losses.distillation import LABEL_STYLES
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.pixels import enlarge
from dgnet_jax.training.soft_labels import soft_labels
from dgnet_jax.types import Teacher
from tests.parity import goldens

RTOL = 1e-8


class Case:
  """The golden's teacher and images."""

  def __init__(self, folder):
    self.arrays, self.meta = goldens.load_npz(folder, 'predict_label'), goldens.load_json(folder, 'predict_label')
    size = self.meta['height'], self.meta['width']
    fields = {'data.image_size_hw': size, 'teacher.last_stride': self.meta['teacher_stride']}
    self.config = goldens.config_with(fields)
    self.network = make_teacher_network(self.config, self.meta['ID_class'])
    recipe = goldens.load_recipe(folder)
    self.image = goldens.images(recipe, (self.meta['batch'], 3, *size), self.meta['image_seed'])
    donors = (recipe.make_labels(len(self.image), self.meta['ID_class'], self.meta[f'{x}label_seed']) for x in 'as')
    self.donors = np.stack(list(donors), axis=1)
    self.teacher = Teacher(
      **goldens.variables_of(folder, 'teacher', self.config, self.meta['master_seed'], self.meta['ID_class'])
    )

  def labels(self, norm):
    """Our labels in the order of the styles, for stream 0, which has the golden's appearance and structure donors."""
    streams = np.stack([self.image] * 2, axis=1)

    @jax.jit
    def every_style(teacher, streams, donors):
      return [
        soft_labels(self.network, [teacher], streams, donors, style=style, norm=norm, dropout_key=None)[:, 0]
        for style in LABEL_STYLES
      ]

    return every_style(self.teacher, streams, jnp.asarray(self.donors))


@pytest.fixture(scope='module')
def case(parity_dir):
  return Case(parity_dir)


@pytest.mark.usefixtures('x64')
class TestPredictLabel:
  def test_donors(self, case):
    np.testing.assert_array_equal(case.donors, np.stack([case.arrays['alabel'], case.arrays['slabel']], axis=1))

  @pytest.mark.parametrize(('norm', 'theirs'), [('batch', 'trainbn'), ('running', 'evalbn')])
  def test_labels(self, case, ledger, norm, theirs):
    checked = 0
    for number, labels in enumerate(case.labels(norm)):
      if (key := f'style{number}_{theirs}') in case.arrays:
        ledger.check(f'predict_label: {theirs}', goldens.relative_error(labels, case.arrays[key]), RTOL, key)
        checked += 1
    assert checked == sum(key.endswith(theirs) and '/' not in key for key in case.arrays)

  def test_batch_norm_updates_the_running_statistics(self, case, ledger):
    """A label takes two forward passes, of the image and of its mirror image (release fact 13)."""
    enlarged = enlarge(case.image, case.network.reid_scale)
    views = np.stack([enlarged, np.flip(enlarged, axis=2)], axis=1)
    apply = jax.jit(case.network.apply, static_argnames='norm')
    _, statistics = apply(case.teacher.params, case.teacher.batch_stats, views, norm='batch')
    entries = [e for e in network_entries('teacher', case.config) if e.path[0] == 'batch_stats']
    ours = torch_names.to_torch({'batch_stats': jax.device_get(statistics)}, entries)
    for name, value in ours.items():
      expected = case.arrays[f'teacher_buf_after_style0_trainbn/{name}']
      ledger.check('predict_label: BatchNorm statistics after', goldens.relative_error(value, expected), RTOL, name)
