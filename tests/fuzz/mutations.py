"""Hypothesis strategies for damaged and hostile files."""

import json
import struct
import zlib

from hypothesis import strategies as st

from tests.interop.torch_files import binary, storage, tensor

MAX_REPEATS = 3000
JSON_TOKENS = (
  *(
    '[',
    ']',
    '{',
    '}',
    '{"a":',
    ',',
    '"',
    '\\',
    '\\ud800',
    '\0',
    'null',
    'true',
    'NaN',
    '-Infinity',
    '1e999',
    '-1',
    '0.5',
  ),
  *('9' * 19, '9' * 30, '9' * 5000, '"x"', '"step"', '""', '[]', '{}'),
)
YAML_TOKENS = (
  *(
    '&a ',
    '*a',
    '- ',
    '? ',
    ': ',
    '[',
    ']',
    '{',
    '}',
    '<<: ',
    '!!python/name:os.system ',
    '!!binary ',
    '!!set ',
    '|\n',
    '\t',
  ),
  *(
    '1:59:59',
    '2001-99-99',
    '0x_',
    '._',
    '.inf',
    '.nan',
    '9' * 900,
    '"\\U0010ffff"',
    '\n',
    '# ',
    '%YAML 9.9\n',
    '---\n',
  ),
)
TABLE_TOKENS = (
  '"',
  ',',
  '\r',
  '\n',
  '\0',
  ' ',
  '\ufeff',
  '-1',
  '0',
  '9' * 5000,
  'junk',
  '../',
  '/dev/zero',
  'train',
  '\x85',
)
IMAGE_TOKENS = (
  *(
    b'\xff\xda',
    b'\xff\xd8',
    b'\xff\xd9',
    b'\xff\xd0',
    b'\xff\xc2\0\x0b\x08\xff\xff\xff\xff',
    b'\xff\xc4',
    b'\xff\xff',
  ),
  *(b'\xff\xda\0\x08\1\1\0\1\x3f\x00', b'Exif\0\0', b'\x89PNG\r\n\x1a\n', b'IDAT', b'IEND', b'tRNS', b'PLTE', b'acTL'),
)
# Opcodes of torch's pickles, and values that they take.
PICKLE_TOKENS = (
  *(
    b'(',
    b')',
    b']',
    b'}',
    b'N',
    b'\x88',
    b'.',
    b'a',
    b'e',
    b's',
    b'u',
    b't',
    b'\x85',
    b'\x86',
    b'\x87',
    b'R',
    b'Q',
    b'b',
  ),
  *(
    b'q\0',
    b'h\0',
    b'q\1',
    b'h\1',
    b'0',
    b'2',
    b'cos\nsystem\n',
    b'ccollections\nOrderedDict\n',
    b'ctorch\nSize\n',
    b'\x94',
  ),
  *(
    b'ctorch._utils\n_rebuild_tensor_v2\n',
    b'ctorch\nFloatStorage\n',
    binary(2**31),
    binary(-1),
    binary(2**63),
    binary(0.5),
  ),
  *(b'\x8a\xff' + b'\x7f' * 255, binary('x'), binary('params'), binary('state'), binary('9' * 5000), binary(2**61 - 1)),
  *(
    storage(),
    storage(count=2**62),
    storage('7'),
    tensor(),
    tensor((2, 2), (2, 1)),
    tensor((0, 9), (1, 1)),
    tensor((1000,), (0,)),
  ),
)


def _as_bytes(tokens):
  return tuple(token.encode() if isinstance(token, str) else token for token in tokens)


@st.composite
def mutated(draw, seeds, tokens):
  """Bytes of a seed after a few changes: other bytes, tokens put in or repeated, parts removed, doubled or swapped."""
  content = draw(st.sampled_from(seeds))
  pieces = st.sampled_from(_as_bytes(tokens)) | st.binary(min_size=1, max_size=4)
  for _ in range(draw(st.integers(1, 6))):
    start, stop = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    change = draw(st.sampled_from(('put', 'put', 'replace', 'replace', 'repeat', 'remove', 'double', 'splice')))
    if change == 'put':
      content = content[:start] + draw(pieces) + content[start:]
    elif change == 'replace':
      piece = draw(pieces)
      content = content[:start] + piece + content[start + len(piece) :]
    elif change == 'repeat':
      content = content[:start] + draw(pieces) * draw(st.integers(1, MAX_REPEATS)) + content[start:]
    elif change == 'remove':
      content = content[:start] + content[stop:]
    elif change == 'double':
      content = content[:stop] + content[start:stop] * draw(st.integers(1, 50)) + content[stop:]
    else:
      other = draw(st.sampled_from(seeds))
      content = content[:start] + other[min(start, len(other)) :]
    content = content[:2_000_000]
  return content


def pickles(seeds):
  """Pickles without their first and last opcode: changed ones of `seeds`, and tokens in any order."""
  return mutated(seeds, PICKLE_TOKENS) | st.lists(st.sampled_from(PICKLE_TOKENS), max_size=40).map(b''.join)


def with_checksums(content):
  """A PNG whose chunks have the right checksums, so that the decoder does not stop at the first change."""
  if not content.startswith(b'\x89PNG\r\n\x1a\n'):
    return content
  fixed, position = content[:8], 8
  while position + 12 <= len(content):
    (size,) = struct.unpack_from('>I', content, position)
    body = content[position + 4 : position + 8 + size]
    fixed += content[position : position + 4] + body + struct.pack('>I', zlib.crc32(body))
    position += 12 + size
  return fixed


def with_length(header):
  """A safetensors file of a header and 64 bytes of data."""
  return len(header).to_bytes(8, 'little') + header + bytes(range(64))


JSON_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON_VALUES = st.recursive(
  JSON_LEAVES,
  lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
  max_leaves=20,
)


@st.composite
def changed_json(draw, seeds):
  """JSON like one of `seeds` with some values replaced by values of any type, and names by others."""

  def change(value, depth=0):
    if draw(st.integers(0, 9)) == 0:
      return draw(JSON_VALUES)
    if isinstance(value, dict):
      return {
        (name if draw(st.integers(0, 19)) else draw(st.text(max_size=5))): change(item) for name, item in value.items()
      }
    return [change(item) for item in value] if isinstance(value, list) else value

  return json.dumps(change(json.loads(draw(st.sampled_from(seeds))))).encode()
