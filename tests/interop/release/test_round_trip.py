"""Import and export: every array and setting returns, for tiny networks of every kind and for the release's sizes."""

import dataclasses
import shutil

import numpy as np
import pytest
import yaml

from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.loading import load_config, save_config, set_field
from dgnet_jax.config.schema import Config
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.interop.release.exporter import export_release
from dgnet_jax.interop.release.files import find_files, read_state_dict
from dgnet_jax.interop.release.importer import variable_shapes
from dgnet_jax.interop.release.names import (
  NETWORKS,
  OURS,
  default_extras,
  network_entries,
  release_state_dict,
)
from dgnet_jax.interop.release.optimizer import read_moments, read_optimizers, release_optimizer
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.strict import load_strictly
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_names import torch_shapes
from dgnet_jax.training.optimizers import make_optimizers, with_progress
from tests.interop.release.comparison import assert_has_settings, assert_same, assert_same_files
from tests.interop.synthetic_release import (
  NUM_IDENTITIES,
  STEP,
  TINY_SETTINGS,
  import_tiny,
  random_state_dict,
  tiny_config,
  tiny_shapes,
  write_release,
)
from tests.parity import goldens


class TestTiny:
  def test_every_array_and_setting_returns(self, release, imported, tmp_path):
    out = export_release(imported[0], tmp_path / 'out')
    assert assert_same_files(out, release[0]) > 200
    assert_has_settings(yaml.safe_load((out / 'config.yaml').read_text()), TINY_SETTINGS)
    assert yaml.safe_load((out / 'teacher' / 'opts.yaml').read_text())['nclasses'] == NUM_IDENTITIES

  def test_exported_files_can_be_imported(self, imported, tmp_path):
    out = export_release(imported[0], tmp_path / 'out')
    again = export_release(import_tiny(out, tmp_path / 'work'), tmp_path / 'again')
    assert_same_files(again, out)

  def test_first_beta_is_a_float_in_the_export(self, imported, tmp_path):
    """torch rejects a whole number."""
    saved = read_torch(export_release(imported[0], tmp_path / 'out') / 'optimizer.pt')
    assert [type(beta) for beta in saved['gen']['param_groups'][0]['betas']] == [float, float]


# Other networks of the release: settings in its config.yaml, and our fields.
KINDS = {
  'normal': (
    {'ID_style': 'normal', 'ID_stride': 2, 'norm_id': True, 'pool': 'avg', 'teacher_style': 4},
    {
      'reid.style': 'normal',
      'reid.last_stride': 2,
      'reid.normalize_code': True,
      'reid.pool': 'avg',
      'teaching.label_style': 'donors',
    },
  ),
  'PCB': (
    {'ID_style': 'PCB', 'ID_stride': 1, 'pool': 'avg', 'teacher_w': 0.0, 'max_teacher_w': 0.0, 'single': 'edge'},
    {'reid.style': 'PCB', 'reid.pool': 'avg', 'ramps.teaching.maximum': 0.0, 'structure_encoder.input': 'edge'},
  ),
  'adapters': (
    {
      'gen': {'dec': 'series', 'non_local': 1, 'activ': 'prelu', 'mlp_norm': 'in', 'pad_type': 'zero', 'tanh': True},
      'dis': {'gan_type': 'nsgan', 'norm': 'bn', 'non_local': 2, 'activ': 'prelu'},
    },
    {
      'decoder.block': 'series',
      'decoder.non_local': 1,
      'decoder.mlp_norm': 'instance',
      'generator.activation': 'prelu',
      'generator.padding': 'zero',
      'structure_encoder.tanh': True,
      'discriminator.gan_type': 'nsgan',
      'discriminator.norm': 'batch',
      'discriminator.non_local': 2,
      'discriminator.activation': 'prelu',
    },
  ),
  'critic': (
    {'crop_image_height': 64, 'crop_image_width': 64, 'gen': {'dec': 'parallel'}, 'dis': {'gan_type': 'wgan'}},
    {'data.image_size_hw': (64, 64), 'decoder.block': 'parallel', 'discriminator.gan_type': 'wgan'},
  ),
}


@pytest.mark.long
@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_network_returns(kind, tmp_path):
  settings, fields = KINDS[kind]
  all_settings = TINY_SETTINGS | {
    key: TINY_SETTINGS.get(key, {}) | value if isinstance(value, dict) else value for key, value in settings.items()
  }
  expected = tiny_config()
  for name, value in fields.items():
    set_field(expected, name, value)
  state_dicts = {
    network: random_state_dict(shapes, seed) for seed, (network, shapes) in enumerate(tiny_shapes(expected).items())
  }
  folder = write_release(tmp_path / 'release', state_dicts, STEP, settings=all_settings)
  workdir = import_tiny(folder, tmp_path / 'work')
  imported = dict(leaves(load_config(workdir / 'config.json', {}).to_dict()))
  assert {name: imported[name] for name in fields} == fields
  out = export_release(workdir, tmp_path / 'out')
  assert assert_same_files(out, folder) > 100
  assert_has_settings(yaml.safe_load((out / 'config.yaml').read_text()), settings)
  # Without settings, the shapes determine the style, the kind of critic and the non-local blocks.
  sizes = release_sizes({name: dict(arrays) for name, arrays in state_dicts.items()}, {})
  assert {name: sizes[name] for name in fields if name in sizes}.items() <= fields.items()
  assert kind not in ('normal', 'PCB') or sizes['reid.style'] == kind


