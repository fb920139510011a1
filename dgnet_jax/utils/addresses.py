"""Local copies of what has an address, like gs://bucket/run: messages name the address."""

_addresses: dict[str, str] = {}  # by the path of the local copy


def name_by_address(path: str, address: str) -> None:
  """From now on messages show the address in place of a local path."""
  _addresses[path] = address


def with_addresses(text: str) -> str:
  """Returns a message for people with addresses in place of the paths of local copies."""
  for path, address in _addresses.items():
    text = text.replace(path, address)
  return text
