"""Is joint training worth it, on pedestrians that anyone can render? The settings of `dgnet ablation`.

dgnet ablation --out=runs/ablation                              # small: for a CPU
dgnet ablation --out=runs/ablation_more --setting=more_cameras  # as small, four to six cameras per person
dgnet ablation --out=runs/ablation_large --setting=large        # a GPU: 256x128, ResNet-50, 8,192 images

A single run of the small setting:

dgnet train --config=ablation --workdir=runs/ablation_one
"""

import pathlib

from dgnet_jax.config.loading import read_config_file


def _read(name):
  return read_config_file(pathlib.Path(__file__).parent / f'{name}.py')


def small(release=False):
  """Returns the config `synthetic`, or `synthetic_release` for the generator of the release's design."""
  return _read('synthetic_release' if release else 'synthetic')


def more_cameras(release=False):
  """Like `small`, but four to six of the six cameras see each person instead of three: real images teach more."""
  config = small(release)
  config.data.synthetic.cameras_per_identity = (4, 6)
  return config


def large(release=False):
  """The release's re-id network and sizes on thousands of rendered images; a tenth of its schedule."""
  config = _read('market' if release else 'market_correspondence')
  config.data.update(layout='synthetic', loader='memory')
  config.data.synthetic.update(
    num_train_identities=512, num_test_identities=256, images_per_identity=16, num_distractors=512, num_junk=256
  )
  config.data.synthetic.image_size_hw = (256, 128)
  config.data.synthetic.cameras_per_identity = small().data.synthetic.cameras_per_identity
  config.num_steps = 10_000
  config.reid.pretrained = 'teacher'
  # Without ImageNet weights the backbone needs the full rate. The results of the small setting are assumed to hold
  # (docs/ablation.md), except that the fine-grained head has the release's weight: larger images may let it learn.
  config.teacher.update(last_stride=config.reid.last_stride, backbone_multiplier=1.0, random_erasing_prob=0.5)
  config.teaching.label_style = 'donors'
  config.optimizer.decay_steps = 6_000
  for ramp in config.ramps.values():
    ramp.update(start_step=3_000, per_step=0.005)
  config.ramps.teaching.maximum = 1.0
  config.evaluation.num_ground_truth_pairs = 2_048  # more than the dimensions of the teacher's feature
  config.log.update(images_every_steps=1_000, checkpoint_every_steps=1_000)
  return config


SETTINGS = {'small': small, 'more_cameras': more_cameras, 'large': large}


def get_config(setting='small', release=False):
  return SETTINGS[setting](release)
