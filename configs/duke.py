"""The release's configuration, on DukeMTMC-reID.

python -m dgnet_jax.main --config=configs/duke.py --workdir=runs/duke --config.data.root=DukeMTMC-reID

To compare with, rank-1 / mAP: DG-Net 86.6 / 74.8, primary only 85.6 / 72.7, fine-grained only 78.7 / 61.2, teacher
82.0 / 65.3 (paper). Nothing but the data differs from Market-1501 in what is published. A user of the release with
a teacher of other origin came to 68.5 / 46.5 only (its issue 44): look at the teacher's row first.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth

The data set was withdrawn by its authors in 2019: neither it nor weights trained on it should be passed on.
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'dukemtmc'
  return config
