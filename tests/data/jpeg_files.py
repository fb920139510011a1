"""JPEG files with more scans than encoders write."""

import io

from PIL import Image


def many_scans(size_hw, count, metadata=b''):
  """A progressive gray JPEG whose last scan is repeated, so that it has `count` scans; `metadata` is a comment."""
  file = io.BytesIO()
  Image.new('L', size_hw[::-1], 128).save(file, 'jpeg', progressive=True)
  content = file.getvalue()
  last = content.rindex(b'\xff\xda')
  repeats = count - content.count(b'\xff\xda')
  comment = b'\xff\xfe' + (len(metadata) + 2).to_bytes(2, 'big') + metadata if metadata else b''
  return b'\xff\xd8' + comment + content[2:-2] + content[last:-2] * repeats + b'\xff\xd9'
