"""The benchmarks run at tiny sizes; what they measure is for people to judge."""

import re

import jax
import pytest

from dgnet_jax.benchmarks.timing import median_seconds
from dgnet_jax.cli.main import main
from dgnet_jax.config.loading import save_config
from tests.data.folders import TRAIN, write_market
from tests.exhaustive import EXHAUSTIVE
from tests.tiny_run import correspondence_config, frozen, tiny_config


def ratios(text):
  """The printed ratios by the name of the alternative."""
  return {name: float(ratio) for name, ratio in re.findall(r'^  (\S.*?) +[\d.]+ s .*?([\d.]+)x$', text, re.M)}


def test_ranking_is_compared_with_a_matrix_product(capsys):
  sizes = {'queries': 12, 'gallery': 90, 'people': 9, 'size': 8, 'distractors': 10, 'junk': 5, 'rounds': 1}
  main(['benchmark', 'ranking', *(f'--{name}={value}' for name, value in sizes.items())])
  printed = ratios(capsys.readouterr().out)
  assert list(printed) == ['matrix product', 'rank', 'sort per query'] and printed['matrix product'] == 1


def test_ranking_a_gallery_is_compared_with_a_matrix_product(tmp_path, capsys):
  save_config(frozen(tiny_config()), tmp_path / 'config.json')
  arguments = [f'--config={tmp_path / "config.json"}', '--sizes', '100', '20', '--rounds=1']
  main(['benchmark', 'gallery', *arguments])
  text = capsys.readouterr().out
  printed = ratios(text)
  assert list(printed) == ['gallery @ query', 'rank, the best 10', 'sort all'] and printed['gallery @ query'] == 1
  assert 'embed one image' in text and '100 entries' in text and '20 entries' in text


def test_a_stored_gallery_is_read_and_searched_with_faiss(tmp_path, capsys):
  for library in ('pyarrow', 'faiss'):
    pytest.importorskip(library)
  save_config(frozen(tiny_config()), tmp_path / 'config.json')
  main(['benchmark', 'gallery', f'--config={tmp_path / "config.json"}', '--sizes', '2500', '--rounds=1', '--stored'])
  text = capsys.readouterr().out
  assert list(ratios(text)) == ['gallery @ query', 'rank, the best 10', 'sort all', 'exact', 'FAISS']
  assert 'open on disk' in text and 'read the embeddings' in text and 'build the index of FAISS' in text
  assert float(re.search(r'FAISS finds ([\d.]+)% of the best 10 of 100 queries', text)[1]) > 30


def test_input_compares_loaders_with_one_thread(tmp_path, capsys):
  more = ('0010_c1s1_000002_01.jpg', '0010_c1s1_000003_01.jpg')  # a batch for the tests' eight devices
  root = write_market(tmp_path, train=(*TRAIN, *more))
  flags = [f'--root={root}', '--loaders=memory,threads,device', '--batches=2', '--rounds=1', '--threads=2']
  main(['benchmark', 'input', *flags])
  text = capsys.readouterr().out
  assert list(ratios(text)) == ['one thread', 'memory', 'threads', 'device'] and text.count('images/s') == 4


def test_inference_is_compared_with_default_options(tmp_path, capsys):
  save_config(frozen(tiny_config()), tmp_path / 'config.json')
  main(['benchmark', 'inference', f'--config={tmp_path / "config.json"}', '--images=2', '--people=4', '--rounds=1'])
  text = capsys.readouterr().out
  printed = ratios(text)
  assert list(printed) == [f'{what}, {how}' for what in ('embed', 'swap') for how in ('as used', 'XLA defaults')]
  assert printed['embed, XLA defaults'] == printed['swap, XLA defaults'] == 1
  assert text.count('2 images, float32') == 1 and text.count('per core') == 4


def test_serving_is_compared_for_several_clients(tmp_path, capsys):
  pytest.importorskip('python_multipart', reason="the extra 'serve' is not installed: pip install -e '.[serve]'")
  save_config(frozen(tiny_config()), tmp_path / 'config.json')
  main(['benchmark', 'serving', f'--config={tmp_path / "config.json"}', '--requests=16', '--people=4', '--rounds=1'])
  text = capsys.readouterr().out
  printed = ratios(text)
  assert list(printed) == [f'{n} clients, {how}' for n in (1, 4, 16) for how in ('one at a time', 'in batches')]
  assert printed['1 clients, one at a time'] == 1 and text.count('images/s') == 6


@pytest.mark.long
def test_step_compares_every_phase_with_default_options(tmp_path, capsys):
  config = tiny_config()
  config.batch_size, config.num_steps, config.joint, config.teaching.images = 8, 1, False, 'ground_truth'
  config.ramps.teaching.initial = 1.0
  save_config(frozen(config), tmp_path / 'config.json')
  main(['benchmark', 'step', f'--config={tmp_path / "config.json"}', '--people=4', '--steps=1', '--rounds=1'])
  text = capsys.readouterr().out
  assert re.findall('^(.*?)  +step +images/s', text, re.M) == ['teacher', 're-id network alone from step 0']
  assert text.count('as trained') == text.count('XLA defaults') == 2


