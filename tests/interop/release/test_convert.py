"""The release's files in and out: tiny networks that run, and the release's own sizes without running them."""

import shutil

import jax
import numpy as np
import pytest
import yaml

from dgnet_jax.cli import convert as convert_torch
from dgnet_jax.config import loading
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.validation import leaves
from dgnet_jax.errors import UserError
from dgnet_jax.generation.sheets import generate
from dgnet_jax.inference.trained import load_trained
from dgnet_jax.interop.release.config import release_config
from dgnet_jax.interop.release.exporter import export_release
from dgnet_jax.interop.release.files import OURS, find_files, read_state_dict
from dgnet_jax.interop.release.importer import templates
from dgnet_jax.interop.release.names import (
  ENTRIES,
  default_extras,
  in_release_order,
  parameters_in_order,
  release_state_dict,
)
from dgnet_jax.interop.release.optimizer import load_slots, release_groups, release_optimizer
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.strict import has_no_place, load_strictly
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_names import from_torch, torch_shapes
from dgnet_jax.reports.evaluation import evaluate
from dgnet_jax.training import loop as train_module
from dgnet_jax.training.optimizers import adam_count, make_optimizers, with_slots
from tests.interop.synthetic_release import (
  PEOPLE,
  STEP,
  TINY_OVERRIDES,
  TINY_YAML,
  bring,
  random_state_dict,
  tiny_config,
  tiny_shapes,
  write_release,
)
from tests.parity import goldens


def assert_same(one, other, where=''):
  """Arrays are equal bit for bit and in order; settings of an optimiser's groups may differ. Counts the arrays."""
  if isinstance(one, np.ndarray):
    assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes()), where
    return 1
  if isinstance(one, dict):
    assert list(one) == list(other) or 'params' in one, where
    return sum(assert_same(one[key], other[key], f'{where}/{key}') for key in one)
  if isinstance(one, list):
    assert len(one) == len(other), where
    return sum(assert_same(x, y, where) for x, y in zip(one, other, strict=True))
  assert one == other, where
  return 0


def assert_same_files(one, other):
  """Every torch file below `one` is as that below `other`; counts arrays."""
  files = sorted(path.relative_to(one) for path in one.rglob('*.pt*'))
  assert files == sorted(path.relative_to(other) for path in other.rglob('*.pt*'))
  return sum(assert_same(read_torch(one / file), read_torch(other / file), str(file)) for file in files)


def make_idle_step(*_):
  """A training step that only counts."""
  return lambda state, *_: (state.replace(step=state.step + 1), {'total': np.zeros(())})


class TestImport:
  def test_parameters(self, release, imported):
    workdir, config, _ = imported
    trained = load_trained(config, workdir)
    assert trained.step == STEP
    expected = from_torch(release[1]['id'], ENTRIES['id'](config))
    jax.tree.map(np.testing.assert_array_equal, trained.reid, expected['params'])
    jax.tree.map(np.testing.assert_array_equal, trained.reid_stats, expected['batch_stats'])

  def test_settings(self, imported):
    _, config, lines = imported
    assert config.optimizer.reid_learning_rate == 0.003 and config.num_steps == STEP + 1
    assert config.ramps.cycle.start_step == 50 and config.data.image_size_hw == (32, 16)
    assert config.reid.stage_sizes == (1, 1) and config.reid.num_parts == 2 and config.reid.width == 4
    assert config.teacher.head_width == 8 and config.discriminator.num_scales == 1
    assert any('without a counterpart here: ID_class' in line for line in lines)

  def test_it_evaluates_and_generates(self, imported):
    workdir, config, _ = imported
    assert evaluate(config, workdir)['step'] == STEP
    assert list((generate(config, workdir) / 'images').iterdir())

  def test_it_resumes(self, imported, tmp_path, monkeypatch):
    """The loop takes state, teacher and data; a real step would take a minute to compile."""
    workdir, config, _ = imported
    copy, lines = shutil.copytree(workdir, tmp_path / 'copy'), []
    monkeypatch.setattr(train_module, 'make_train_step', make_idle_step)
    state = train_module.train(config, copy)
    assert any(f'going on from step {STEP}' in line for line in lines)
    assert int(state.step) == STEP + 1 and int(adam_count(state.generator.opt_state)) == STEP
    out = export_release(copy, tmp_path / 'out')
    names = ['dis_00000007.pt', 'gen_00000007.pt', 'id_00000007.pt', 'optimizer.pt']
    assert sorted(path.name for path in out.glob('*.pt')) == names

  def test_a_discriminator_begun_anew(self, changeable, tmp_path, lines):
    lines.clear()
    (changeable / f'dis_{STEP:08d}.pt').unlink()
    without = ('dis', 'optimizer')
    workdir = bring(changeable, tmp_path / 'work', without=without)
    assert {'without dis: the discriminator begins anew'} <= set(lines)
    assert any('moments begin anew' in line for line in lines)
    exported = export_release(workdir, tmp_path / 'out')
    saved = read_torch(exported / 'optimizer.pt')
    assert saved['gen']['state'] == {}  # Adam counts its own updates


