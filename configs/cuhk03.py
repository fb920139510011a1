"""The release's configuration, for CUHK03-NP (the 767/700 protocol) with detected boxes.

dgnet train --config=cuhk03 --workdir=runs/cuhk03 --config.data.root=cuhk03-np

Reported rank-1 / mAP: DG-Net 65.6 / 61.1 (the release's README, which does not say with which boxes). The settings of
that result are not known. These are the ones for Market-1501, which has 1.8 times as many training images.
--config.data.boxes=labeled selects the hand-drawn boxes.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'cuhk03'
  config.data.boxes = 'detected'
  return config
