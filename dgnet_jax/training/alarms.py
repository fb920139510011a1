"""Warnings about losses that are finite, but show that a run goes wrong: spikes, and parts that have collapsed."""

from collections.abc import Mapping, Sequence
import math
import statistics

from dgnet_jax.config.network_schema import DiscriminatorConfig

Losses = Mapping[str, float]

# All alarms look at the last reports, each the mean of log.progress_every_steps steps, and a part has collapsed if it
# has in all of them: single reports are noisy, and losses move through any value now and then.
WINDOW = 10
# Training makes the total fall slowly. In two runs of configs/synthetic.py, and in 1,100 steps of
# configs/synthetic_release.py with the start of its ramps, a report was at most 1.21 times the median of the ten
# before.
SPIKE = 5.0
# Of the discriminator's loss at chance. It is then sure of nearly every image, and its verdict hardly depends on what
# the generator does.
ALWAYS_WINS = 0.02
# Relative distance to the loss at chance. A discriminator that answers the same for all images is at chance to the
# third digit. A good generator also brings it near chance, so the distance must be small: in two runs of
# configs/synthetic.py most reports were 0.007 to 0.022 away, and the farthest of any ten at least 0.010.
AT_CHANCE = 0.002
# Mean of design correspondence's mask. A person's clothes fill a part of the image, in those runs 0.38 to 0.69.
EMPTY_MASK, FULL_MASK = 0.01, 0.99


def find_alarms(reports: Sequence[Losses], discriminator: DiscriminatorConfig) -> dict[str, str]:
  """Returns what is wrong with a run: a kind of alarm, and what to tell the user.

  Args:
    reports: mean losses of consecutive reports with the same terms, the newest last.
    discriminator: section of the config.
  """
  alarms = {}
  current, before = (
    reports[-1].get('total'),
    [report['total'] for report in reports[-WINDOW - 1 : -1] if 'total' in report],
  )
  # A critic's loss makes the total negative at times; there is no ratio then.
  if current is not None and len(before) == WINDOW and current > SPIKE * statistics.median(before) > 0:
    alarms['spike'] = (
      f'the total loss, {current:.3g}, is more than {SPIKE:g} times the median of the {WINDOW} reports before, '
      f'{statistics.median(before):.3g}. If it stays there, lower the learning rates (optimizer.*), and resume from an '
      'earlier checkpoint'
    )
  chance = loss_at_chance(discriminator)
  verdicts = _last(reports, 'discriminator')
  if chance and verdicts and max(verdicts) < ALWAYS_WINS * chance:
    alarms['discriminator_wins'] = (
      f"the discriminator's loss has been below {ALWAYS_WINS * chance:.2g} for {WINDOW} reports (by chance: "
      f'{chance:.3g}): it always wins, and the generator learns little from it. Lower '
      'optimizer.discriminator_learning_rate, or raise discriminator.r1_weight'
    )
  if chance and verdicts and all(abs(loss - chance) < AT_CHANCE * chance for loss in verdicts):
    alarms['discriminator_at_chance'] = (
      f"the discriminator's loss has been {chance:.3g}, that of chance, for {WINDOW} reports: it does not tell "
      'generated images from real ones. Raise optimizer.discriminator_learning_rate, or lower discriminator.r1_weight'
    )
  areas = _last(reports, 'mask_area')
  if areas and max(areas) < EMPTY_MASK:
    alarms['empty_mask'] = (
      f'the mask has covered less than {EMPTY_MASK:.0%} of the image for {WINDOW} reports: nothing gets new clothes. '
      'Lower weights.mask_area, or raise weights.erasure'
    )
  if areas and min(areas) > FULL_MASK:
    alarms['full_mask'] = (
      f'the mask has covered more than {FULL_MASK:.0%} of the image for {WINDOW} reports: it does not separate clothes '
      'from the rest. Raise weights.mask_area, or lower weights.erasure'
    )
  return alarms


def loss_at_chance(discriminator: DiscriminatorConfig) -> float | None:
  """Returns the loss of a discriminator that answers the same for all images; None for a critic, which has no such."""
  at_scale = {'lsgan': 0.5, 'nsgan': 2 * math.log(2)}.get(discriminator.gan_type)
  return None if at_scale is None else at_scale * discriminator.num_scales


def _last(reports: Sequence[Losses], name: str) -> list[float]:
  """Returns the last values of a loss; none if there are too few."""
  values = [report[name] for report in reports[-WINDOW:] if name in report]
  return values if len(values) == WINDOW else []


class Alarms:
  """Looks at the reports of a run. Starts with an empty window, at a start of the run and when the terms change."""

  def __init__(self, discriminator: DiscriminatorConfig) -> None:
    """Args:
    discriminator: section of the config.
    """
    self._discriminator = discriminator
    self._reports: list[Losses] = []
    self._raised: set[str] = set()

  def add(self, losses: Losses) -> list[str]:
    """Adds a report, and returns the alarms that were not raised in the report before."""
    if self._reports and losses.keys() != self._reports[-1].keys():
      self._reports.clear()
    self._reports = [*self._reports, losses][-WINDOW - 1 :]
    alarms = find_alarms(self._reports, self._discriminator)
    new = [text for kind, text in alarms.items() if kind not in self._raised]
    self._raised = set(alarms)
    return new
