"""Initializers by name with arguments, Keras's and one of our own."""

import functools
import inspect
import math
from types import ModuleType
from typing import Any

from tf_lottery import names


def make(spec: str, keras: ModuleType) -> Any:
    """Makes an initializer.

    Args:
        spec: `"signed_constant"` or Keras's name of an initializer, with arguments after a colon:
            `"he_normal"`, `"random_normal:stddev=0.05"`, `"variance_scaling:scale=2.0,mode=fan_in"`.
        keras: the module `keras` or `tf_keras`.

    Returns:
        A new instance without a seed of its own: it follows Keras's global one.

    Raises:
        ValueError: no such initializer or argument, or a value that it does not take.

    Example:
        >>> import keras
        >>> make("random_normal:stddev=0.1", keras).stddev
        0.1
    """
    name, colon, text = spec.partition(":")
    cls = names.find(name, _known(keras), "initializer")
    takes = _arguments_of(cls)
    arguments = {}
    for part in text.split(",") if colon else ():
        key, _, value = part.partition("=")
        if not takes:
            raise ValueError(f"Initializer {name!r} takes no arguments. Received {spec!r}.")
        default = names.find(key.strip(), takes, f"argument of initializer {name!r}:")
        arguments[key.strip()] = _value(value.strip(), default, spec)
    try:
        return cls(**arguments)
    except ValueError as error:
        raise ValueError(f"Initializer {spec!r}: {' '.join(str(error).split())}") from error


@functools.cache
def signed_constant(keras: ModuleType) -> type:
    """Returns the class `SignedConstant` for `keras`, known to its files."""

    class SignedConstant(keras.initializers.Initializer):
        """Plus or minus one constant, the sign at random (1905.01067, section 4).

        The constant is `scale` times the standard deviation of Glorot's normal initializer,
        `sqrt(2 / (fan_in + fan_out))`.

        Args:
            scale: what the constant is multiplied by.
            seed: of the signs; None for Keras's global seed.
        """

        def __init__(self, scale: float = 1.0, seed: int | None = None):
            self.scale, self.seed = scale, seed

        def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
            import tensorflow as tf

            *receptive, fan_in, fan_out = shape
            constant = self.scale * math.sqrt(2 / (math.prod(receptive) * (fan_in + fan_out)))
            draw = tf.convert_to_tensor(keras.initializers.RandomUniform(-1, 1, self.seed)(shape, dtype))
            # Not tf.sign, for a draw may be 0.
            return tf.where(draw < 0, tf.cast(-constant, draw.dtype), tf.cast(constant, draw.dtype))

        def get_config(self) -> dict[str, Any]:
            return {"scale": self.scale, "seed": self.seed}

    return keras.saving.register_keras_serializable("tf_lottery")(SignedConstant)


def _known(keras: ModuleType) -> dict[str, type]:
    known = {
        name: value
        for name, value in vars(keras.initializers).items()
        if name.islower() and inspect.isclass(value) and issubclass(value, keras.initializers.Initializer)
    }
    known.pop("stft", None)  # which makes no kernel of a dense layer
    return dict(sorted({**known, "signed_constant": signed_constant(keras)}.items()))


def _arguments_of(cls: type) -> dict[str, float | str]:
    """Returns name -> default of the numbers and words that an initializer takes; seeds are the config's."""
    defaults = {name: p.default for name, p in inspect.signature(cls).parameters.items() if name != "seed"}
    return {name: default for name, default in defaults.items() if isinstance(default, int | float | str)}


def _value(text: str, default: float | str, spec: str) -> float | str:
    if isinstance(default, str):
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"Expected a number in place of {text!r} in initializer {spec!r}, such as {default}."
        )
    return number
