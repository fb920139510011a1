"""The release's configuration, for MSMT17 (version 1, or 2 with blurred faces), trained for longer.

dgnet train --config=msmt17 --workdir=runs/msmt17 --config.data.root=MSMT17_V1

Reported rank-1 / mAP: DG-Net 77.2 / 52.3, primary only 76.0 / 49.7, fine-grained only 71.5 / 43.5, teacher 68.8 / 36.2
(paper).

The release's maintainer trained for 150,000 iterations because the data set is larger (its issue 28, with version 1 and
an older form of the configuration). When the learning rates dropped is not known; here they drop after the same
fraction of the run as on Market-1501. The training images are list_train and list_val;
--config.data.train_with_val=False excludes list_val.

As for Market-1501, add --config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.data.layout = 'msmt17'
  config.num_steps = 150_000
  config.optimizer.decay_steps = 90_000
  return config
