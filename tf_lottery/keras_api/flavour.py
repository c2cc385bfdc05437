"""Which of the two Kerases a model belongs to.

The flavour is a property of the model, found by `isinstance`, and never of the
process: Keras 3 and tf_keras models may live side by side.
"""

import contextlib
import importlib
import os
import sys
import types
from collections.abc import Iterator

FLAVOURS = ("tf_keras", "keras")
PRECISIONS = ("float32", "mixed_float16", "mixed_bfloat16")


def flavour_of(model: object) -> str:
    """Returns `"keras"` or `"tf_keras"`, whichever `model` is made of.

    A model can only exist where its own Keras was imported, so nothing is
    imported here.

    Raises:
        TypeError: `model` is a model of neither, or runs on another backend
            than TensorFlow.

    Example:
        >>> import keras
        >>> flavour_of(keras.Sequential())
        'keras'
    """
    for name in FLAVOURS:
        module = sys.modules.get(name)
        if module is not None and isinstance(model, module.Model):
            if name == "keras" and module.backend.backend() != "tensorflow":
                raise TypeError(
                    "tf_lottery trains Keras 3 models on the TensorFlow backend. Received a model "
                    f"on the {module.backend.backend()!r} backend: set KERAS_BACKEND=tensorflow "
                    "before importing keras."
                )
            return name
    raise TypeError(
        "Expected a keras.Model (Keras 3) or a tf_keras.Model (Keras 2). "
        f"Received: {type(model).__module__}.{type(model).__qualname__}."
    )


def keras_module(flavour: str) -> types.ModuleType:
    """Returns the module `keras` or `tf_keras`; imports it where need be."""
    if flavour not in FLAVOURS:
        raise ValueError(f"Unknown flavour {flavour!r}. Expected one of: {', '.join(FLAVOURS)}.")
    module = importlib.import_module(flavour)
    if flavour == "keras" and module.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras 3 runs on the {module.backend.backend()!r} backend here. Set KERAS_BACKEND=tensorflow."
        )
    return module


def forget_names() -> None:
    """Has layers that are made without a name named as if there had been none before.

    Nothing else is changed: `clear_session` would reset the user's settings and seeds too.
    """
    if "keras" in sys.modules:
        importlib.import_module("keras.src.utils.naming").reset_uids()
    if "tf_keras" in sys.modules:
        sys.modules["tf_keras"].backend.reset_uids()


@contextlib.contextmanager
def precision(keras: types.ModuleType, name: str) -> Iterator[None]:
    """Makes layers, models and their optimizers compute in a precision, and sets back what it was.

    Args:
        keras: the module `keras` or `tf_keras`.
        name: one of `PRECISIONS`. Weights are float32 in each; of float16 the loss is scaled, so that
            small gradients do not become 0.
    """
    before = keras.mixed_precision.global_policy()
    keras.mixed_precision.set_global_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_global_policy(before)


@contextlib.contextmanager
def keras_environment_kept() -> Iterator[None]:
    """Keeps `TF_USE_LEGACY_KERAS` and the meaning of `tf.keras` over an import.

    TF-MOT sets the variable and then touches `tf.keras`, which TensorFlow binds
    at its first use: it has to be bound before, as the user's program would.
    """
    import tensorflow as tf

    before = os.environ.get("TF_USE_LEGACY_KERAS")
    getattr(tf.keras, "layers", None)
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
