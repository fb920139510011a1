"""What the fuzz tests read: for each kind of file a name, what reads it, and a strategy for its content."""

from collections.abc import Callable
import dataclasses
import functools
import importlib.util
import io
import json
import logging
import pathlib
import shutil
import tempfile
import warnings

from hypothesis import strategies as st
import numpy as np
from PIL import Image
import pytest
import scipy.io

from dgnet_jax.config.data_schema import DataConfig
from dgnet_jax.config.defaults import default_config
from dgnet_jax.config.loading import changed_fields, complete_config, load_config
from dgnet_jax.config.schema import Config
from dgnet_jax.data import images, verification
from dgnet_jax.data.image_bytes import _records, read_bytes, record_address
from dgnet_jax.data.image_lists import as_image_list
from dgnet_jax.data.image_sets import read_image_set
from dgnet_jax.data.readers.mat_files import read_matrix
from dgnet_jax.data.registry import read_dataset, read_layout
from dgnet_jax.data.synthetic.dataset import SETTINGS, _is_finished
from dgnet_jax.data.synthetic.manifest import image_descriptions
from dgnet_jax.data.synthetic.people import sample_person, sample_structure
from dgnet_jax.data.synthetic.rendering import render
from dgnet_jax.gallery.build import BuildOptions, build_gallery
from dgnet_jax.gallery.photos import read_tracks
from dgnet_jax.gallery.store import Description, GalleryStore
from dgnet_jax.gallery.store import read_description as read_gallery
from dgnet_jax.generation.bulk import _check_plan
from dgnet_jax.inference import model_file
from dgnet_jax.inference.calibration import read_calibration
from dgnet_jax.inference.results import read_results
from dgnet_jax.interop.pretrained import read_weights
from dgnet_jax.interop.release.files import read_state_dict
from dgnet_jax.interop.release.importer import _make_config
from dgnet_jax.interop.release.optimizer import adam_betas, read_optimizers
from dgnet_jax.interop.release.sizes import num_identities, release_sizes
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.plots.curves import panels_of, read_metrics
from dgnet_jax.reports.comparison import compare_runs, comparison_text
from dgnet_jax.reports.run_report import write_report
from dgnet_jax.serving.images import decode_upload
from dgnet_jax.training.checkpoints import Checkpoints
from dgnet_jax.training.data_record import TrainingData, data_changes, read_record
from dgnet_jax.training.metrics import _drop_after
from dgnet_jax.training.non_finite import read_report
from dgnet_jax.training.teacher_store import check_teacher, describe_teacher, read_description
from tests.data.folders import write_image, write_market
from tests.data.jpeg_files import many_scans
from tests.fuzz import mutations
from tests.interop.torch_files import BEGIN, binary, tensor, write_zip
from tests.reports.page_parser import PageParser
from tests.reports.run_folders import FIGURES, SETUP, START, rankings, write_run
from tests.training.checkpoint_states import assert_same, make_state, save_steps

DATA = pathlib.Path(__file__).parents[1] / 'interop' / 'data'
CONFIG = Config()


@dataclasses.dataclass(frozen=True)
class Reader:
  """A reader under test.

  Attributes:
    name: name of the file, which its errors must contain.
    read: reads the file at a path; raises UserError if it is not as it should be.
    contents: strategy for its bytes.
    prepare: makes what else must be in its folder.
  """

  name: str
  read: Callable[[pathlib.Path], object]
  contents: st.SearchStrategy
  prepare: Callable[[pathlib.Path], object] = lambda folder: None


def _json(*values):
  seeds = [json.dumps(value) for value in values]
  return mutations.changed_json(seeds) | mutations.mutated([seed.encode() for seed in seeds], mutations.JSON_TOKENS)


def _text(tokens, *seeds):
  return mutations.mutated([seed.encode() for seed in seeds], tokens)


def _zipped(pickle, **files):
  file = io.BytesIO()
  write_zip(file, pickle, files=files)
  return file.getvalue()


def _torch(*bodies):
  """Zips around changed pickles, and changed files of both formats."""
  files = [(DATA / name).read_bytes() for name in ('torch_2_13.pt', 'torch_2_13_legacy.pt')]
  legacy = files[1]
  magic = legacy[: legacy.index(BEGIN, legacy.index(b'little_endian'))]
  zipped = mutations.pickles(bodies).map(_zipped)
  old = mutations.pickles(bodies).map(
    lambda body: magic + BEGIN + body + b'.' + BEGIN + b'](' + binary('0') + b'e.' + bytes(64)
  )
  return zipped | old | mutations.mutated([*files, *map(_zipped, bodies)], mutations.PICKLE_TOKENS)