class TestRoundTrip:
  def test_every_array_comes_back(self, release, imported, tmp_path):
    out = export_release(imported[0], tmp_path / 'out')
    assert assert_same_files(release[0], out) > 200
    values = yaml.safe_load((out / 'config.yaml').read_text())
    for key, value in TINY_YAML.items():
      assert values[key] == value if not isinstance(value, dict) else value.items() <= values[key].items(), key
    assert yaml.safe_load((out / 'teacher' / 'opts.yaml').read_text())['nclasses'] == PEOPLE

  def test_and_in_again(self, imported, tmp_path):
    out = export_release(imported[0], tmp_path / 'out')
    again = export_release(bring(out, tmp_path / 'work'), tmp_path / 'again')
    assert_same_files(out, again)

  def test_groups_of_the_optimisers(self, imported, tmp_path):
    _, config, _ = imported
    saved = read_torch(export_release(imported[0], tmp_path / 'out') / 'optimizer.pt')
    base, primary, fine = saved['id']['param_groups']
    assert (base['lr'], primary['lr'], fine['lr']) == (0.003, 0.03, 0.03)
    assert base['momentum'] == 0.9 and base['nesterov'] is True and base['initial_lr'] == 0.003
    assert saved['gen']['param_groups'][0]['betas'] == (0.0, 0.999)
    assert saved['gen']['state'][0]['step'] == STEP
    numbers = [i for group in saved['id']['param_groups'] for i in group['params']]
    assert numbers == list(range(len(numbers)))

  def test_release_sizes(self, parity_dir, tmp_path):
    """Names, shapes and numbers of the release's own configuration, through files and our trees."""
    recipe = goldens.load_recipe(parity_dir)
    people = goldens.load_json(parity_dir, 'forward_full')['meta']['ID_class']
    state_dicts = {
      network: recipe.make_state_dict(goldens.shapes_of(parity_dir, network, people), offset, np.float32)
      for network, offset in recipe.NET_SEED_OFFSET.items()
      if network in ENTRIES
    }
    folder = write_release(tmp_path, state_dicts, 31_000)
    files = find_files(folder, folder / 'teacher')
    read = {network: read_state_dict(network, files.paths[network]) for network in ENTRIES}
    config = default_config()
    for name, value in release_sizes(read, {}).items():
      loading.set_field(config, name, value)
    assert config == default_config() and num_identities(read, {}) == people
    saved = read_torch(files.paths['optimizer'])
    optimizers, forms = make_optimizers(config.optimizer), templates(config, people)
    for network, state_dict in state_dicts.items():
      entries = ENTRIES[network](config)
      loaded = load_strictly(read[network], entries, forms[network], where=network)
      back = release_state_dict(network, loaded.variables, entries, loaded.extras)
      assert_same(state_dict, back)
      assert_same(default_extras(network, torch_shapes(forms[network], entries)).keys(), loaded.extras.keys())
      if network in OURS:
        slots, _ = load_slots(network, saved[network], loaded.order, entries, forms[network], network)
        fresh = getattr(optimizers, OURS[network]).init(loaded.variables['params'])
        opt_state = with_slots(fresh, 31_000, slots)
        again = release_optimizer(network, opt_state, list(back), entries, config, 31_000)
        assert_same(saved[network]['state'], again['state'])

  def test_every_variant_s_names_can_be_made_from_ours(self, parity_dir):
    """In the release's order, with all that ours have no place for."""
    for variant, shapes in goldens.load_json(parity_dir, 'shapes').items():
      if variant == 'ft_net_dense':  # DenseNet is no backbone of the release's configuration
        continue
      network = variant.split('_')[0] if variant.startswith(('gen', 'dis')) else 'id'
      ours = {name: shape for name, shape in shapes.items() if not has_no_place(name)}
      extras = {name: list(array.shape) for name, array in default_extras(network, ours).items()}
      assert ours | extras == shapes, variant
      assert in_release_order(sorted(shapes)) == list(shapes), variant

  def test_optimisers_know_parameters_in_the_release_s_order(self, parity_dir):
    optimisers = goldens.load_json(parity_dir, 'optim')
    for network in OURS:
      groups = optimisers[f'{network}_opt']['groups']
      shapes = goldens.shapes_of(parity_dir, network, goldens.release_identities(parity_dir))
      assert parameters_in_order(shapes) == sum((group['params'] for group in groups), [])
      ours = release_groups(network, parameters_in_order(shapes), default_config(), 0)
      assert [len(group['params']) for group in ours] == [group['n_params'] for group in groups]
      for group, theirs in zip(ours, groups, strict=True):
        for key in group.keys() - {'params'}:
          assert np.allclose(group[key], theirs[key]), key


def test_weights_that_the_release_cannot_tell_apart_are_told():
  config = default_config()
  assert release_config(config, 751, {})[1] == []
  config.teaching.fine_on_real = 20.0
  values, lines = release_config(config, 751, {})
  assert values['B_w'] == 0.2
  assert lines == ['teaching.fine_on_real = 20.0: the release has one weight, B_w, for real and for cross images']


