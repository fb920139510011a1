"""Loads ImageNet weights for the backbones, as .pth or .safetensors."""

from collections.abc import Mapping
import logging
import pathlib
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from dgnet_jax.config.schema import Config
from dgnet_jax.interop.pretrained_names import UNUSED_ARRAYS, pretrained_entries
from dgnet_jax.interop.safetensors_file import read_safetensors
from dgnet_jax.interop.strict import load_strictly, unwrapped
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.types import Teacher
from dgnet_jax.utils.paths import local_path

logger = logging.getLogger(__name__)

FROM_TEACHER = 'teacher'  # instead of a path: the re-id network's backbone starts as the trained teacher's
NUM_IDENTITIES = 2  # any number: the shapes of a backbone do not depend on it
Network = Literal['reid', 'teacher']


def read_weights(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """Reads a state dict that torch.save wrote, or safetensors if the file is named .safetensors; see `unwrapped`.

  Raises:
    UserError: the file is missing or damaged, or holds something else.
  """
  path = local_path(path)
  if path.suffix != '.safetensors':
    return unwrapped(read_torch(path), str(path))
  arrays, _ = read_safetensors(path)
  return unwrapped(arrays, str(path))


def load_backbone(config: Config, network: Network, *, teacher: Teacher | None = None) -> Mapping[str, Any] | None:
  """Loads the pretrained backbone of a new network.

  Args:
    config: `reid.pretrained` or `teacher.pretrained` is a path, or '' for none; `reid.pretrained` may be 'teacher'.
    network: reid or teacher.
    teacher: required if `reid.pretrained` is 'teacher'.

  Returns:
    {'params', 'batch_stats'} of the backbone, or None if no file is configured.

  Raises:
    UserError: the file is missing or damaged, or belongs to another network. The message names the field, the file and
      every array that does not fit.
  """
  section = config.reid if network == 'reid' else config.teacher
  path = section.pretrained
  if not path:
    return None
  if network == 'reid' and path == FROM_TEACHER:
    if teacher is None:
      raise ValueError('reid.pretrained=teacher needs the argument `teacher`')
    logger.info('reid: backbone copied from the teacher')
    # A copy, because the train step donates the buffers of its state while the teacher stays in use.
    return {part: jax.tree.map(jnp.copy, getattr(teacher, part)['backbone']) for part in ('params', 'batch_stats')}
  loaded = load_strictly(
    read_weights(path),
    pretrained_entries(section),
    _variable_shapes(config, network),
    source=f'{network}.pretrained={path}',
    unused=UNUSED_ARRAYS.get(section.backbone, ()),
  )
  logger.info(f'{network}: backbone from {path}')
  return {part: tree['backbone'] for part, tree in loaded.variables.items()}


def _variable_shapes(config: Config, network: Network) -> dict[str, Any]:
  """Returns the shapes of a network's variables {'params', 'batch_stats'}."""
  if network == 'reid':
    init = make_networks(config, NUM_IDENTITIES).init_reid
  else:
    init = make_teacher_network(config, NUM_IDENTITIES).init
  params, batch_stats = jax.eval_shape(init, jax.random.key(0))
  return {'params': params, 'batch_stats': batch_stats}


def check_pretrained(config: Config, workdir: str | pathlib.Path) -> None:
  """Loads the pretrained weights that a run will need, so that mistakes are reported before it starts.

  Args:
    config: the run's config.
    workdir: the run's work folder. Networks that already have a folder there need no pretrained weights.

  Raises:
    UserError: as for `load_backbone`.
  """
  workdir = pathlib.Path(workdir)
  if config.reid.pretrained != FROM_TEACHER and not (workdir / 'checkpoints').is_dir():
    load_backbone(config, 'reid')
  if not config.teacher.checkpoint and not (workdir / 'teacher').is_dir():
    load_backbone(config, 'teacher')
