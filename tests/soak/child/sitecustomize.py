"""Python imports this at the start of every process of the soak test, before the program.

It writes a line for every change of a file below a folder, ends the process at one of them, and makes the clock jump.
What to do is JSON in $DGNET_SOAK, with these keys:

  root: the folder.
  log: the file for the lines, each a path relative to the folder.
  kill: null, or [pattern, n, signal]: the process sends itself the signal just before the n-th change of a file whose
    relative path the pattern matches, after it has written [time.monotonic(), path] to `log` + '.killed'.
  clock: null, or the seed of the jumps of time.time and time.time_ns.
"""

import json
import os
import random
import re
import sys
import threading
import time

CHANGES = ('os.rename', 'os.remove', 'os.mkdir', 'os.rmdir', 'os.link', 'os.symlink', 'os.truncate')
JUMP_HOURS = 30  # the clock is up to this much late or early


def changed_paths(event, arguments):
  """The paths that an audit event is about to change."""
  if event == 'open':
    path, mode, flags = arguments
    writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
    return [path] if writes or (isinstance(mode, str) and set(mode) & set('wax+')) else []
  return list(arguments[: 2 if event == 'os.rename' else 1]) if event in CHANGES else []


def watch(root, log, kill):
  """Logs changes, and ends the process at one of them."""
  descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
  guard, matches = threading.Lock(), [0]
  pattern, count, number = kill or ('(?!)', 0, 0)

  def hook(event, arguments):
    for path in changed_paths(event, arguments):
      if isinstance(path, int) or path is None:
        continue
      name = os.fsdecode(path)
      if not name.startswith(f'{root}/'):
        continue
      name = name[len(root) + 1 :]
      os.write(descriptor, f'{name}\n'.encode(errors='replace'))
      if not re.search(pattern, name):
        continue
      with guard:
        matches[0] += 1
        due = matches[0] == count
      if due:
        with open(f'{log}.killed', 'w') as file:
          json.dump([time.monotonic(), name], file)
        os.kill(os.getpid(), number)

  sys.addaudithook(hook)


def make_the_clock_jump(seed):
  """Every second of real time the clock shows another time, hours before or after."""
  real, real_ns = time.time, time.time_ns

  def shift():
    second = int(time.monotonic())
    return random.Random(f'{seed} {second}').randint(-JUMP_HOURS * 3600, JUMP_HOURS * 3600)

  time.time = lambda: real() + shift()
  time.time_ns = lambda: real_ns() + shift() * 10**9


if settings := os.environ.pop('DGNET_SOAK', ''):
  settings = json.loads(settings)
  watch(settings['root'], settings['log'], settings['kill'])
  if settings['clock'] is not None:
    make_the_clock_jump(settings['clock'])
