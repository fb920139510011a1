"""Images inside a page, smaller than their files and bounded in number of bytes."""

import base64
import pathlib

from PIL import Image

from dgnet_jax.data.images import decode_rgb, read_encoded
from dgnet_jax.errors import UserError
from dgnet_jax.reports.html_page import Html, element, missing
from dgnet_jax.utils.writers import encoded

MAX_TOTAL_BYTES = 12 * 2**20  # of the encoded images of a page; base64 adds a third
MAX_SIZE_WH = (1800, 4000)  # pixels
WIDE = 600  # pixels: images above it scroll on phones instead of shrinking
TALL = 1400  # pixels: sheets above it scroll in a frame
CHART_COLORS = 128
JPEG_QUALITY = 82


class InlinedImages:
  """Puts image files into a page as long as there is room, and keeps account of those that are left out.

  Attributes:
    left_out: a line for each image that had no room.
  """

  def __init__(self) -> None:
    self._room = MAX_TOTAL_BYTES
    self.left_out: list[str] = []

  def figure(self, path: pathlib.Path, name: str, *, alt: str, caption: str, is_chart: bool = False) -> Html:
    """Returns an image with its caption, or a line that says why it is not shown.

    Args:
      path: the image file, which must exist.
      name: of the file, for the reader.
      alt: what the image shows, for readers who cannot see it.
      caption: text below the image.
      is_chart: few colours and sharp lines, as opposed to a sheet of photographs.
    """
    try:
      image = decode_rgb(read_encoded(path), name)
    except UserError as error:
      return missing(f'{name} is not shown: {error}')
    image.thumbnail(MAX_SIZE_WH, Image.Resampling.LANCZOS)
    content, mime_type = _encode(image, is_chart)
    if len(content) > self._room:
      self.left_out.append(f'{name}: {len(content) / 1e6:.1f} MB')
      return missing(f'{name} is left out, because the report would become too large.')
    self._room -= len(content)
    shown = element(
      'img',
      src=f'data:{mime_type};base64,{base64.b64encode(content).decode()}',
      alt=alt,
      width=str(image.width),
      height=str(image.height),
      **({'class_': 'wide'} if image.width > WIDE else {}),
    )
    classes = 'scroll tall' if image.height > TALL and not is_chart else 'scroll'
    scroll = element('div', shown, class_=classes, role='region', tabindex='0', aria_label=name)
    return element('figure', scroll, element('figcaption', caption))


def _encode(image: Image.Image, is_chart: bool) -> tuple[bytes, str]:
  """Returns the content of a file, and its type."""
  if is_chart:
    return encoded(image.quantize(CHART_COLORS), format='PNG', optimize=True), 'image/png'
  return encoded(image, format='JPEG', quality=JPEG_QUALITY, optimize=True), 'image/jpeg'
