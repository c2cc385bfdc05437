"""Files that a trained network is shipped in, and the runtime that opens each of them.

A format is a function that writes a model and one that opens the file again: add it to `FORMATS`.
"""

import contextlib
import io
import os
import pathlib
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tf_lottery import files
from tf_lottery.keras_api import flavour, matching, prunable

Predict = Callable[[np.ndarray], np.ndarray]
SIGNATURE = "serving_default"


class Format(NamedTuple):
    """How a model becomes a file, and the file a function.

    Attributes:
        suffix: what the file's name ends in; empty for a folder.
        runtime: what runs the file, for people.
        write: function `(model, path)` that writes a plain model to a local path at which there is nothing.
            Raises ValueError for a model that the format cannot hold.
        open: function `(path, model)` that returns the file as its own runtime runs it: a function from
            inputs, float32 `(n, *input_shape)`, to outputs, `(n, ...)`, for any n. `model` is what was
            written, and only tells the flavour and the architecture, where the file does not.
    """

    suffix: str
    runtime: str
    write: Callable[[Any, pathlib.Path], None]
    open: Callable[[pathlib.Path, Any], Predict]


def _write_keras(model: Any, path: pathlib.Path) -> None:
    model.save(path)


def _open_keras(path: pathlib.Path, model: Any) -> Predict:
    keras = flavour.keras_module(flavour.flavour_of(model))
    return compiled(keras.saving.load_model(path, compile=False))


def _write_saved_model(model: Any, path: pathlib.Path) -> None:
    with quietly():
        model.export(os.fspath(path))


def _open_saved_model(path: pathlib.Path, model: Any) -> Predict:
    loaded = tf.saved_model.load(os.fspath(path))
    (name,) = loaded.signatures[SIGNATURE].structured_input_signature[1]

    def predict(x: np.ndarray) -> np.ndarray:
        # The signature does not keep what it was loaded with alive.
        (output,) = loaded.signatures[SIGNATURE](**{name: tf.constant(x)}).values()
        return output.numpy()

    return predict


def _write_tflite(model: Any, path: pathlib.Path) -> None:
    # EXPERIMENTAL_SPARSITY would leave zeros out of the file, but in TensorFlow 2.21 some networks compute
    # something else then, and nothing says so.
    path.write_bytes(_converted(model))


def _write_int8(model: Any, path: pathlib.Path) -> None:
    path.write_bytes(_converted(model, tf.lite.Optimize.DEFAULT))


def _converted(model: Any, *optimizations: tf.lite.Optimize) -> bytes:
    with tempfile.TemporaryDirectory() as folder, quietly():
        model.export(folder)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.optimizations = list(optimizations)
        try:
            return converter.convert()
        except Exception as error:  # of a class that TensorFlow does not export
            lines = str(error).splitlines() or [type(error).__name__]
            raise ValueError(f"TFLite cannot hold the network {model.name!r}: {lines[0]}") from error


def _open_tflite(path: pathlib.Path, model: Any) -> Predict:
    content = path.read_bytes()
    by_batch_size: dict[int, tf.lite.Interpreter] = {}

    def predict(x: np.ndarray) -> np.ndarray:
        if len(x) not in by_batch_size:
            by_batch_size[len(x)] = _interpreter(content, x.shape)
        interpreter = by_batch_size[len(x)]
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return predict


def _interpreter(content: bytes, shape: tuple[int, ...]) -> tf.lite.Interpreter:
    with quietly(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "(?s).*tf.lite.Interpreter is deprecated", UserWarning)
        interpreter = tf.lite.Interpreter(model_content=content)
        interpreter.resize_tensor_input(interpreter.get_input_details()[0]["index"], shape)
        interpreter.allocate_tensors()
        return interpreter


def _write_safetensors(model: Any, path: pathlib.Path) -> None:
    tensors = {name: np.array(slot.variable.numpy()) for name, slot in prunable.slots(model).items()}
    files.write_tensors(path, tensors, {"model": model.name})


def _open_safetensors(path: pathlib.Path, model: Any) -> Predict:
    keras = flavour.keras_module(flavour.flavour_of(model))
    fresh = keras.models.clone_model(model)
    tensors, _ = files.read_tensors(path)
    fill(fresh, tensors)
    return compiled(fresh)


FORMATS = {
    "keras": Format(".keras", "Keras, compiled as one function", _write_keras, _open_keras),
    "savedmodel": Format("", "TensorFlow", _write_saved_model, _open_saved_model),
    "tflite": Format(".tflite", "TFLite's interpreter", _write_tflite, _open_tflite),
    "safetensors": Format(
        ".safetensors",
        "a Keras model that it is read into, compiled as one function",
        _write_safetensors,
        _open_safetensors,
    ),
}
# Of what `quantization.quantized` returns.
INT8 = FORMATS["tflite"]._replace(write=_write_int8)


def compiled(model: Any) -> Predict:
    """Returns a model in inference as one compiled function, for batches of any size."""
    (inputs,) = model.inputs
    signature = [tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)]
    call = tf.function(lambda x: model(x, training=False), input_signature=signature)
    return lambda x: call(x).numpy()


def fill(model: Any, tensors: dict[str, np.ndarray]) -> None:
    """Sets all variables of a plain model, by path as `prunable.slots` has them.

    Raises:
        ValueError: a variable is missing, unknown, or of another shape.
    """
    slots = prunable.slots(model)
    shapes = {path: tuple(slot.variable.shape) for path, slot in slots.items()}
    matching.check_fits({path: np.shape(array) for path, array in tensors.items()}, shapes)
    for path, array in tensors.items():
        slots[path].variable.assign(array)


@contextlib.contextmanager
def quietly() -> Iterator[None]:
    """Keeps back what Python prints in the block and what C++ writes to standard error, unless it raises.

    TensorFlow's converter and interpreter tell their progress there, at every level of logging.
    """
    sys.stderr.flush()
    stderr, said = os.dup(2), io.StringIO()
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        failed = True
        try:
            with contextlib.redirect_stdout(said):
                yield
            failed = False
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            if failed:
                file.seek(0)
                os.write(2, said.getvalue().encode() + file.read())
