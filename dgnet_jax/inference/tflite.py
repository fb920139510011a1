"""TFLite files by TensorFlow, which is imported only here and under `data/`."""

from collections.abc import Callable, Mapping, Sequence
import pathlib
import warnings

import numpy as np

from dgnet_jax.types import Array


def convert_to_tflite(function: Callable[..., Array], names: Sequence[str], output: str, shape: Sequence[int]) -> bytes:
  """Returns a TFLite file that computes a function.

  Args:
    function: maps as many arrays as there are names to one.
    names: of the inputs.
    output: name of the output.
    shape: of each input, u8; a TFLite file has fixed sizes.
  """
  from jax.experimental import jax2tf
  import tensorflow as tf

  # Without XLA: TFLite knows TensorFlow's own operations only.
  converted = jax2tf.convert(function, with_gradient=False, enable_xla=False)

  signature = [tf.TensorSpec(shape, tf.uint8, name=name) for name in names]
  traced = tf.function(lambda *inputs: {output: converted(*inputs)}, input_signature=signature, autograph=False)
  module = tf.Module()
  module.call = traced  # so that the file names its inputs
  concrete = traced.get_concrete_function()
  converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], module)
  converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
  content: bytes = converter.convert()
  return content


def run_tflite(path: pathlib.Path, inputs: Mapping[str, np.ndarray]) -> np.ndarray:
  """Returns the output of a TFLite file for its inputs by name."""
  import tensorflow as tf

  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # the interpreter will move to another package
    interpreter = tf.lite.Interpreter(str(path))
  run = interpreter.get_signature_runner()
  (output,) = run(**inputs).values()
  return np.asarray(output)
