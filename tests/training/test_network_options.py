"""Backbones, pooling and necks other than the release's: trained, stored, evaluated and exported."""

import contextlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import save_config
from dgnet_jax.data.dataset import open_dataset
from dgnet_jax.errors import UserError
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.models.build import make_teacher_network
from dgnet_jax.models.pooling import gem_exponent
from dgnet_jax.sharding import make_mesh, replicated
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.loop import train
from dgnet_jax.training.optimizers import make_teacher_optimizer
from dgnet_jax.training.teacher_step import create_teacher_state, make_teacher_step
from dgnet_jax.training.teacher_store import describe_teacher, load_teacher, write_description
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import frozen, save_checkpoint, tiny_config

OSNET = {'backbone': 'osnet', 'stage_sizes': (1, 1, 1), 'last_stride': 1}
IBN = {'backbone': 'resnet_ibn_a', 'stage_sizes': (1, 1)}
# With the size of the teacher's embedding.
OPTIONS = {
  'osnet': (OSNET, 8),
  'all of resnet_ibn_a': (IBN | {'pool': 'gem', 'neck': 'bnneck'}, 32),
  'all of osnet': (OSNET | {'pool': 'gem', 'neck': 'bnneck'}, 32),
}
NUM_IDENTITIES = 4


def config_with(options):
  config = tiny_config()
  config.reid.update(options)
  config.teacher.update(options)
  return config


@pytest.mark.parametrize(
  'name', [pytest.param(name, marks=EXHAUSTIVE) if name == 'all of osnet' else name for name in OPTIONS]
)
def test_teacher_learns_and_is_read_back(name, tmp_path):
  options, size = OPTIONS[name]
  config = frozen(config_with(options))
  network = make_teacher_network(config, NUM_IDENTITIES)
  optimizer = make_teacher_optimizer(config.teacher, config.optimizer, steps_per_epoch=2)
  mesh = make_mesh(jax.devices()[:1])
  before = create_teacher_state(network, optimizer, seed=0)
  kept = jax.device_get(before.network)
  pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 16, 3), np.uint8)
  step = make_teacher_step(network, optimizer, config, mesh)
  after, metrics = step(jax.device_put(before, replicated(mesh)), pixels, np.arange(8, dtype=np.int32) % 4)
  assert np.isfinite(metrics['loss'])
  for tree in ('params', 'batch_stats'):
    pairs = zip(jax.tree.leaves(getattr(kept, tree)), jax.tree.leaves(getattr(after.network, tree)), strict=True)
    assert sum((old == np.asarray(new)).all() for old, new in pairs) <= 1  # a bias before a BatchNorm has no gradient
  output, _ = network.apply(after.network.params, after.network.batch_stats, jnp.zeros((2, 3, 32, 16, 3)))
  assert output.feature.shape == output.metric_feature.shape == (2, 3, size) and output.logits.shape == (2, 3, 4)

  with contextlib.closing(Checkpoints(tmp_path / 'checkpoints', 1, config)) as checkpoints:
    checkpoints.save(1, after, wait=True)
  write_description(describe_teacher(config, NUM_IDENTITIES, None), 1, tmp_path)
  teacher = load_teacher(config, NUM_IDENTITIES, tmp_path)
  jax.tree.map(np.testing.assert_array_equal, teacher.params, after.network.params)
  release = frozen(config_with({'stage_sizes': config.teacher.stage_sizes, 'last_stride': config.teacher.last_stride}))
  with pytest.raises(UserError, match='the teacher in .* does not fit') as error:
    load_teacher(release, NUM_IDENTITIES, tmp_path)
  for field in options.keys() & {'backbone', 'pool', 'neck'}:
    assert f'{field} is {options[field]} in the teacher and {getattr(release.teacher, field)} in' in str(error.value)


def test_teacher_of_an_earlier_version_has_the_networks_of_the_release(tmp_path):
  config = frozen(tiny_config())
  description = describe_teacher(config, NUM_IDENTITIES, None)
  former = {name: value for name, value in description.items() if name not in ('backbone', 'neck')}
  assert len(former) == len(description) - 2
  network = make_teacher_network(config, NUM_IDENTITIES)
  state = create_teacher_state(network, make_teacher_optimizer(config.teacher, config.optimizer, 1), seed=0)
  with contextlib.closing(Checkpoints(tmp_path / 'checkpoints', 1, config)) as checkpoints:
    checkpoints.save(1, state, wait=True)
  write_description(former, 1, tmp_path)
  assert load_teacher(config, NUM_IDENTITIES, tmp_path).params.keys() == {'backbone', 'head'}
  with pytest.raises(UserError, match='neck is release in the teacher and bnneck in this run'):
    load_teacher(frozen(config_with({'neck': 'bnneck'})), NUM_IDENTITIES, tmp_path)


@pytest.mark.long
@pytest.mark.parametrize('name', ['all of resnet_ibn_a', pytest.param('all of osnet', marks=EXHAUSTIVE)])
def test_run_is_embedded_and_exported(name, tmp_path, capsys):
  pytest.importorskip('flatbuffers')
  config = frozen(config_with(OPTIONS[name][0]))
  index = open_dataset(config.data, tmp_path)
  save_checkpoint(config, tmp_path, index.num_identities, 1)
  save_config(config, tmp_path / 'config.json')
  images = index.query.paths[:2]
  main(['embed', str(tmp_path), *images, f'--out={tmp_path / "e.npz"}'])
  embeddings = np.load(tmp_path / 'e.npz')['embedding']
  assert embeddings.shape == (2, 2 * 32)
  np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, rtol=1e-5)
  main(['export', str(tmp_path), f'--out={tmp_path / "out"}', '--platforms=cpu'])
  program = jax.export.deserialize(bytearray((tmp_path / 'out' / 'embed.stablehlo').read_bytes()))
  assert program.out_avals[0].shape[1] == 2 * 32
  main(['swap', str(tmp_path), f'--structure={images[0]}', f'--appearance={images[1]}', f'--out={tmp_path / "s.png"}'])
  assert (tmp_path / 's.png').is_file()


@EXHAUSTIVE
@pytest.mark.long
@pytest.mark.parametrize('name', ['all of resnet_ibn_a', 'all of osnet'])
def test_joint_training_and_evaluation(name, tmp_path):
  """In both phases, with the teacher of the same kind, whose backbone the re-id network starts with."""
  config = config_with(OPTIONS[name][0])
  config.update(num_steps=2, batch_size=8)
  config.reid.pretrained = 'teacher'
  for ramp in config.ramps.values():
    ramp.update(start_step=0, per_step=0.5)
  config = frozen(config)
  train(config, tmp_path)
  exponent = gem_exponent(load_predictor(config, tmp_path).reid['pool']['free_exponent'])
  assert np.isfinite(exponent).all() and abs(exponent[0] - 3) > 1e-6
  save_config(config, tmp_path / 'config.json')
  main(['evaluate', f'--workdir={tmp_path}', f'--config={tmp_path / "config.json"}'])
  results = json.loads((tmp_path / 'evaluation' / 'results.json').read_text())
  assert results['step'] == 2 and {'teacher', 'both'} <= results['single_query'].keys()