STATE_DICT = b'}(' + binary('conv1.weight') + tensor((2, 2), (2, 1)) + binary('bn1.weight') + tensor() + b'u'
NAMES = (
  *(
    'model.conv1.weight',
    'model.layer1.0.conv1.weight',
    'model.layer2.0.conv1.weight',
    'classifier1.add_block.0.weight',
  ),
  *(
    'classifier1.classifier.0.weight',
    'enc_content.model.0.conv.weight',
    'enc_content.model.4.model.0.x',
    'dec.model.1.model.0.x',
  ),
  *(
    'mlp_w1.model.0.fc.weight',
    'cnns.0.0.conv.weight',
    'cnn.0.conv.weight',
    'classifier.add_block.0.weight',
    'dec.model.2.gamma',
  ),
)
NETWORK = b'}' + binary('a') + b'}(' + b''.join(binary(name) + tensor((2, 2), (2, 1)) for name in NAMES) + b'us'
GROUP = (
  b'}(' + binary('params') + b'](K\0K\1e' + binary('lr') + binary(0.1) + binary('betas') + binary((0.5, 0.9)) + b'u'
)
STATE = b'}(K\0}' + binary('exp_avg') + tensor() + b'sK\1}' + binary('step') + b'K\7su'
OPTIMIZER = b'}(' + binary('state') + STATE + binary('param_groups') + b'](' + GROUP + b'eu'
OPTIMIZERS = b'}(' + b''.join(binary(name) + OPTIMIZER for name in ('gen', 'dis', 'id')) + b'u'


def _read_network(path):
  state_dict = read_state_dict('gen', path)
  state_dicts = {name: state_dict for name in ('gen', 'id', 'dis', 'teacher')}
  sources = dict.fromkeys(state_dicts, str(path))
  release_sizes(state_dicts, sources)
  num_identities(state_dicts, sources)


def _read_settings(path):
  """The other problems of a config do not name the file, but the field."""
  _make_config({'config': path}, {}, None, {})


def _encoded(kind, mode='RGB', **options):
  file = io.BytesIO()
  pixels = np.random.default_rng(0).integers(0, 256, (4, 3, 3), np.uint8)
  Image.fromarray(pixels).resize((24, 40)).convert(mode).save(file, kind, **options)
  return file.getvalue()


exif = Image.Exif()
exif[0x112] = 6
IMAGES = (
  *(
    _encoded('jpeg'),
    _encoded('jpeg', progressive=True),
    _encoded('jpeg', 'CMYK', exif=exif),
    many_scans((40, 30), 20),
  ),
  *(_encoded('bmp'), _encoded('webp')),
  *(_encoded('png'), _encoded('png', 'P', exif=exif), _encoded('png', 'LA'), _encoded('png', '1')),
)
IMAGE_FILES = mutations.mutated(IMAGES, mutations.IMAGE_TOKENS) | mutations.mutated(IMAGES, mutations.IMAGE_TOKENS).map(
  mutations.with_checksums
)


def _read_image(path):
  as_image_list(str(path))
  images.read_header(str(path))
  assert images.read_image(str(path), (8, 4)).shape == (8, 4, 3)


def _decode_upload(path):
  assert decode_upload(path.read_bytes(), path.name).dtype == np.uint8


def _read_verified(path):
  verification.verify_images([str(path.parent / 'x.jpg')], threads=1, cache_file=path)


SYNTHETIC = {name: getattr(CONFIG.data.synthetic, name) for name in SETTINGS}
SYNTHETIC |= {name: list(SYNTHETIC[name]) for name in ('image_size_hw', 'cameras_per_identity')}
PERSON = sample_person(np.random.default_rng(0))
STRUCTURE = dataclasses.asdict(sample_structure(np.random.default_rng(0), 1, PERSON.body))


def _read_truth(path):
  for description in image_descriptions(path.parent).values():
    render(*description, image_size_hw=(16, 8))
  _is_finished(path.parent, SYNTHETIC)


def _read_config(path):
  changed_fields(path, CONFIG)
  load_config(path, {})


def _read_model_description(path):
  """The metadata of a model file; its arrays are read as those of the other safetensors files."""
  description = model_file.read_description({model_file.KEY: path.read_text(errors='replace')}, path)
  model_file._config_of(description, num_arrays=300, path=path)


def _read_saved_config(path):
  """As it is stored in a checkpoint, whose description is read as JSON of bounded depth."""
  from dgnet_jax.utils.bounded_files import parse_json

  try:
    values = parse_json(path.read_text())
  except ValueError:
    return
  if isinstance(values, dict):
    complete_config(values)


