"""`dgnet quality` measures generated images against real ones."""

import json

import numpy as np
import pytest

from dgnet_jax.cli.main import main
from dgnet_jax.config import loading
from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.lazy_images import BilinearImageFiles, ImageFiles
from dgnet_jax.inference.loading import load_predictor
from dgnet_jax.interop.torch_write import write_torch
from dgnet_jax.models.inception import inception_features
from dgnet_jax.reports import feature_spaces
from tests.data.folders import write_image
from tests.interop.synthetic_inception import synthetic_inception
from tests.interop.synthetic_release import STEP, import_tiny, random_state_dict, tiny_shapes, write_release

SIZE_HW = (32, 16)


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A run with tiny networks, not trained."""
  folder = tmp_path_factory.mktemp('quality')
  state_dicts = {name: random_state_dict(shapes, 0) for name, shapes in tiny_shapes().items()}
  import_tiny(write_release(folder / 'release', state_dicts, STEP), folder / 'run')
  return folder / 'run'


def write_folder(folder, count, first_seed=0, people=3):
  """Images whose names begin with the person's."""
  folder.mkdir(parents=True)
  for i in range(count):
    write_image(folder / f'p{i % people}_{i:02d}.png', seed=first_seed + i, size_hw=SIZE_HW)
  return folder


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  folder = tmp_path_factory.mktemp('images')
  return write_folder(folder / 'real', 40), write_folder(folder / 'generated', 30, 100)


def run(capsys, *arguments, status=0):
  """Runs the command, checks its status and returns what it printed."""
  try:
    main(['quality', *map(str, arguments)])
  except SystemExit as ended:
    assert ended.code == status != 0
  else:
    assert status == 0
  output = capsys.readouterr()
  return output.err if status else output.out + output.err


def test_distance_is_that_of_the_embeddings_of_the_run(capsys, workdir, folders, tmp_path):
  out = tmp_path / 'out' / 'quality.json'
  arguments = [f'--workdir={workdir}', '--embedding=both', f'--out={out}', '--batch-size=16']
  text = run(capsys, *folders, *arguments)
  results = json.loads(out.read_text())
  assert results['real'] == {'title': str(folders[0]), 'num_images': 40, 'size': '32x16'}
  assert list(results['frechet']) == ['teacher', 'dgnet']
  trained = load_predictor(loading.load_config(workdir / 'config.json', {}), workdir)
  sets = [trained.embed(ImageFiles(read_image_set(str(folder)).paths, SIZE_HW)) for folder in folders]
  row = results['frechet']['dgnet']
  assert (row['num_real'], row['num_generated'], row['dimensions']) == (40, 30, sets[0].shape[1])
  assert '32x16, bicubic' in row['resizing'] and f'step {STEP}' in row['source'] and 'not Inception' in row['title']
  first, second = (np.cov(x.astype(float), rowvar=False) for x in sets)
  roots = np.sqrt(np.maximum(np.linalg.eigvals(first @ second).real, 0)).sum()
  expected = ((sets[0].mean(0) - sets[1].mean(0)) ** 2).sum() + np.trace(first) + np.trace(second) - 2 * roots
  assert row['distance'] == pytest.approx(expected, rel=1e-3, abs=1e-6)
  assert f'{row["distance"]:.6g}' in text and text.count('not Inception FID') >= 2 and '40 real and 30 gen' in text
  assert 'warning' not in text and f'results: {out}' in text


def test_few_images_give_a_warning(capsys, workdir, folders, tmp_path):
  few = write_folder(tmp_path / 'few', 5)
  text = run(capsys, folders[0], few, f'--workdir={workdir}')
  assert f'warning: {few}: 5 images in 8 dimensions' in text and text.count('warning: ') == 1


def test_distance_of_equal_sets_is_zero(capsys, workdir, folders, tmp_path):
  run(capsys, folders[0], folders[0], f'--workdir={workdir}', f'--out={tmp_path / "q.json"}')
  assert json.loads((tmp_path / 'q.json').read_text())['frechet']['teacher']['distance'] < 1e-9


