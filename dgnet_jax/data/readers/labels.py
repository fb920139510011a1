"""Identities and cameras in a table, as people, spreadsheets and pandas write them.

A number is the same in every form (1, 1.0, 0001), and the same as in file names. A form from which the number is not
certain is refused: a spreadsheet that shows 1.23E+03 may have had 1234.
"""

import re

# What pandas and spreadsheets write in place of a missing value or an error.
MISSING = {
  *('', 'nan', 'NaN', '-nan', '-NaN', 'NA', 'N/A', 'n/a', '<NA>', 'NaT', 'null', 'NULL', 'None', '#N/A', '#NA', 'inf'),
  *('-inf', '#N/A N/A', '#REF!', '#VALUE!', '#NAME?', '#DIV/0!', '#NUM!', '#NULL!'),
}
INVISIBLE = '\ufeff\u200b\u200e\u200f'  # byte order mark, zero-width space, directions
WHOLE = re.compile(r'([+-]?)([0-9]+)(?:[.,]0*)?')
GROUPED = re.compile(r"[+-]?[0-9]{1,3}(?:[.,'’ \xa0\u202f][0-9]{3})+(?:[.,][0-9]*)?")
SCIENTIFIC = re.compile(r'([+-]?)([0-9])(?:[.,]([0-9]*))?[eE]\+?([0-9]{1,3})')
NO_WHOLE_NUMBER = re.compile(r'[+-]?[0-9]*[.,][0-9]+|[+-]?[0-9](?:[.,][0-9]*)?[eE]-[0-9]{1,3}')
CAMERA = re.compile(r'(?:c|cam|camera)[ _-]?([0-9]+)', re.IGNORECASE)
IDENTITY_DIGITS = 4  # at least, as in file names


def clean(cell: str) -> str:
  """Returns a cell without what is not part of its value: spaces, invisible characters, a spreadsheet's text marks."""
  text = cell.strip().strip(INVISIBLE).strip().replace('\u2212', '-')
  formula = re.fullmatch(r'="(.*)"', text)  # keeps a spreadsheet from reading the text as a number
  text = formula[1].strip() if formula else text
  return text[1:] if re.fullmatch(r"'[+-]?[0-9]+", text) else text


def identity_label(cell: str) -> str:
  """Returns the identity in a cell: a name, or a number with the digits that file names have; '-1' is junk.

  Raises:
    ValueError: there is none, or it is not certain; says why.
  """
  text = clean(cell)
  number = whole_number(text)
  if number is None:
    return text
  if number.startswith('-') and number != '-1':
    raise ValueError(f'{text!r} is below -1, which is junk')
  return number if number == '-1' else number.zfill(IDENTITY_DIGITS)


def camera_label(cell: str) -> str:
  """Returns the camera in a cell: a name, or a number without leading zeros (1, 01, c1 and Cam_1 are one camera).

  Raises:
    ValueError: there is none, or it is not certain; says why.
  """
  text = clean(cell)
  prefixed = CAMERA.fullmatch(text)
  number = whole_number(prefixed[1] if prefixed else text)
  if number is None:
    return text
  if number.startswith('-'):
    raise ValueError(f'{text!r} is negative')
  return number


def whole_number(text: str) -> str | None:
  """Returns the digits of a whole number without leading zeros, with a minus sign below 0; None for a name.

  Raises:
    ValueError: the text is empty, or a number that is not certainly a whole one.
  """
  if text in MISSING:
    raise ValueError(f'{text!r} is a missing value' if text else 'empty')
  scientific = SCIENTIFIC.fullmatch(text)
  plain = text
  if scientific:
    sign, first, decimals, exponent = scientific.groups(default='')
    shift = int(exponent)
    if len(decimals) < shift:
      raise ValueError(f'{text!r} may have lost digits: write the number out')
    plain = f'{sign}{first}{decimals[:shift]}.{decimals[shift:]}'
  elif GROUPED.fullmatch(text):
    raise ValueError(f'{text!r} has separators of thousands, or decimals: write the number without them')
  whole = WHOLE.fullmatch(plain)
  if whole:
    digits = whole[2].lstrip('0') or '0'
    return f'-{digits}' if whole[1] == '-' and digits != '0' else digits
  if NO_WHOLE_NUMBER.fullmatch(plain):
    raise ValueError(f'{text!r} is not a whole number')
  return None
