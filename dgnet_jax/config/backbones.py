"""The backbones and necks by name, and the sizes of a backbone's last map: for the rules and for the networks."""

BACKBONES = ('resnet', 'resnet_ibn_a', 'osnet')
NECKS = ('release', 'bnneck')
OSNET_STAGES = 3
# Channels of OSNet's stages by those of its stem: 64, 256, 384 and 512 in OSNet x1.0 (Zhou et al. 2019, table 1).
OSNET_MULTIPLES = (4, 6, 8)


def num_channels(backbone: str, stage_sizes: tuple[int, ...], width: int) -> int:
  """Returns the channels of a backbone's last map.

  Args:
    backbone: one of `BACKBONES`.
    stage_sizes: blocks of each stage.
    width: channels of the stem.
  """
  return width * (OSNET_MULTIPLES[-1] if backbone == 'osnet' else 4 * 2 ** (len(stage_sizes) - 1))


def map_size(backbone: str, stage_sizes: tuple[int, ...], last_stride: int, pixels: int) -> int:
  """Returns the height or width of a backbone's last map.

  Args:
    backbone: one of `BACKBONES`.
    stage_sizes: blocks of each stage.
    last_stride: stride of the last stage; OSNet has none there.
    pixels: height or width of its input.
  """
  size = -(-pixels // 2)  # the stem; padded windows round up
  size = -(-size // 2)
  if backbone == 'osnet':
    return size // 2 // 2  # 2x2 windows after the first two stages, not padded
  later = len(stage_sizes) - 1
  for stride in [2] * max(later - 1, 0) + [last_stride] * min(later, 1):
    size = -(-size // stride)
  return size


def problem_with_sizes(backbone: str, stage_sizes: tuple[int, ...], width: int, last_stride: int, pixels: int) -> str:
  """Returns which sizes a backbone cannot have, or ''.

  Args:
    backbone: one of `BACKBONES`.
    stage_sizes: blocks of each stage.
    width: channels of the stem.
    last_stride: stride of the last stage.
    pixels: the smaller of height and width of its input.
  """
  if backbone == 'resnet_ibn_a':
    return '' if width > 1 else 'resnet_ibn_a halves the channels: set width to at least 2'
  if backbone != 'osnet':
    return ''
  if len(stage_sizes) != OSNET_STAGES:
    return f'osnet has {OSNET_STAGES} stages: set stage_sizes to 2,2,2, as in OSNet x1.0'
  if last_stride != 1:
    return 'osnet has no stride in its last stage: set last_stride to 1'
  if not map_size(backbone, stage_sizes, last_stride, pixels):
    return f'osnet divides height and width by 16, and its input has {pixels} pixels: enlarge data.image_size_hw'
  return ''
