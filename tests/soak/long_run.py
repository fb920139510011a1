"""10,000 steps of tiny networks, for `dgnet benchmark run`: the release's generator."""

from tests.tiny_run import tiny_config


def long_run(config):
  """The second phase begins in the middle; images and checkpoints as often as in a real run of this length."""
  config.num_steps = 10_000
  config.data.synthetic.image_size_hw = (32, 16)
  for ramp in config.ramps.values():
    ramp.update(start_step=4_998, per_step=0.01)
  config.log.update(progress_every_steps=20, images_every_steps=1_000, checkpoint_every_steps=500)
  return config


def get_config():
  return long_run(tiny_config())
