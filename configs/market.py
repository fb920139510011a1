"""The release's configuration, for Market-1501.

dgnet train --config=market --workdir=runs/market --config.data.root=Market-1501-v15.09.15

The release starts both backbones from torchvision's ImageNet weights, and so should you: download a file (.pth or
.safetensors) and add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()  # every default is the release's value
  config.data.layout = 'market1501'
  return config
