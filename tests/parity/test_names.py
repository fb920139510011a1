"""Our arrays have the release's names and shapes, for every network that the release saves."""

import pytest

from tests.parity import goldens

# Buffers that the release saves and some of our networks do not have.
BUFFERS = ('running_mean', 'running_var', 'num_batches_tracked')
# By name in shapes.json: the network, and the fields of its config.
KINDS = {
  'gen': ('gen', {}),
  'gen_dec_series': ('gen', {'decoder.block': 'series'}),
  'gen_dec_parallel': ('gen', {'decoder.block': 'parallel'}),
  'gen_non_local1': ('gen', {'decoder.non_local': 1}),
  'gen_mlp_norm_in': ('gen', {'decoder.mlp_norm': 'instance'}),
  'gen_activ_prelu': ('gen', {'generator.activation': 'prelu'}),
  'dis': ('dis', {}),
  'dis_nsgan': ('dis', {'discriminator.gan_type': 'nsgan'}),
  'dis_wgan': ('dis', {'discriminator.gan_type': 'wgan'}),
  'dis_non_local1': ('dis', {'discriminator.non_local': 1}),
  'dis_non_local2': ('dis', {'discriminator.non_local': 2}),
  'dis_norm_in': ('dis', {'discriminator.norm': 'instance'}),
  'dis_norm_bn': ('dis', {'discriminator.norm': 'batch'}),
  'dis_norm_ln': ('dis', {'discriminator.norm': 'layer'}),
  'id_AB_stride1_poolmax': ('id', {}),
  'ft_net_norm': ('id', {'reid.style': 'normal', 'reid.last_stride': 2}),
  'PCB': ('id', {'reid.style': 'PCB', 'reid.head_width': 256}),
  'teacher_ft_net_stride2': ('teacher', {}),
}


@pytest.mark.parametrize('name', KINDS)
def test_names_and_shapes(parity_dir, name):
  network, fields = KINDS[name]
  theirs = goldens.load_json(parity_dir, 'shapes')[name]
  config = goldens.config_with(fields)
  num_identities = next((x[0] for key, x in theirs.items() if key.endswith('classifier.0.weight')), 1)
  ours = goldens.our_shapes(network, config, num_identities)
  assert {key: list(shape) for key, shape in ours.items()} == {key: theirs[key] for key in ours}
  left_out = theirs.keys() - ours.keys()
  assert all(key.startswith('model.fc.') or key.endswith(BUFFERS) for key in left_out), left_out
  if network in ('id', 'teacher'):
    assert all(key.startswith('model.fc.') or key.endswith('num_batches_tracked') for key in left_out), left_out
