"""Built-in pedestrians and small networks, as configs/synthetic.py, with the generator of the release's design.

dgnet train --config=synthetic_release --workdir=runs/synthetic_release
"""

from dgnet_jax.config.defaults import default_config


def get_config():
  config = default_config()
  config.num_steps = 2_000
  config.data.layout = 'synthetic'
  config.data.loader = 'memory'
  config.data.image_size_hw = (64, 32)
  # With fewer queries, rank-1 and mAP vary more between runs than the effects to be measured (docs/ablation.md).
  config.data.synthetic.update(num_test_identities=128, num_distractors=128)
  # Cross images show how a person would look in another place; with more cameras the real images show that themselves.
  config.data.synthetic.cameras_per_identity = (3, 3)
  config.augment.crop_padding = 4

  config.structure_encoder.update(width=6, num_res_blocks=2, dilations=(1, 2, 3))
  config.decoder.update(num_res_blocks=2, mlp_width=128)
  config.discriminator.update(width=8, num_scales=2, num_res_blocks=1)
  config.reid.update(stage_sizes=(1, 1, 1, 1), width=16, head_width=128, input_scale=1, pretrained='teacher')
  # The release's teacher starts from ImageNet weights and trains its backbone at a tenth of the rate; this one starts
  # from random weights. A teacher that is much worse than its student can hold it back (docs/ablation.md).
  config.teacher.update(stage_sizes=(1, 1, 1, 1), width=16, head_width=128, num_epochs=120, decay_epoch=80)
  config.teacher.update(backbone_multiplier=1.0, last_stride=1, random_erasing_prob=0.5)

  # Small networks and few steps need larger rates than the release's. Heads at ten times the rate of the backbone would
  # be too fast for a backbone that still has to learn (docs/ablation.md). A narrow discriminator starts with small
  # gradients.
  config.optimizer.update(
    generator_learning_rate=1e-3,
    discriminator_learning_rate=1e-3,
    reid_learning_rate=0.01,
    head_multiplier=3.0,
    decay_steps=1_500,
  )
  # Images first: a re-id network that does not know the identities yet is a poor judge of generated images.
  config.weights.update(cross_identity=0.1, adversarial=0.3)
  for ramp in config.ramps.values():
    ramp.update(start_step=1_000, per_step=0.005)
  # Half of the release's: both kinds of runs end higher (docs/ablation_log.md, 14).
  config.ramps.teaching.maximum = 1.0
  # The structure donor is hard to recognize in such small images. With a large weight on it the fine-grained head gets
  # worse, apparently because it learns the background. On real images it has the release's weight, 0.2
  # (docs/ablation_log.md, 18).
  config.teaching.update(fine_grained=0.01, fine_on_real=20.0)
  config.teaching.label_style = 'donors'  # a small teacher also names other people (docs/ablation.md)
  config.log.update(images_every_steps=500, checkpoint_every_steps=500)
  return config
