"""Compares the release's files before and after a round trip."""

import numpy as np

from dgnet_jax.interop.torch_file import read_torch


def assert_same(actual, expected, path=''):
  """Asserts that arrays are equal bit for bit and in the same order; returns how many there are.

  A parameter group of an optimizer may have more settings than expected.
  """
  if isinstance(expected, np.ndarray):
    assert (actual.dtype, actual.shape, actual.tobytes()) == (expected.dtype, expected.shape, expected.tobytes()), path
    return 1
  if isinstance(expected, dict):
    assert list(actual) == list(expected) or 'params' in expected, path
    return sum(assert_same(actual[key], expected[key], f'{path}/{key}') for key in expected)
  if isinstance(expected, list):
    assert len(actual) == len(expected), path
    return sum(assert_same(x, y, path) for x, y in zip(actual, expected, strict=True))
  assert actual == expected, path
  return 0


def assert_same_files(actual, expected):
  """Asserts that two folders have the same torch files; returns how many arrays they have."""
  files = sorted(path.relative_to(expected) for path in expected.rglob('*.pt*'))
  assert sorted(path.relative_to(actual) for path in actual.rglob('*.pt*')) == files
  return sum(assert_same(read_torch(actual / file), read_torch(expected / file), str(file)) for file in files)


def assert_has_settings(actual, expected):
  """Asserts that the nested settings of a config.yaml contain others."""
  for key, value in expected.items():
    assert actual[key] == value if not isinstance(value, dict) else value.items() <= actual[key].items(), key