# Other networks of the release: what its config.yaml says, and our fields.
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


@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_of_network_comes_back(kind, tmp_path):
  settings, fields = KINDS[kind]
  theirs = TINY_YAML | {
    key: TINY_YAML.get(key, {}) | value if isinstance(value, dict) else value for key, value in settings.items()
  }
  expected = tiny_config()
  for name, value in fields.items():
    loading.set_field(expected, name, value)
  state_dicts = {
    network: random_state_dict(shapes, seed) for seed, (network, shapes) in enumerate(tiny_shapes(expected).items())
  }
  folder = write_release(tmp_path / 'release', state_dicts, STEP, settings=theirs)
  workdir = bring(folder, tmp_path / 'work')
  config = loading.load_config(workdir / 'config.json', {})
  found = dict(leaves(config))
  assert {name: found[name] for name in fields} == fields
  out = export_release(workdir, tmp_path / 'out')
  assert assert_same_files(folder, out) > 100
  values = yaml.safe_load((out / 'config.yaml').read_text())
  for key, value in settings.items():
    assert values[key] == value if not isinstance(value, dict) else value.items() <= values[key].items(), key
  # Without its settings, the shapes tell the style, the kind of critic and the non-local blocks.
  sizes = release_sizes({name: dict(arrays) for name, arrays in state_dicts.items()}, {})
  assert {name: sizes[name] for name in fields if name in sizes}.items() <= fields.items()
  assert kind not in ('normal', 'PCB') or sizes['reid.style'] == kind


def test_what_the_release_has_no_word_for(imported, tmp_path, lines):
  """The export tells it, or refuses when arrays would be lost."""
  workdir, config, _ = imported
  copy = shutil.copytree(workdir, tmp_path / 'copy')
  lines.clear()
  changed = config.copy_and_resolve_references()
  changed.reid.detach_code = False
  loading.save_config(changed, copy / 'config.json')
  export_release(copy, tmp_path / 'out')
  assert 'reid.detach_code = False: the release always detaches the code' in lines
  changed.generator.non_local_residual = True
  loading.save_config(changed, copy / 'config.json')
  with pytest.raises(UserError, match='generator.non_local_residual: the release has no name'):
    export_release(copy, tmp_path / 'none')


class TestFiles:
  def test_the_newest_unless_asked(self, release, changeable):
    write_release(changeable, release[1], 2)
    assert find_files(changeable, changeable / 'teacher').step == STEP
    assert find_files(changeable, changeable / 'teacher', step=2).step == 2
    with pytest.raises(UserError, match='no snapshot of step 3; there are 2, 6'):
      find_files(changeable, None, step=3)

  def test_missing_ones_are_told(self, changeable):
    (changeable / 'optimizer.pt').unlink()
    with pytest.raises(UserError) as error:
      find_files(changeable, None)
    assert 'optimizer (--without optimizer begins it anew), teacher (--teacher PATH names it' in str(error.value)

  def test_nothing_there(self, tmp_path):
    with pytest.raises(UserError, match='no gen_'):
      find_files(tmp_path, None)
    with pytest.raises(UserError, match='no such folder'):
      find_files(tmp_path / 'absent', None)

  def test_nothing_is_overwritten(self, imported, release, tmp_path):
    with pytest.raises(UserError, match='is there already'):
      bring(release[0], imported[0])
    with pytest.raises(UserError, match='is there already'):
      export_release(imported[0], tmp_path)

  def test_export_of_nothing(self, imported, tmp_path):
    with pytest.raises(UserError, match='config.json: no such config'):
      export_release(tmp_path, tmp_path / 'out')
    with pytest.raises(UserError, match='no checkpoint of step 5; there are 6'):
      export_release(imported[0], tmp_path / 'out', step=5)


class TestCommand:
  def test_in_and_out(self, release, tmp_path, capsys):
    folder, work = release[0], tmp_path / 'work'
    fields = [f'--config.{name}={value}' for name, value in (TINY_OVERRIDES | {'data.root': 'data'}).items()]
    convert_torch.main(['import', str(folder), '--teacher', str(folder / 'teacher'), f'--workdir={work}', *fields])
    assert f'--config={work}/config.json --workdir={work}' in capsys.readouterr().out
    convert_torch.main(['export', str(work), f'--out={tmp_path / "out"}'])
    assert assert_same_files(folder, tmp_path / 'out')

  @pytest.mark.parametrize(
    ('arguments', 'message'),
    [
      (['import', 'absent', '--workdir=x'], 'absent: no such folder'),
      (['import', '.', '--workdir=x', '--config.seed'], 'seed: a value is missing'),
      (['export', 'x', '--out=y', '--config.seed=1'], 'seed: only for import'),
    ],
  )
  def test_mistakes_are_told(self, arguments, message, capsys):
    with pytest.raises(SystemExit) as stopped:
      convert_torch.main(arguments)
    assert stopped.value.code == 2 and message in capsys.readouterr().err
