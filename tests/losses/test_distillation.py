"""The teacher's labels and the loss that distils them."""

import jax
import jax.numpy as jnp
from jax.test_util import check_grads
import numpy as np
import pytest

from dgnet_jax.losses.distillation import LABEL_STYLES, soft_label_kl, teacher_soft_labels


class TestSoftLabelKl:
  def test_value_by_hand(self):
    student = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5], [0.9, 0.1]]))
    teacher = jnp.array([[0.5, 0.5], [0.5, 0.5], [1.0, 0.0]])
    expected = [0.5 * np.log(2) + 0.5 * np.log(2 / 3), 0.0, -np.log(0.9)]
    np.testing.assert_allclose(soft_label_kl(student, teacher), expected, atol=1e-7)

  def test_gradient_reaches_the_student_only(self):
    student, teacher = jnp.array([[0.3, -1.0, 2.0]]), jnp.array([[0.0, 0.2, 0.8]])
    to_student, to_teacher = jax.grad(lambda s, t: soft_label_kl(s, t).sum(), argnums=(0, 1))(student, teacher)
    np.testing.assert_allclose(to_student, jax.nn.softmax(student) - teacher, atol=1e-6)
    assert not to_teacher.any()

  @pytest.mark.usefixtures('x64')
  def test_gradient_precision_jit_and_vmap(self):
    generator = np.random.default_rng(0)
    student, teacher = generator.normal(size=(3, 2, 5)), generator.dirichlet(np.ones(5), size=(3, 2))
    loss = jax.jit(jax.vmap(soft_label_kl, in_axes=1, out_axes=1))
    check_grads(lambda s: loss(s, teacher), (student,), order=1)
    assert loss(student, teacher).dtype == 'float64'
    np.testing.assert_allclose(
      loss(student, teacher)[:, 1], soft_label_kl(jnp.asarray(student[:, 1]), jnp.asarray(teacher[:, 1]))
    )

  def test_wrong_shapes_are_reported(self):
    with pytest.raises(ValueError, match='student_logits.shape=.* teacher_probs.shape='):
      soft_label_kl(jnp.zeros((2, 3)), jnp.zeros((2, 4)))


class TestTeacherSoftLabels:
  logits = jnp.log(jnp.array([[0.1, 0.2, 0.7], [0.6, 0.3, 0.1]]))
  mirrored = jnp.log(jnp.array([[0.3, 0.4, 0.3], [0.2, 0.7, 0.1]]))
  donors = {'appearance_identity': jnp.array([0, 2]), 'structure_identity': jnp.array([1, 2])}

  @pytest.mark.parametrize(
    ('style', 'expected'),
    [
      ('soft', [[0.2, 0.3, 0.5], [0.4, 0.5, 0.1]]),
      ('argmax', [[0, 0, 1], [0, 1, 0]]),
      ('appearance', [[1, 0, 0], [0, 0, 1]]),
      ('uniform', [[1 / 3] * 3] * 2),
      ('donors', [[0.4, 0.6, 0], [0, 0, 1]]),
    ],
  )
  def test_values_by_hand(self, style, expected):
    labels = teacher_soft_labels(self.logits, self.mirrored, style=style, **self.donors)
    np.testing.assert_allclose(labels, expected, rtol=1e-6)

  @pytest.mark.parametrize(('style', 'expected'), [('soft', [[0.35, 0.35, 0.3]]), ('donors', [[0.5, 0.5, 0]])])
  def test_several_teachers_are_averaged(self, style, expected):
    """The second teacher predicts 0.5, 0.4, 0.1 for both views; the donors are the first two identities."""
    second = jnp.log(jnp.array([0.5, 0.4, 0.1]))
    both = [jnp.stack([logits[0], second])[None] for logits in (self.logits, self.mirrored)]
    first = {name: identity[:1] for name, identity in self.donors.items()}
    np.testing.assert_allclose(teacher_soft_labels(*both, style=style, **first), expected, rtol=1e-6)

  @pytest.mark.parametrize('style', LABEL_STYLES)
  def test_no_gradient_reaches_the_teacher(self, style):
    weights = jnp.array([[1.0, 2.0, 3.0], [3.0, 1.0, 0.0]])
    gradient = jax.grad(lambda x: (weights * teacher_soft_labels(x, x, style=style, **self.donors)).sum())(self.logits)
    assert not gradient.any()

  @pytest.mark.usefixtures('x64')
  def test_styles_equal_the_release(self, parity_dir):
    with np.load(parity_dir / 'predict_label.npz') as golden:
      # With the logarithm of style 0 as logits, both softmaxes equal style 0.
      logits = jnp.log(golden['style0_trainbn'])
      for number, style in enumerate(LABEL_STYLES):
        labels = teacher_soft_labels(
          logits,
          logits,
          style=style,
          appearance_identity=jnp.asarray(golden['alabel']),
          structure_identity=jnp.asarray(golden['slabel']),
        )
        np.testing.assert_allclose(labels, golden[f'style{number}_trainbn'], rtol=1e-12, atol=1e-15)

  def test_wrong_arguments_are_reported(self):
    with pytest.raises(ValueError, match="style='warm'.*'soft', 'argmax'"):
      teacher_soft_labels(self.logits, self.mirrored, style='warm')
    with pytest.raises(ValueError, match="'donors' needs appearance_identity"):
      teacher_soft_labels(self.logits, self.mirrored, style='donors')
    with pytest.raises(ValueError, match='needs structure_identity.*(3,)'):
      teacher_soft_labels(
        self.logits, self.mirrored, style='donors', **(self.donors | {'structure_identity': jnp.zeros(3, int)})
      )
    with pytest.raises(ValueError, match='mirrored_logits.shape='):
      teacher_soft_labels(self.logits, self.mirrored[:1])