@pytest.mark.long
def test_fid_is_the_distance_of_inception_features(capsys, folders, tmp_path, monkeypatch):
  """With the smallest images that the network takes, and means of its features, so that covariances are small."""
  size, file, out = 75, tmp_path / 'fid.pth', tmp_path / 'quality.json'
  write_torch(file, synthetic_inception())
  monkeypatch.setattr(feature_spaces, 'IMAGE_SIZE', size)

  def means(variables, x):
    return inception_features(variables, x).reshape(len(x), 4, 512).mean(2)

  monkeypatch.setattr(feature_spaces, 'inception_features', means)
  text = run(capsys, *folders, f'--inception={file}', '--batch-size=16', f'--out={out}')
  row = json.loads(out.read_text())['frechet']['inception']
  space = feature_spaces.inception_space(file, 16)
  sets = [BilinearImageFiles(read_image_set(str(folder)).paths, (size, size))[:] for folder in folders]
  first, second = (np.concatenate([*space.features(x, label='')]) for x in sets)
  assert first.shape == (40, 4) and (first.std(0) > 0).all()
  covariances = [np.cov(x, rowvar=False) for x in (first, second)]
  roots = np.sqrt(np.linalg.eigvals(covariances[0] @ covariances[1]).real).sum()
  expected = ((first.mean(0) - second.mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * roots
  assert row['distance'] == pytest.approx(expected, rel=1e-3) and (row['num_real'], row['num_generated']) == (40, 30)
  assert row['source'].startswith(f'{file}, sha256 ') and '75x75, bilinear, not antialiased' in row['resizing']
  assert f'Inception-v3): {row["distance"]:.6g}' in text and 'not Inception' not in text


def test_ssim_within_identities_and_of_equal_names(capsys, folders, tmp_path):
  real, generated = folders
  people, out = '--identity-pattern=^(?P<identity>p.)_', tmp_path / 'quality.json'
  text = run(capsys, real, generated, people, '--same-names', '--pairs=20', '--seed=3', f'--out={out}')
  results = json.loads(out.read_text())
  assert results['generated'] == {'title': str(generated), 'num_images': 30, 'size': '32x16', 'num_identities': 3}
  assert results['ssim']['size_hw'] == [32, 16] and 'frechet' not in results
  for name in ('real', 'generated'):
    row = results['ssim']['within_identities'][name]
    assert -1 < row['ssim'] < 1 and (row['num_pairs'], row['num_identities']) == (20, 3)
    assert f'{row["ssim"]:.4f} +- {row["standard_error"]:.4f}  20 pairs of 3 identities, seed 3' in text
  row = results['ssim']['same_names']
  assert (row['num_images'], row['num_real_alone'], row['num_generated_alone']) == (30, 10, 0)
  assert f'30 images of the same name: SSIM {row["ssim"]:.4f}, PSNR {row["psnr"]:.2f} dB\n' in text
  assert 'without a partner: 10 real, 0 generated' in text and 'to 32x16, bicubic' in text
  text = run(capsys, real, real, '--same-names', '--size=16x16')
  assert 'SSIM 1.0000, PSNR all equal' in text and 'to 16x16' in text and 'within' not in text


def test_run_without_its_teacher_can_be_used_with_the_other_embedding(capsys, workdir, folders, tmp_path):
  for name in ('checkpoints', 'config.json'):
    (tmp_path / name).symlink_to(workdir / name)
  text = run(capsys, *folders, f'--workdir={tmp_path}', status=2)
  assert f'no teacher in {tmp_path / "teacher"}; choose the embedding of DG-Net (--embedding=dgnet)' in text
  assert 'no teacher' not in run(capsys, *folders, f'--workdir={tmp_path}', '--embedding=dgnet')


def test_mistakes_are_reported_before_work_starts(capsys, workdir, folders, tmp_path):
  real, generated = folders
  one = write_folder(tmp_path / 'one', 1)
  at_run = f'--workdir={workdir}'
  for arguments, message in (
    ((real, generated), 'nothing to measure: no identity is known to have two images'),
    ((real, generated, '--pairs=0'), 'nothing to measure'),
    ((real, generated, '--seed=-1'), "'-1' must be a whole number of at least 0"),
    ((real, generated, '--pairs=-1'), "'-1' must be a whole number of at least 0"),
    ((real, generated, '--same-names', '--size=9'), "'9' must be HEIGHTxWIDTH"),
    ((real, generated, '--same-names', '--size=9x9'), '9x9 is smaller than the 11x11 window'),
    (
      (one, one, '--identity-pattern=^(?P<identity>p.)_'),
      'nothing to measure: no identity is known to have two images',
    ),
    ((real, generated, at_run, '--same-names', '--size=16'), 'HEIGHTxWIDTH'),
    ((real, one, '--identity-pattern=^(?P<identity>x)_'), "'^(?P<identity>x)_' does not match 40 of 40 paths"),
    ((real, generated, at_run, '--out=quality.txt'), 'the name must end in .json'),
    ((real, generated, f'--workdir={tmp_path}'), f'{tmp_path}: not the work folder of a run'),
    ((real, generated, f'--inception={tmp_path / "fid.pth"}'), 'fid.pth: no such file'),
    ((real, tmp_path / 'absent', at_run), 'absent: no such folder'),
    ((real, one, at_run), 'one: one image'),
    ((real, generated, at_run, '--config.batch_size=4'), 'batch_size: only fields of data'),
    ((real, generated, at_run, '--batch-size=0'), 'must be a whole number of at least 1'),
  ):
    assert message in run(capsys, *arguments, status=2)
