"""ImageNet weights for the backbones: torchvision's ResNet-50 as .pth or .safetensors."""

from collections.abc import Mapping
import logging
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from dgnet_jax.config.schema import Config
from dgnet_jax.errors import UserError
from dgnet_jax.interop.strict import check_state_dict, load_strictly
from dgnet_jax.interop.torch_file import read_torch
from dgnet_jax.interop.torch_names import imagenet_entries
from dgnet_jax.models.build import make_networks, make_teacher_network
from dgnet_jax.types import Teacher

logger = logging.getLogger(__name__)


FROM_TEACHER = 'teacher'  # in place of a path: the re-id network's backbone starts as the trained teacher's
ANY_NUMBER_OF_PEOPLE = 2  # the backbone's shapes are the same for all


def read_weights(path: str | pathlib.Path) -> dict[str, np.ndarray]:
  """A bare state dict from a file of torch.save, or of safetensors if it is named .safetensors.

  Raises:
    UserError: it is missing, damaged, or holds something else.
  """
  path = pathlib.Path(path)
  if path.suffix != '.safetensors':
    return check_state_dict(read_torch(path), str(path))
  if not path.is_file():
    raise UserError(f'{path}: no such file')
  try:
    return check_state_dict(safetensors.numpy.load_file(path), str(path))
  except (safetensors.SafetensorError, KeyError, ValueError) as error:
    raise UserError(f'{path}: damaged, or no safetensors file ({error}); copy or download it again') from error


def load_backbone(config: Config, network: str, *, teacher: Teacher | None = None) -> Mapping[str, Any] | None:
  """Parameters and BatchNorm statistics for the backbone of a fresh network.

  Args:
    config: `reid.pretrained` or `teacher.pretrained` names the file, '' none; `reid.pretrained` may be 'teacher'.
    network: reid or teacher.
    teacher: whose backbone is copied with 'teacher'.

  Returns:
    {'params', 'batch_stats'} of the backbone alone; None where no file is named.

  Raises:
    UserError: the file is missing, damaged, or of another network; names the field, the file and every array.
  """
  path = getattr(config, network).pretrained
  if not path:
    return None
  if network == 'reid' and path == FROM_TEACHER:
    if teacher is None:
      raise ValueError('reid.pretrained=teacher needs the teacher')
    logger.info("reid: backbone from the teacher's")
    # A copy: the train step donates its state's buffers, and the teacher's must stay.
    return {part: jax.tree.map(jnp.copy, getattr(teacher, part)['backbone']) for part in ('params', 'batch_stats')}
  make = {'reid': make_networks, 'teacher': make_teacher_network}[network]
  made: Any = make(config, ANY_NUMBER_OF_PEOPLE)
  init = made.init_reid if network == 'reid' else made.init
  params, batch_stats = jax.eval_shape(init, jax.random.key(0))
  template = {'params': params, 'batch_stats': batch_stats}
  entries = imagenet_entries(getattr(config, network).stage_sizes)
  loaded = load_strictly(read_weights(path), entries, template, where=f'{network}.pretrained={path}')
  logger.info(f'{network}: backbone from {path}')
  return {part: tree['backbone'] for part, tree in loaded.variables.items()}


def check_pretrained(config: Config, workdir: str | pathlib.Path) -> None:
  """Reads the pretrained weights of networks that a run is about to create: a mistake is told before work starts.

  Args:
    config: validated.
    workdir: of the run; what has begun in it needs them no more.

  Raises:
    UserError: as `load_backbone`.
  """
  workdir = pathlib.Path(workdir)
  if config.reid.pretrained != FROM_TEACHER and not (workdir / 'checkpoints').is_dir():
    load_backbone(config, 'reid')
  if not config.teacher.checkpoint and not (workdir / 'teacher').is_dir():
    load_backbone(config, 'teacher')
