"""Names and their order in the release's state dicts, against the goldens."""

import pytest

from dgnet_jax.config.schema import Config
from dgnet_jax.interop.release.names import (
  OURS,
  default_extras,
  in_release_order,
  network_entries,
  parameters_in_order,
)
from dgnet_jax.interop.strict import is_unused
from tests.parity import goldens


def test_arrays_and_order_of_every_variant(parity_dir):
  for variant, shapes in goldens.load_json(parity_dir, 'shapes').items():
    if variant == 'ft_net_dense':  # a DenseNet, which is not supported
      continue
    network = variant.split('_')[0] if variant.startswith(('gen', 'dis')) else 'id'
    ours = {name: shape for name, shape in shapes.items() if not is_unused(name)}
    extras = {name: list(array.shape) for name, array in default_extras(network, ours).items()}
    assert ours | extras == shapes, variant
    assert in_release_order(sorted(shapes)) == list(shapes), variant


@pytest.mark.parametrize('network', OURS)
def test_order_of_the_parameters_in_the_optimizer(parity_dir, network):
  groups = goldens.load_json(parity_dir, 'optim')[f'{network}_opt']['groups']
  shapes = goldens.shapes_of(parity_dir, network, goldens.release_identities(parity_dir))
  assert parameters_in_order(shapes) == sum((group['params'] for group in groups), [])


def test_unknown_network_is_rejected():
  with pytest.raises(ValueError, match=r"network='vgg' must be one of \('gen', 'dis', 'id', 'teacher'\)"):
    network_entries('vgg', Config())
