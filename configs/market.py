"""The release's configuration, for Market-1501.

dgnet train --config=market --workdir=runs/market --config.data.root=Market-1501-v15.09.15

Reported rank-1 / mAP: DG-Net 94.8 / 86.0, primary only 94.0 / 84.4, fine-grained only 91.6 / 75.3, teacher 89.6 / 74.5
(paper).

The release starts both backbones from torchvision's ImageNet weights, and so should you: download the ResNet-50 (.pth
or .safetensors; docs/market1501.md says which) and add --config.reid.pretrained=resnet50.pth
--config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()  # every default is the release's value
  config.data.layout = 'market1501'
  return config
