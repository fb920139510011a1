"""Where the results of a run are kept."""

import dataclasses
import json
import os
import re
import sys

import pytest

from dgnet_jax.config.loading import save_config
from dgnet_jax.inference.results import data_to_open, keep_earlier, results_folder


def test_other_data_get_a_folder_of_their_own(tiny_run, tmp_path):
  config, _, index = tiny_run
  save_config(config, tmp_path / 'config.json')
  assert results_folder(config, index, tmp_path, 'evaluation') == tmp_path / 'evaluation'
  more_pairs = dataclasses.replace(config.evaluation, num_ground_truth_pairs=3)
  changed = dataclasses.replace(config, evaluation=more_pairs)
  assert results_folder(changed, index, tmp_path, 'evaluation') == tmp_path / 'evaluation'
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, layout='dukemtmc', root='data/duke'))
  index = dataclasses.replace(index, name='dukemtmc', variant='in two parts')
  folder = results_folder(other, index, tmp_path, 'evaluation')
  assert folder.parent == tmp_path / 'evaluation' and re.fullmatch(
    'on_dukemtmc_duke_in_two_parts_[0-9a-f]{6}', folder.name
  )


def with_root(config, root):
  return dataclasses.replace(config, data=dataclasses.replace(config.data, layout='dukemtmc', root=str(root)))


def test_people_are_held_out_of_the_data_of_the_run_only(tiny_run, tmp_path):
  config, _, _ = tiny_run
  config = dataclasses.replace(config, data=dataclasses.replace(config.data, val_identities=2))
  assert data_to_open(config, tmp_path) == config.data  # nothing is known about the run
  save_config(config, tmp_path / 'config.json')
  assert data_to_open(config, tmp_path) == config.data
  assert data_to_open(with_root(config, 'duke'), tmp_path).val_identities == 0


def test_folders_of_one_name_have_results_of_their_own(tiny_run, tmp_path):
  config, _, index = tiny_run
  save_config(config, tmp_path / 'config.json')
  roots = (tmp_path / 'a' / 'duke', tmp_path / 'b' / 'duke', tmp_path / ('x' * 255), tmp_path / 'a\nb', 'gs://b/duke/')
  folders = [results_folder(with_root(config, root), index, tmp_path, 'evaluation') for root in roots]
  assert len(set(folders)) == len(roots) and all(len(folder.name) < 200 for folder in folders)


def test_one_data_set_is_known_however_its_path_is_written(tiny_run, tmp_path, monkeypatch):
  config, _, index = tiny_run
  (tmp_path / 'duke').mkdir()
  (tmp_path / 'link').symlink_to(tmp_path / 'duke')
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv('HOME', str(tmp_path))
  save_config(with_root(config, 'duke'), tmp_path / 'config.json')
  for root in ('duke/', './duke', tmp_path / 'duke', '~/duke', 'link', f'file://{tmp_path}/duke'):
    assert results_folder(with_root(config, root), index, tmp_path, 'evaluation') == tmp_path / 'evaluation'
  save_config(config, tmp_path / 'config.json')  # the built-in pedestrians in their usual place
  usual = dataclasses.replace(config, data=dataclasses.replace(config.data, root=str(tmp_path / 'synthetic_data')))
  assert results_folder(usual, index, tmp_path, 'evaluation') == tmp_path / 'evaluation'


def test_place_of_results_is_found_without_ml_collections(tiny_run, tmp_path, monkeypatch):
  config, _, index = tiny_run
  save_config(config, tmp_path / 'config.json')
  monkeypatch.setitem(sys.modules, 'ml_collections', None)
  assert results_folder(config, index, tmp_path, 'generated') == tmp_path / 'generated'


FILES = ('results.json', 'rankings.csv', 'roc.png')


def write_results(folder, **results):
  keep_earlier(folder, results, FILES, subject=('step', 'settings'))
  folder.mkdir(exist_ok=True)
  for name in FILES[1:]:
    (folder / name).write_text(str(results))
  (folder / 'results.json').write_text(json.dumps(results))


def test_results_of_something_else_are_kept(tmp_path):
  folder = tmp_path / 'evaluation'
  every = [
    {'step': step, 'protocol': protocol, 'settings': {'protocol': protocol, 'sizes': [1, 2]}}
    for step in (7, 9)
    for protocol in ('release', 'standard')
  ]
  for results in [*every, every[0], every[-1], every[-1]]:
    write_results(folder, **results)
  assert json.loads((folder / 'results.json').read_text()) == every[-1]
  kept = {path.name[:-7]: path for path in (folder / 'earlier').iterdir()}
  assert sorted(kept) == [f'step_000000{results["step"]}_{results["protocol"]}' for results in every]
  for path in kept.values():
    results = json.loads((path / 'results.json').read_text())
    assert results in every and (path / 'rankings.csv').read_text() == (path / 'roc.png').read_text() == str(results)


def test_folders_are_kept_with_their_results_also_for_the_second_time(tmp_path):
  folder, files = tmp_path / 'evaluation', ('results.json', 'ranked_table')
  for step in (7, 9, 7, 9):
    keep_earlier(folder, {'step': step}, files, subject=('step',))
    (folder / 'ranked_table').mkdir(parents=True)
    (folder / 'ranked_table' / 'part').write_text(str(step))
    (folder / 'results.json').write_text(json.dumps({'step': step}))
  kept = sorted((folder / 'earlier').iterdir())
  assert [path.name[:-7] for path in kept] == ['step_0000007', 'step_0000009']  # without a protocol
  parts = [(path / 'ranked_table' / 'part').read_text() for path in kept]
  assert parts == ['7', '9'] and (folder / 'ranked_table' / 'part').read_text() == '9'


@pytest.mark.parametrize('content', [b'{', b'[]', b'\xff', b'{"step": "../../x", "protocol": "../x"}', b'{"step": -1}'])
def test_damaged_results_are_kept_too(tmp_path, content):
  write_results(tmp_path, step=7, settings={})
  (tmp_path / 'results.json').write_bytes(content)
  write_results(tmp_path, step=7, settings={})
  (kept,) = (tmp_path / 'earlier').iterdir()
  assert kept.name.startswith('step_unknown_') and (kept / 'results.json').read_bytes() == content


def test_interrupted_keeping_is_finished(tmp_path, monkeypatch):
  write_results(tmp_path, step=7, settings={})
  replace, moved = os.replace, []

  def killed(*paths):
    if moved:
      raise MemoryError
    moved.append(replace(*paths))

  with monkeypatch.context() as patch, pytest.raises(MemoryError):
    patch.setattr(os, 'replace', killed)
    write_results(tmp_path, step=9, settings={})
  write_results(tmp_path, step=9, settings={})
  (kept,) = (tmp_path / 'earlier').iterdir()
  assert sorted(path.name for path in kept.iterdir()) == sorted(FILES)
