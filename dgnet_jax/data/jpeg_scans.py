"""The number of scans in a JPEG file: each is a pass over the whole image, and a small file can have thousands."""

MAX_SCANS = 32  # of a file that is decoded; libjpeg writes 10, MozJPEG up to 13
_SCAN = b'\xff\xda'
_WITH_LENGTH = {*range(0xC0, 0xD0), *range(0xDA, 0xDE), *range(0xE0, 0xF0), 0xFE}  # second bytes of markers
_END = 0xD9


def has_too_many_scans(encoded: bytes) -> bool:
  """Returns True if a file is a JPEG of more than `MAX_SCANS` scans. Other and damaged files are for the decoder."""
  if not encoded.startswith(b'\xff\xd8'):
    return False
  # Compressed data never contains the marker, metadata may.
  return encoded.count(_SCAN) > MAX_SCANS and _count_scans(encoded) > MAX_SCANS


def _count_scans(encoded: bytes) -> int:
  """Counts scans up to `MAX_SCANS` + 1, in the order in which libjpeg reads the markers."""
  scans, position = 0, 2
  while scans <= MAX_SCANS:
    position = encoded.find(b'\xff', position) + 1
    if not 0 < position < len(encoded):
      break
    marker = encoded[position]
    if marker == 0xFF:  # padding
      continue
    position += 1
    if marker == _END:
      break
    scans += marker == _SCAN[1]
    if marker in _WITH_LENGTH:
      position += max(2, int.from_bytes(encoded[position : position + 2], 'big'))
  return scans
