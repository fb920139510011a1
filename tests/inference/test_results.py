"""Where the results of a run are kept."""

import dataclasses

from dgnet_jax.config.loading import save_config
from dgnet_jax.inference.results import results_folder


def test_other_data_get_a_folder_of_their_own(tiny_run, tmp_path):
  config, _, index = tiny_run
  save_config(config, tmp_path / 'config.json')
  assert results_folder(config, index, tmp_path, 'evaluation') == tmp_path / 'evaluation'
  more_pairs = dataclasses.replace(config.evaluation, num_ground_truth_pairs=3)
  changed = dataclasses.replace(config, evaluation=more_pairs)
  assert results_folder(changed, index, tmp_path, 'evaluation') == tmp_path / 'evaluation'
  other = dataclasses.replace(config, data=dataclasses.replace(config.data, layout='dukemtmc', root='data/duke'))
  index = dataclasses.replace(index, name='dukemtmc', variant='in two parts')
  assert (
    results_folder(other, index, tmp_path, 'evaluation') == tmp_path / 'evaluation' / 'on_dukemtmc_duke_in_two_parts'
  )