PEOPLE_OF_RUN = TrainingData(('0001', '0002', 'ann'), {'a/1.jpg': (0, '1f'), 'a/2.jpg': (1, '2e'), 'b.jpg': (2, '3d')})
TEACHER = describe_teacher(CONFIG, 3, PEOPLE_OF_RUN.identities)
PEOPLE = {'path': ['a/b.jpg', 'c.jpg'], 'identity': ['1', 'x'], 'camera': ['1', '2']}
TENSORS = {
  'a': {'dtype': 'F32', 'shape': [2, 4], 'data_offsets': [0, 32]},
  'b': {'dtype': 'BF16', 'shape': [16], 'data_offsets': [32, 64]},
}
TENSORS['__metadata__'] = {'format': 'pt'}
METRICS = '{"step": 10, "loss/total": 1.5, "rate/reid": null}\n{"step": 20, "loss/total": 1.0}\n'
YAML = 'batch_size: 8\nlr2: 1e-4\nbeta1: 0.5\ncrop_image_height: 256\nstep_size: 60000\nID_style: AB\n'
YAML += 'gen:\n  dim: 16\n  activ: relu\n'
TABLE = 'path,identity,camera,split\na.jpg,1,1,train\n"b,c.jpg",-1,2,gallery\nx.jpg,ann,3,train\n'


def _drop(path):
  _drop_after(path, 15)


@functools.cache
def _templates():
  """A folder with a checkpoint, a gallery and a prepared data set, made when the first test needs it."""
  folder = tempfile.TemporaryDirectory(prefix='dgnet_fuzz_')
  root = pathlib.Path(folder.name)
  save_steps(root / 'checkpoint', (10,))
  if importlib.util.find_spec('pyarrow'):
    (root / 'photos').mkdir()
    write_image(root / 'photos' / 'x.jpg')
    described = Description('a', step=1, run='r', image_size_hw=(8, 4), size=2, num_pieces=1)
    build_gallery(
      root / 'gallery', [root / 'photos'], lambda _: iter([np.float32([[0, 1]])]), described, BuildOptions()
    )
  if importlib.util.find_spec('array_record') and importlib.util.find_spec('tensorflow_datasets'):
    from dgnet_jax.data.tfds_builders import prepare_records

    (root / 'files').mkdir()
    prepare_records(read_layout(write_market(root / 'files')), root / 'tfds').rename(root / 'records')
  return root, folder  # which is removed with the process


def _copied(name):
  """Returns a function that copies a template's folder into a folder."""

  def prepare(folder):
    if not (template := _templates()[0] / name).exists():
      pytest.skip('pyarrow, TensorFlow Datasets or ArrayRecord is not installed')
    shutil.copytree(template, folder, dirs_exist_ok=True)

  return prepare


def _from_template(tokens, *pattern):
  """Changed bytes of the files that match a pattern in the template's folder."""

  def contents():
    found = sorted(_templates()[0].glob('/'.join(pattern)))
    return mutations.mutated([path.read_bytes() for path in found] or [b''], tokens)

  return st.deferred(contents)


def _read_part(folder):
  store = GalleryStore(folder, read_gallery(folder))
  (part,) = store.description.parts
  store.rows(part)
  store.embeddings(part)


def _restore(path):
  folder = path.parents[len(path.parts) - path.parts.index('10') - 1]
  logging.getLogger('asyncio').setLevel(logging.CRITICAL)  # reads that were in progress when the first one failed
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    assert_same(Checkpoints(folder).restore(make_state()), make_state(10))


def _read_first_record(path):
  _records.cache_clear()
  images.decode_rgb(read_bytes(record_address(path.parent, 'train', 0, 'x.jpg')), path.name)


def _read_record(path):
  record = read_record(path.parent)
  data_changes(record, PEOPLE_OF_RUN)
  assert record.fingerprint


def _compare(path):
  """Compares the run that the file is of with another one."""
  run = next(folder for folder in path.parents if (folder / 'config.json').exists())
  comparison_text(compare_runs([run, run / 'other']))


def _report(path):
  """Writes the report about the run that the file is of, which must be a page."""
  run = next(folder for folder in path.parents if (folder / 'config.json').exists())
  write_report(run, run / 'report.html')
  PageParser((run / 'report.html').read_text(encoding='utf-8'))


def _run_and_other(folder):
  write_run(folder / 'run', starts=[{}], results={'evaluation': {}})
  write_run(folder / 'run' / 'other', starts=[{}], results={'evaluation': rankings(both=0.5)})


