"""Every network's forward pass against the release, in float64."""

import jax
import numpy as np
import pytest

from dgnet_jax.interop import torch_names
from dgnet_jax.interop.release.names import network_entries
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.pixels import enlarge
from tests.parity import goldens

RTOL = 1e-8


class Case:
  """A golden forward pass: our networks, its weights and inputs, and the expected outputs."""

  def __init__(self, folder, name):
    self.folder, self.name = folder, name
    self.arrays = goldens.load_npz(folder, name)
    self.traces = goldens.load_json(folder, name)['traces']
    self.meta = goldens.load_json(folder, name)['meta']
    self.recipe = goldens.load_recipe(folder)
    self.config = goldens.config_of(self.meta)
    self.num_identities = self.meta['ID_class']
    self.networks = make_networks(self.config, self.num_identities)
    self.teacher = make_teacher_network(self.config, self.num_identities)
    shape = (self.meta['batch'], 3, self.meta['height'], self.meta['width'])
    self.image = goldens.images(self.recipe, shape, self.meta['image_seed'])
    self.image2 = goldens.images(self.recipe, shape, self.meta['image2_seed'])

  def variables(self, network):
    return goldens.variables_of(self.folder, network, self.config, self.meta['master_seed'], self.num_identities)

  def check(self, ledger, network, key, actual):
    error = goldens.relative_error(actual, self.arrays[key])
    ledger.check(f'{self.name}: {network}', error, RTOL, key)

  def check_statistics(self, ledger, network, batch_stats):
    """Compares BatchNorm's running statistics after a training pass: arrays in the small case, else fingerprints.

    If the golden's counter of batches is 0, its statistics are the initial ones.
    """
    counter = 'model.bn1.num_batches_tracked'
    if self.arrays.get(f'{network}_trainbuf/{counter}') == 0:
      batch_stats = self.variables(network)['batch_stats']
    entries = [e for e in network_entries(network, self.config) if e.path[0] == 'batch_stats']
    ours = torch_names.to_torch({'batch_stats': jax.device_get(batch_stats)}, entries)
    assert ours
    fingerprints = self.traces[network].get('trainbuf', {})
    for name, value in ours.items():
      if f'{network}_trainbuf/{name}' in self.arrays:
        self.check(ledger, network, f'{network}_trainbuf/{name}', value)
      else:
        norm, dot = fingerprints[name][-2:]
        difference = np.abs(np.subtract(self.recipe.fingerprint(name, value), [norm, dot])).max()
        ledger.check(f'{self.name}: {network}', difference / norm, RTOL, name)


@pytest.fixture(scope='module', params=['forward_small', pytest.param('forward_full', marks=pytest.mark.long)])
def case(request, parity_dir):
  return Case(parity_dir, request.param)


@pytest.mark.usefixtures('x64')
class TestForward:
  def test_structure_encoder_and_decoder(self, case, ledger):
    params = case.variables('gen')['params']
    encode, decode = jax.jit(case.networks.encode_structure), jax.jit(case.networks.decode)
    structure, structure2 = encode(params, case.image), encode(params, case.image2)
    case.check(ledger, 'gen', 'enc_s', goldens.nchw(structure))
    if 'enc_s2' in case.arrays:
      case.check(ledger, 'gen', 'enc_s2', goldens.nchw(structure2))
    code = case.arrays['id_eval_f']
    case.check(ledger, 'gen', 'dec_x', goldens.nchw(decode(params, structure, code)))
    case.check(ledger, 'gen', 'dec_x_swap', goldens.nchw(decode(params, structure2, code)))

  def test_discriminator(self, case, ledger):
    scores = jax.jit(case.networks.discriminate)(case.variables('dis')['params'], case.image)
    for i, score in enumerate(scores):
      case.check(ledger, 'dis', f'dis_scale{i}', np.asarray(score)[:, None])

  def test_appearance_encoder(self, case, ledger):
    variables = case.variables('id')
    output = jax.jit(case.networks.encode_appearance)(variables['params'], variables['batch_stats'], case.image)
    for key, value in (('f', output.code), ('p0', output.primary_logits), ('p1', output.fine_logits)):
      case.check(ledger, 'id', f'id_eval_{key}', value)
    enlarged = enlarge(case.image, case.networks.reid_scale)[:, None]
    train = jax.jit(case.networks.encode_appearance_train)
    output, statistics = train(variables['params'], variables['batch_stats'], enlarged)
    for key, value in (('f', output.code), ('p0', output.primary_logits), ('p1', output.fine_logits)):
      case.check(ledger, 'id', f'id_train_{key}', value[:, 0])
    case.check_statistics(ledger, 'id', statistics)

  def test_teacher(self, case, ledger):
    variables = case.variables('teacher')
    apply = jax.jit(case.teacher.apply, static_argnames='norm')
    image = enlarge(case.image, case.teacher.reid_scale)
    output, unchanged = apply(variables['params'], variables['batch_stats'], image)
    case.check(ledger, 'teacher', 'teacher_eval_p0', output.logits)
    jax.tree.map(np.testing.assert_array_equal, unchanged, variables['batch_stats'])
    output, statistics = apply(variables['params'], variables['batch_stats'], image[:, None], norm='batch')
    case.check(ledger, 'teacher', 'teacher_train_p0', output.logits[:, 0])
    case.check_statistics(ledger, 'teacher', statistics)
