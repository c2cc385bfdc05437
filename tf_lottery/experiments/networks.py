"""Networks by name. A new one is one function: add it to `NETWORKS`."""

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

from tf_lottery import names


def build(
    name: str,
    keras: ModuleType,
    input_shape: tuple[int, ...],
    classes: int,
    initializer: str = "glorot_normal",
) -> Any:
    """Builds a network for classification, not compiled.

    Initial weights follow Keras's global seed (`keras.utils.set_random_seed`); biases start at zero.

    Args:
        name: a name in `NETWORKS`; what follows a colon is the network's argument: `"lenet_300_100"`,
            or `"mlp:64,32"` for hidden layers of 64 and 32 units.
        keras: the module `keras` or `tf_keras`.
        input_shape: shape of one example, such as `(28, 28, 1)`.
        classes: number of classes.
        initializer: name of the kernels' Keras initializer.

    Returns:
        A functional model of `keras` that maps `(n, *input_shape)` to logits `(n, classes)`. Its last layer
        is named `"output"`, the dense ones before `"fc1"`, `"fc2"`, ...

    Raises:
        ValueError: no such network or initializer, or the network's argument is wrong.
    """
    kind, _, argument = name.partition(":")
    network = names.find(kind, NETWORKS, "network")
    _check_initializer(keras, initializer)
    inputs = keras.Input(input_shape)
    return keras.Model(inputs, network(keras, inputs, classes, initializer, argument), name=kind)


def lenet_300_100(keras: ModuleType, inputs: Any, classes: int, initializer: str, argument: str) -> Any:
    """LeNet-300-100 (LeCun et al., 1998): two fully connected hidden layers. Takes no argument."""
    if argument:
        raise ValueError(
            f"Network 'lenet_300_100' takes no argument, but got {argument!r}; for other widths write "
            "'mlp:300,100' and the like."
        )
    return mlp(keras, inputs, classes, initializer, "300,100")


def mlp(keras: ModuleType, inputs: Any, classes: int, initializer: str, argument: str) -> Any:
    """Fully connected ReLU layers; the argument has their widths, as in `"64,32"`."""
    widths = argument.split(",")
    if not all(width.isdecimal() and int(width) > 0 for width in widths):
        raise ValueError(
            f"Network 'mlp:{argument}' lacks the widths of its hidden layers: write them, positive integers, "
            "after the colon, as in 'mlp:64,32'."
        )
    x = keras.layers.Flatten()(inputs)
    # The initializer goes to each layer by name: one instance would give layers of equal shape equal weights.
    for i, width in enumerate(widths, start=1):
        x = keras.layers.Dense(int(width), "relu", kernel_initializer=initializer, name=f"fc{i}")(x)
    return keras.layers.Dense(classes, kernel_initializer=initializer, name="output")(x)


NETWORKS: dict[str, Callable[[ModuleType, Any, int, str, str], Any]] = {
    "lenet_300_100": lenet_300_100,
    "mlp": mlp,
}


def _check_initializer(keras: ModuleType, initializer: str) -> None:
    known = [
        name
        for name, value in vars(keras.initializers).items()
        if name.islower() and inspect.isclass(value) and issubclass(value, keras.initializers.Initializer)
    ]
    # A name alone does not say which constant, and STFT makes no kernel of a dense layer.
    known = sorted(set(known) - {"constant", "stft"})
    if initializer not in known:
        raise ValueError(names.unknown(initializer, known, "initializer"))