@EXHAUSTIVE
@pytest.mark.long
def test_steps_of_two_designs_take_turns(tmp_path, capsys):
  configs = {}
  for name, config in {'release': tiny_config(), 'fetching': correspondence_config()}.items():
    config.batch_size, config.num_steps = 8, 1
    configs[name] = tmp_path / f'{name}.json'
    save_config(frozen(config), configs[name])
  flags = [f'--config={configs["fetching"]}', f'--against={configs["release"]}', '--people=4', '--steps=1']
  main(['benchmark', 'step', *flags, '--rounds=1'])
  printed = ratios(capsys.readouterr().out)
  assert list(printed) == [f'{configs[name]}, DG-Net from step 0' for name in ('fetching', 'release')]
  assert printed[f'{configs["release"]}, DG-Net from step 0'] == 1


@EXHAUSTIVE
@pytest.mark.long
def test_step_is_compared_with_the_plain_formulation_input_and_traces(tmp_path, capsys):
  config = tiny_config()
  config.batch_size, config.num_steps, config.data.root = 8, 1, str(tmp_path / 'data')
  save_config(frozen(config), tmp_path / 'config.json')
  flags = ['--against=plain', '--operations', '--input', f'--profile={tmp_path / "traces"}', '--steps=1', '--rounds=1']
  main(['benchmark', 'step', f'--config={tmp_path / "config.json"}', *flags])
  text = capsys.readouterr().out
  assert list(ratios(text)) == ['as trained', 'plain', 'with input'] and ratios(text)['plain'] == 1
  assert text.count('the 10 operations with the most time') == 2
  assert re.findall(r'^  (\w+) +AppearanceEncoder +[\d.]+', text, re.M)[:1] == ['identity']
  assert len(list((tmp_path / 'traces').rglob('*.xplane.pb'))) == 2 and ' of 0.000 s in all' not in text


def test_mistakes_are_reported(tmp_path, capsys):
  for arguments, message in (
    (['step', f'--config={tmp_path / "absent.json"}'], 'absent.json: no such config file'),
    (['step', '--config.sed=1'], 'sed: no such field'),
    (['step', '--against=synthetic'], '--against: synthetic is --config itself'),
    (['step', '--against=plain'], 'the plain formulation is of generator.design=adain, not of correspondence'),
    (
      ['step', '--against=plain', '--config=synthetic_release', '--config.weights.triplet=1'],
      'the plain formulation is of weights.triplet=0, not of 1.0',
    ),
    (['step', '--input'], '--input: needs the data set, --config.data.root=FOLDER'),
    (['step', '--input', '--against=market', '--config.data.root=x'], '--input: not with --against=CONFIG'),
    (['collectives', '--config.batch_size=16', '--config.micro_batches=2'], 'micro_batches: 2 parts are a loop'),
    (['ranking', '--config.seed=1'], 'seed: not for ranking'),
  ):
    with pytest.raises(SystemExit, match='2'):
      main(['benchmark', *arguments])
    assert message in capsys.readouterr().err


@pytest.mark.skipif(jax.device_count() == 1, reason='needs several devices')
def test_indivisible_batch_is_reported(tmp_path, capsys):
  config = tiny_config()
  config.batch_size, config.reid.batch_norm_group = 2 * jax.device_count() - 1, 0
  save_config(frozen(config), tmp_path / 'config.json')
  message = f'batch_size: {config.batch_size} does not divide among {jax.device_count()} devices'
  for part in ('step', 'collectives'):
    with pytest.raises(SystemExit, match='2'):
      main(['benchmark', part, f'--config={tmp_path / "config.json"}'])
    assert message in capsys.readouterr().err


def test_one_device_exchanges_nothing(monkeypatch, capsys):
  monkeypatch.setattr(jax, 'device_count', lambda: 1)
  with pytest.raises(SystemExit, match='2'):
    main(['benchmark', 'collectives'])
  assert 'XLA_FLAGS=--xla_force_host_platform_device_count=N' in capsys.readouterr().err


@EXHAUSTIVE
@pytest.mark.long
def test_collectives_of_every_phase(tmp_path, capsys):
  config = tiny_config()
  config.update(batch_size=8, num_steps=1)
  save_config(frozen(config), tmp_path / 'config.json')
  main(['benchmark', 'collectives', f'--config={tmp_path / "config.json"}', '--people=4'])
  text = capsys.readouterr().out
  (parameters,) = re.findall(r'^DG-Net from step 0: .* TFLOP on each device; ([\d.]+) MB of parameters', text, re.M)
  (gradients,) = re.findall(r'^  all-reduce +gradients +\d+ +\d+ +([\d.]+)$', text, re.M)
  assert float(parameters) <= float(gradients) < 3 * float(parameters)
  kinds = re.findall(r'^  ([\w-]+) +(?:\w.*?)? +\d+ +\d+ +[\d.]+$', text, re.M)
  assert set(kinds) == {'all-reduce', 'all'} and '/Decoder/' in text.split('largest arrays:')[1]
  memory = r'^  on each device ([\d.]+) MB of arguments .* and [\d.]+ MB of temporary arrays$'
  whole = float(re.findall(memory, text, re.M)[0])
  command = ['benchmark', 'collectives', f'--config={tmp_path / "config.json"}', '--people=40000']
  sizes = []
  for model_devices in (1, 8):
    main([*command, f'--config.model_devices={model_devices}'])
    sizes += [float(re.findall(memory, capsys.readouterr().out, re.M)[0])]
  assert whole < sizes[1] < sizes[0] / 2


def test_alternatives_take_turns_and_may_measure_themselves():
  turns = []
  alternatives = {'a': lambda: turns.append('a'), 'b': lambda: turns.append('b') or 2.0}
  seconds = median_seconds(alternatives, rounds=3)
  assert ''.join(turns) == 'abababab' and seconds['b'] == 2