def _matlab():
  """Changed files with a matrix, packed and not."""
  files = []
  for packed in (False, True):
    file = io.BytesIO()
    scipy.io.savemat(file, {'track_test_info': np.float64([[1, 2, 3, 4]])}, do_compression=packed)
    files.append(file.getvalue())
  return mutations.mutated(files, (b'\0', b'\xff', b'\x0e\0\0\0', b'\x0f\0\0\0'))


GALLERY = {
  **{'format': 1, 'networks': 'a', 'step': 1, 'run': 'r', 'image_size_hw': [8, 4], 'size': 2, 'num_pieces': 1},
  **{'identity_pattern': '', 'camera_pattern': '', 'tracks': '', 'num_pending': 0, 'num_photos': 1},
  'parts': [{'file': 'part-00000000.parquet', 'rows': 1}],
}


def _run_with_figures(folder):
  _run_and_other(folder)
  (folder / 'run' / 'figures').mkdir()


READERS = {
  'torch': Reader('x.pt', read_torch, _torch(STATE_DICT, OPTIMIZERS)),
  'weights': Reader('x.pth', read_weights, _torch(STATE_DICT)),
  'network': Reader('gen.pt', _read_network, _torch(NETWORK)),
  'optimizers': Reader('optimizer.pt', lambda path: adam_betas(read_optimizers(path)), _torch(OPTIMIZERS)),
  'safetensors': Reader(
    'x.safetensors',
    read_weights,
    _json(TENSORS).map(mutations.with_length)
    | mutations.mutated([mutations.with_length(json.dumps(TENSORS).encode())], mutations.JSON_TOKENS),
  ),
  'model file': Reader(
    'x.json',
    _read_model_description,
    _json(
      {'format': 1, 'step': 5, 'num_identities': 3, 'config': default_config().to_dict(), 'about': {'results': {}}}
    ),
  ),
  'yaml': Reader('config.yaml', _read_settings, _text(mutations.YAML_TOKENS, YAML, 'a: [1, {b: c}]\n')),
  'config': Reader('config.json', _read_config, _json(default_config().to_dict())),
  'saved config': Reader('config.json', _read_saved_config, _json(default_config().to_dict())),
  'teacher': Reader(
    'teacher.json',
    lambda path: check_teacher(read_description(path.parent), CONFIG, PEOPLE_OF_RUN, path.parent),
    _json(TEACHER | {'num_steps': 5}),
  ),
  'training data': Reader(
    'training_data.json',
    _read_record,
    _json(
      {
        'identities': PEOPLE_OF_RUN.identities,
        'paths': ['a/1.jpg', 'a/2.jpg', 'b.jpg'],
        'classes': [0, 1, 2],
        'contents': ['1f', '2e', '3d'],
      }
    ),
  ),
  'metrics': Reader('metrics.jsonl', lambda path: panels_of(read_metrics(path)), _text(mutations.JSON_TOKENS, METRICS)),
  'resumed metrics': Reader('metrics.jsonl', _drop, _text(mutations.JSON_TOKENS, METRICS)),
  'results': Reader(
    'results.json',
    read_results,
    _json({'step': 5, 'single_query': {'both': {'mAP': 0.5}}}),
  ),
  'run record': Reader(
    'run/run.json', _compare, _json({'starts': [START | {'setup': 0}], 'setups': [SETUP]}), _run_and_other
  ),
  'compared results': Reader(
    'run/evaluation/results.json',
    _compare,
    _json(rankings(both=0.5) | {'images': {'cross': {'all': {'psnr': 20.0}}, 'diversity': {'generated': 0.5}}}),
    _run_and_other,
  ),
  'compared config': Reader('run/config.json', _compare, _json(default_config().to_dict()), _run_and_other),
  'compared metrics': Reader('run/metrics.jsonl', _compare, _text(mutations.JSON_TOKENS, METRICS), _run_and_other),
  'reported results': Reader(
    'run/evaluation/results.json',
    _report,
    _json(
      rankings(both=0.5)
      | {'overlaps': ['a'], 'images': {'cross': {'all': {'psnr': 20.0}}, 'diversity': {'generated': 0.5}}}
    ),
    _run_and_other,
  ),
  'reported figures': Reader('run/figures/figures.json', _report, _json(FIGURES), _run_with_figures),
  'reported record': Reader(
    'run/run.json', _report, _json({'starts': [START | {'setup': 0}], 'setups': [SETUP]}), _run_and_other
  ),
  'reported metrics': Reader('run/metrics.jsonl', _report, _text(mutations.JSON_TOKENS, METRICS), _run_and_other),
  'report': Reader(
    'report.json',
    read_report,
    _json(
      {
        **{'step': 7, 'terms': ['total'], 'networks': ['reid'], 'noticed_after': 10, 'checkpoint': None},
        **{'environment': {'jax': '0.10'}, 'config': default_config().to_dict()},
      }
    ),
  ),
  'plan': Reader(
    'plan.json', lambda path: _check_plan(path, {'plan': 'images', 'seed': 0}), _json({'plan': 'images', 'seed': 0})
  ),
  'truth': Reader(
    'truth.json',
    _read_truth,
    _json(
      {
        'format': 3,
        'settings': SYNTHETIC,
        'looks': [dataclasses.asdict(PERSON.appearance)],
        'images': {'a.jpg': {'look': 0, 'structure': STRUCTURE}},
      }
    ),
  ),
  'verified images': Reader(
    'verified_images.json',
    _read_verified,
    _json({'format': 1, 'images': {'/x.jpg': [5, 10**18]}}),
    lambda folder: write_image(folder / 'x.jpg'),
  ),
  'tfds': Reader(
    'metadata.json',
    lambda path: read_dataset(DataConfig(layout='tfds', root=str(path.parent))),
    _json({'train': PEOPLE, 'query': PEOPLE}),
  ),
  'csv': Reader(
    'x.csv', lambda path: read_dataset(DataConfig(layout='csv', root=str(path))), _text(mutations.TABLE_TOKENS, TABLE)
  ),
  'manifest': Reader(
    'manifest.csv',
    lambda path: read_image_set(str(path.parent)),
    _text(mutations.TABLE_TOKENS, 'path,identity\na.jpg,1\n'),
  ),
  'list': Reader(
    'list_train.txt',
    lambda path: read_layout(path.parent, 'msmt17'),
    _text(
      mutations.TABLE_TOKENS, '0000/0000_000_01_0303morning_0008_0.jpg 0\n0001/0001_000_02_0303noon_0008_0.jpg 1\n'
    ),
    lambda folder: (folder / 'train').mkdir(),
  ),
  'checkpoint description': Reader(
    '10/about/metadata',
    _restore,
    _from_template(mutations.JSON_TOKENS, 'checkpoint', '10', 'about', 'metadata'),
    _copied('checkpoint'),
  ),
  'checkpoint metadata': Reader(
    '10/state/_METADATA',
    _restore,
    _from_template(mutations.JSON_TOKENS, 'checkpoint', '10', 'state', '_METADATA'),
    _copied('checkpoint'),
  ),
  'checkpoint arrays': Reader(
    '10/state/manifest.ocdbt',
    _restore,
    _from_template((b'\0', b'\xff', b'\x80' * 9), 'checkpoint', '10', 'state', 'manifest.ocdbt'),
    _copied('checkpoint'),
  ),
  'records description': Reader(
    'dataset_info.json',
    _read_first_record,
    _from_template(mutations.JSON_TOKENS, 'records', 'dataset_info.json'),
    _copied('records'),
  ),
  'record features': Reader(
    'features.json',
    _read_first_record,
    _from_template(mutations.JSON_TOKENS, 'records', 'features.json'),
    _copied('records'),
  ),
  'records': Reader(
    'market1501-train.array_record-00000-of-00001',
    _read_first_record,
    _from_template(mutations.IMAGE_TOKENS, 'records', '*-train.array_record-*'),
    _copied('records'),
  ),
  'gallery': Reader('gallery.json', lambda path: read_gallery(path.parent), _json(GALLERY)),
  'matlab': Reader('x.mat', read_matrix, _matlab()),
  'tracks': Reader('tracks.csv', read_tracks, _text(mutations.TABLE_TOKENS, 'path,track\na.jpg,1\nb/c.jpg,walk\n')),
  'gallery part': Reader(
    'part-00000000.parquet',
    lambda path: _read_part(path.parent),
    _from_template((b'\0', b'\xff', b'\x80' * 9), 'gallery', 'part-00000000.parquet'),
    _copied('gallery'),
  ),
  'calibration': Reader(
    'calibration.json',
    lambda path: read_calibration(path.parent),
    _json(
      {
        **{'format': 1, 'step': 5, 'networks': 'a', 'alpha': 0.5},
        'thresholds': [{'false_positive_rate': 0.001, 'score': 0.5}],
      }
    ),
  ),
  'image': Reader('x.jpg', _read_image, IMAGE_FILES),
  'upload': Reader('x.jpg', _decode_upload, IMAGE_FILES),
}