@pytest.mark.long
def test_release_sizes(parity_dir, tmp_path):
  """Names, shapes and numbers of the release's own configuration return through files and our trees."""
  recipe = goldens.load_recipe(parity_dir)
  classes = goldens.load_json(parity_dir, 'forward_full')['meta']['ID_class']
  state_dicts = {
    network: recipe.make_state_dict(goldens.shapes_of(parity_dir, network, classes), offset, np.float32)
    for network, offset in recipe.NET_SEED_OFFSET.items()
    if network in NETWORKS
  }
  folder = write_release(tmp_path, state_dicts, 31_000)
  files = find_files(folder, folder / 'teacher')
  read = {network: read_state_dict(network, files.paths[network]) for network in NETWORKS}
  with_sizes = default_config()
  for name, value in release_sizes(read, {}).items():
    set_field(with_sizes, name, value)
  assert with_sizes == default_config() and num_identities(read, {}) == classes
  config = Config()
  content, saved = read_torch(files.paths['optimizer']), read_optimizers(files.paths['optimizer'])
  optimizers, shapes = make_optimizers(config), variable_shapes(config, classes)
  for network, state_dict in state_dicts.items():
    entries = network_entries(network, config)
    loaded = load_strictly(read[network], entries, shapes[network], source=network)
    returned = release_state_dict(network, loaded.variables, entries, loaded.extras)
    assert_same(returned, state_dict)
    assert default_extras(network, torch_shapes(shapes[network], entries)).keys() == loaded.extras.keys()
    if network in OURS:
      moments = read_moments(network, saved[network], loaded.order, entries, shapes[network])
      fresh = getattr(optimizers, OURS[network]).init(loaded.variables['params'])
      opt_state = with_progress(fresh, 31_000, moments)
      exported = release_optimizer(network, opt_state, list(returned), entries, config, 31_000)
      assert_same(exported['state'], content[network]['state'])


class TestExport:
  def test_field_that_the_release_lacks_is_reported(self, imported, tmp_path, lines):
    workdir, config, _ = imported
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    changed = dataclasses.replace(config, reid=dataclasses.replace(config.reid, detach_code=False))
    save_config(changed, copy / 'config.json')
    export_release(copy, tmp_path / 'out')
    assert 'reid.detach_code = False: the release always detaches the code' in lines

  def test_network_that_the_release_lacks_is_rejected(self, imported, tmp_path):
    workdir, config, _ = imported
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    changed = dataclasses.replace(config, generator=dataclasses.replace(config.generator, non_local_residual=True))
    save_config(changed, copy / 'config.json')
    with pytest.raises(UserError, match='generator.non_local_residual: the release has no name'):
      export_release(copy, tmp_path / 'out')

  @pytest.mark.parametrize(
    ('fields', 'words'),
    [
      ({'backbone': 'osnet', 'stage_sizes': (1, 1, 1)}, 'reid.backbone: the release has no osnet, only resnet'),
      (
        {'neck': 'bnneck', 'pool': 'gem'},
        'reid.pool: the release has no gem.*\n.*reid.neck',
      ),
    ],
  )
  def test_reid_network_that_the_release_lacks_is_rejected(self, imported, tmp_path, fields, words):
    workdir, config, _ = imported
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    changed = dataclasses.replace(config, reid=dataclasses.replace(config.reid, **fields))
    save_config(changed, copy / 'config.json')
    with pytest.raises(UserError, match=words):
      export_release(copy, tmp_path / 'out')
    assert not (tmp_path / 'out').exists()

  def test_teacher_that_the_release_lacks_is_left_out(self, imported, tmp_path, lines):
    workdir, config, _ = imported
    copy = shutil.copytree(workdir, tmp_path / 'copy')
    changed = dataclasses.replace(config, teacher=dataclasses.replace(config.teacher, neck='bnneck'))
    save_config(changed, copy / 'config.json')
    out = export_release(copy, tmp_path / 'out')
    assert not (out / 'teacher').exists() and list(out.glob('id_*.pt'))
    assert 'the teacher is not exported: teacher.neck: the release has no bnneck, only release' in lines

  def test_existing_folder_is_not_overwritten(self, imported, tmp_path):
    with pytest.raises(UserError, match='already exists'):
      export_release(imported[0], tmp_path)

  def test_folder_without_a_run(self, tmp_path):
    with pytest.raises(UserError, match='config.json: no such config'):
      export_release(tmp_path, tmp_path / 'out')

  def test_step_without_a_checkpoint(self, imported, tmp_path):
    with pytest.raises(UserError, match='no checkpoint of step 5'):
      export_release(imported[0], tmp_path / 'out', step=5)
