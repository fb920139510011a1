"""The release's configuration, for DukeMTMC-reID.

dgnet train --config=duke --workdir=runs/duke --config.data.root=DukeMTMC-reID

Reported rank-1 / mAP: DG-Net 86.6 / 74.8, primary only 85.6 / 72.7, fine-grained only 78.7 / 61.2, teacher 82.0 / 65.3
(paper). As far as is published, only the data differs from Market-1501. A user of the release with a different teacher
got only 68.5 / 46.5 (its issue 44), so check the teacher's results first.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth

The authors withdrew the data set in 2019: do not redistribute it or weights trained on it.
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'dukemtmc'
  return config
