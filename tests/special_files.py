"""Paths that are no regular files: reading them naively waits for ever, never ends, or raises something odd."""

import os

SPECIAL = {
  'pipe': 'not a regular file',
  'device': 'not a regular file',
  'folder': 'Is a directory',
  'missing': 'No such file',
  'zero byte': 'null byte',
}


def make_special(path, kind):
  """Makes `path` what `kind` says; returns the path to open."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if kind == 'pipe':
    os.mkfifo(path)
  elif kind == 'device':
    path.symlink_to('/dev/zero')
  elif kind == 'folder':
    path.mkdir()
  return f'{path}\0.jpg' if kind == 'zero byte' else str(path)
