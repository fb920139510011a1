"""Vehicles: the release's configuration for VeRi-776, with square images.

dgnet train --config=veri --workdir=runs/veri --config.data.root=VeRi

There are no published results or settings, because DG-Net was made for people. Vehicles are at least as wide as they
are high, so images are 256x256 instead of 256x128. That doubles time and memory; --config.batch_size=4 halves the
memory again. The appearance code keeps its four horizontal stripes.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'veri776'
  config.data.image_size_hw = (256, 256)
  return config
