"""Records the keys that are passed to jax.random."""

import jax

CONSUMERS = ('split', 'fold_in', 'bernoulli', 'randint', 'uniform', 'normal')


def key_bytes(key):
  return jax.random.key_data(key).tobytes()


def record_keys(monkeypatch):
  """Returns a list that gets the bytes of every key passed to a function of jax.random from now on; not under jit."""
  used = []

  def record(name):
    function = getattr(jax.random, name)

    def recorded(key, *args, **kwargs):
      used.append(key_bytes(key))
      return function(key, *args, **kwargs)

    monkeypatch.setattr(jax.random, name, recorded)

  for name in CONSUMERS:
    record(name)
  return used
