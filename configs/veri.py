"""Vehicles: the release's configuration on VeRi-776, with square images.

python -m dgnet_jax.main --config=configs/veri.py --workdir=runs/veri --config.data.root=VeRi

Nothing is published to compare with, and no settings are known: DG-Net was made for people. Vehicles are as wide as
they are high or wider, so images are 256x256 instead of 256x128, which doubles time and memory; --config.batch_size=4
brings the memory back. The appearance code keeps its four horizontal stripes.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'veri776'
  config.data.image_size_hw = (256, 256)
  return config
