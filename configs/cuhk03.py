"""The release's configuration, on CUHK03-NP (the 767/700 protocol), detected boxes.

python -m dgnet_jax.main --config=configs/cuhk03.py --workdir=runs/cuhk03 --config.data.root=cuhk03-np

To compare with, rank-1 / mAP: DG-Net 65.6 / 61.1 (the release's README, which does not say whose boxes). With which
settings is not known: these are the ones for Market-1501, which has 1.8 times as many training images.
--config.data.boxes=labeled takes the hand-drawn boxes.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'cuhk03'
  config.data.boxes = 'detected'
  return config
