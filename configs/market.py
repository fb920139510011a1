"""The release's configuration, on a Market-1501 folder.

python -m dgnet_jax.main --config=configs/market.py --workdir=runs/market --config.data.root=Market-1501-v15.09.15

The release starts both backbones from torchvision's ImageNet weights, and so should you. With such a file at hand (.pth
or .safetensors), add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()  # every default is the release's value
  config.data.layout = 'market1501'
  return config
