"""Measures alternatives in turns, and prints their times as ratios to a reference."""

from collections.abc import Callable, Mapping
import statistics
import time

# Runs an alternative once. May return its duration in seconds, if not all of the call should count.
Alternative = Callable[[], float | None]


def median_seconds(alternatives: Mapping[str, Alternative], rounds: int) -> dict[str, float]:
  """Returns the median duration of each alternative.

  The alternatives take turns, so that other load on the machine affects all of them equally.

  Args:
    alternatives: functions by name.
    rounds: number of calls of each alternative that count. One more beforehand, which compiles, does not.
  """
  seconds: dict[str, list[float]] = {name: [] for name in alternatives}
  for turn in range(rounds + 1):
    for name, alternative in alternatives.items():
      start = time.perf_counter()
      own_measurement = alternative()
      elapsed = time.perf_counter() - start
      if turn:
        seconds[name].append(elapsed if own_measurement is None else own_measurement)
  return {name: statistics.median(values) for name, values in seconds.items()}


def print_ratios(seconds: Mapping[str, float], reference: str) -> None:
  """Prints a line for each alternative: seconds, and the ratio to the reference's seconds."""
  width = max(map(len, seconds))
  for name, value in seconds.items():
    print(f'  {name:<{width}}  {value:8.3f} s  {value / seconds[reference]:6.2f}x')
