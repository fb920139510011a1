"""Like `long_run`, with the generator that fetches pixels, which is trained to the end."""

from tests.soak.long_run import long_run
from tests.tiny_run import correspondence_config


def get_config():
  config = long_run(correspondence_config())
  config.optimizer.generator_steps = 0
  return config
