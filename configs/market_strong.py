"""Market-1501 with a strong teacher: the training tricks of Luo et al. 2019 (docs/strong_baseline.md).

dgnet train --config=market_strong --workdir=runs/market_strong --config.data.root=Market-1501-v15.09.15

This trains the teacher, and then DG-Net with it, otherwise with the release's settings. For the teacher alone,
`dgnet teacher` takes the same arguments. Both backbones should start from ImageNet weights, as in configs/market.py:
--config.reid.pretrained=resnet50.pth --config.teacher.pretrained=resnet50.pth
"""

from dgnet_jax.config.loading import read_config_file


def get_config():
  config = read_config_file('market')
  # The paper's: 16 identities with 4 images, 120 epochs with a warm-up of 10, last stride 1, random erasing, label
  # smoothing, BNNeck, and identification plus triplet loss.
  config.teacher.update(batch_size=64, images_per_identity=4, num_epochs=120, warmup_epochs=10, last_stride=1)
  config.teacher.update(random_erasing_prob=0.5, label_smoothing=0.1, neck='bnneck', triplet=1.0, triplet_margin=0.3)
  # The paper's optimizer is Adam with two drops. Ours is the release's SGD, whose rate is for batches of 32: it goes
  # with the batch size, and a cosine needs no steps to be chosen.
  config.teacher.update(learning_rate=0.1, schedule='cosine')
  return config
