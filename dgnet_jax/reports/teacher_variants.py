"""The teachers that `dgnet ablation --teacher` compares: a list of titles with config fields."""

from collections.abc import Mapping
from typing import Any

Fields = Mapping[str, Any]

# What the release's teacher has; sizes, rates and epochs are those of the config.
RELEASE: Fields = {'teacher.last_stride': 2, 'teacher.random_erasing_prob': 0.0}
# Each is added to the release's settings alone, and in the last row all are. The gradient of the circle loss grows with
# weight times scale, which SGD, other than Adam, does not undo: with weight 1 and fast-reid's scale of 128 it drowns
# the identification (docs/strong_baseline.md).
OPTIONS: tuple[tuple[str, Fields], ...] = (
  ('last stride 1', {'teacher.last_stride': 1}),
  ('random erasing', {'teacher.random_erasing_prob': 0.5}),
  ('label smoothing', {'teacher.label_smoothing': 0.1}),
  ('identity batches', {'teacher.images_per_identity': 4}),
  ('identity batches, triplet loss', {'teacher.images_per_identity': 4, 'teacher.triplet': 1.0}),
  (
    'identity batches, circle loss',
    {'teacher.images_per_identity': 4, 'teacher.circle': 0.3, 'teacher.circle_scale': 32.0},
  ),
  ('cosine', {'teacher.schedule': 'cosine'}),
  ('generalized mean', {'teacher.pool': 'gem'}),
  ('BNNeck', {'teacher.neck': 'bnneck'}),
  ('IBN-a', {'teacher.backbone': 'resnet_ibn_a'}),
)
# Another network rather than an option of this one, and so not in the last row.
OSNET: Fields = {
  'teacher.backbone': 'osnet',
  'teacher.stage_sizes': (2, 2, 2),
  'teacher.width': 16,
  'teacher.last_stride': 1,
}
BASELINE = "release's settings"
VARIANTS: tuple[tuple[str, Fields], ...] = (
  (BASELINE, RELEASE),
  *((f'+ {title}', {**RELEASE, **fields}) for title, fields in OPTIONS),
  ('OSNet x0.25', {**RELEASE, **OSNET}),
  ('all together', {**RELEASE, **{name: value for _, fields in OPTIONS for name, value in fields.items()}}),
)


def varied_fields() -> list[str]:
  """Returns the fields in which the teachers differ, or in which they all have the release's value."""
  return sorted({name for _, fields in VARIANTS for name in fields})
