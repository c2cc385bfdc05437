"""Networks by name. A new one is one function: add it to `NETWORKS`.

A network is a function `(make, inputs, classes)` that returns logits; `make` is the `Layers` that it is built
of. One with a further parameter `argument` is handed what follows the colon in its name.
"""

import dataclasses
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

from tf_lottery import names
from tf_lottery.experiments import initializers


def build(
    name: str,
    keras: ModuleType,
    input_shape: tuple[int, ...],
    classes: int,
    initializer: str = "glorot_normal",
    weight_decay: float = 0.0,
    front: Any = None,
) -> Any:
    """Builds a network for classification, not compiled.

    Initial weights follow Keras's global seed (`keras.utils.set_random_seed`); biases start at zero.

    Args:
        name: a name in `NETWORKS`; what follows a colon is the network's argument: `"lenet_300_100"`,
            or `"mlp:64,32"` for hidden layers of 64 and 32 ReLUs, `"tanh:64,32"` for as many tanh units.
            `"resnet_N"` is known for any N = 6n + 2, and for 50, 101 and 152 is that of ImageNet.
        keras: the module `keras` or `tf_keras`.
        input_shape: shape of one example, such as `(28, 28, 1)`.
        classes: number of classes.
        initializer: of the kernels, as `initializers.make` takes it.
        weight_decay: what times a kernel is added to its gradient: the kernels' L2 penalty is half of it.
        front: a layer that the inputs go through first; None for none.

    Returns:
        A functional model of `keras` that maps `(n, *input_shape)` to logits `(n, classes)`, float32 under
        any precision. Convolutions are named `"conv1"`, `"conv2"`, ..., dense layers `"fc1"`, `"fc2"`, ...,
        and the last one `"output"`.

    Raises:
        ValueError: no such network or initializer, or the network's argument is wrong.

    Example:
        >>> import keras
        >>> build("conv_6", keras, (32, 32, 3), classes=10).count_params()
        2262602
    """
    network = find(name)
    make = Layers(keras, initializer, weight_decay)
    inputs = keras.Input(input_shape)
    x = inputs if front is None else front(inputs)
    return keras.Model(inputs, network(make, x, classes), name=name.partition(":")[0])


def find(name: str) -> Callable[["Layers", Any, int], Any]:
    """Returns the network function of that name, with its argument in it.

    Raises:
        ValueError: there is none, or it is given an argument and takes none.
    """
    if name not in NETWORKS and (depth := re.fullmatch(r"resnet_(\d+)", name)):
        return functools.partial(resnet, blocks=_blocks(int(depth[1])))
    kind, colon, argument = name.partition(":")
    network = names.find(kind, NETWORKS, "network")
    if "argument" in inspect.signature(network).parameters:
        return functools.partial(network, argument=argument)
    if colon:
        raise ValueError(
            f"Network {kind!r} takes no argument, but got {argument!r}; for fully connected layers of other "
            "widths write 'mlp:300,100' and the like."
        )
    return network


@dataclasses.dataclass(frozen=True)
class Layers:
    """Makes the layers of a network, every kernel initialized and decayed alike."""

    keras: ModuleType
    initializer: str
    weight_decay: float

    def dense(self, x: Any, units: int, name: str, activation: str | None = None) -> Any:
        """A fully connected layer."""
        return self.keras.layers.Dense(units, activation, name=name, **self._kernel())(x)

    def logits(self, x: Any, classes: int) -> Any:
        """The last layer, in float32: in a lower precision the loss of a sure network would overflow."""
        return self.keras.layers.Dense(classes, name="output", dtype="float32", **self._kernel())(x)

    def conv(self, x: Any, filters: int, name: str, size: int = 3, **options: Any) -> Any:
        """A convolution that pads with zeros, so that only strides make the image smaller."""
        layer = self.keras.layers.Conv2D(
            filters, size, padding="same", name=name, **self._kernel(), **options
        )
        return layer(x)

    def batch_norm(self, x: Any, name: str) -> Any:
        """Batch normalization with PyTorch's settings, as the papers' code has it."""
        return self.keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=name)(x)

    def relu(self, x: Any) -> Any:
        """A rectifier."""
        return self.keras.layers.ReLU()(x)

    def _kernel(self) -> dict[str, Any]:
        # One initializer for each layer: a shared one would give layers of equal shape equal weights.
        decay = self.keras.regularizers.L2(self.weight_decay / 2) if self.weight_decay else None
        made = initializers.make(self.initializer, self.keras)
        return {"kernel_initializer": made, "kernel_regularizer": decay}


def mlp(make: Layers, inputs: Any, classes: int, argument: str, activation: str = "relu") -> Any:
    """Fully connected layers; the argument has the widths of the hidden ones, as in `"64,32"`."""
    name, widths = "mlp" if activation == "relu" else activation, argument.split(",")
    if not all(width.isdecimal() and int(width) > 0 for width in widths):
        raise ValueError(
            f"Network '{name}:{argument}' lacks the widths of its hidden layers: write them, positive "
            f"integers, after the colon, as in '{name}:64,32'."
        )
    return _fully_connected(make, inputs, [int(width) for width in widths], classes, activation)


def lenet_300_100(make: Layers, inputs: Any, classes: int) -> Any:
    """LeNet-300-100 (LeCun et al., 1998): two fully connected hidden layers."""
    return _fully_connected(make, inputs, [300, 100], classes)


def conv(make: Layers, inputs: Any, classes: int, pairs: Sequence[int]) -> Any:
    """Conv-2, -4, -6 (1803.03635, figure 2): 3 x 3 convolutions in pairs, a pool after each; 256, 256 units.

    Args:
        pairs: filters of the two convolutions of each pair.
    """
    x = inputs
    for i, filters in enumerate(pairs):
        for n in (2 * i + 1, 2 * i + 2):
            x = make.conv(x, filters, f"conv{n}", activation="relu")
        x = make.keras.layers.MaxPooling2D()(x)
    return _fully_connected(make, x, [256, 256], classes)


def resnet(make: Layers, inputs: Any, classes: int, blocks: int) -> Any:
    """The ResNet for CIFAR (1512.03385, section 4.2), with 1 x 1 convolutions in shortcuts that change shape.

    Args:
        blocks: blocks of two convolutions in each of the three stages of 16, 32, 64 filters.
    """
    x = make.relu(make.batch_norm(make.conv(inputs, 16, "conv1", use_bias=False), "bn1"))
    for block in range(3 * blocks):
        stage = block // blocks
        filters, strides = 16 * 2**stage, 2 if block in (blocks, 2 * blocks) else 1
        shortcut = x
        if strides > 1:
            shortcut = make.conv(x, filters, f"shortcut{stage}", 1, strides=strides, use_bias=False)
            shortcut = make.batch_norm(shortcut, f"shortcut{stage}_bn")
        first, second = 2 * block + 2, 2 * block + 3
        x = make.conv(x, filters, f"conv{first}", strides=strides, use_bias=False)
        x = make.relu(make.batch_norm(x, f"bn{first}"))
        x = make.batch_norm(make.conv(x, filters, f"conv{second}", use_bias=False), f"bn{second}")
        x = make.relu(make.keras.layers.Add()([x, shortcut]))
    return make.logits(make.keras.layers.GlobalAveragePooling2D()(x), classes)


def bottleneck_resnet(make: Layers, inputs: Any, classes: int, blocks: Sequence[int]) -> Any:
    """The ResNet for ImageNet (1512.03385, table 1), with strides in its 3 x 3 convolutions as in PyTorch's.

    Args:
        blocks: blocks of three convolutions in each of the four stages of 64, 128, 256, 512 filters, and
            four times as many at the end of a block.
    """
    x = make.relu(make.batch_norm(make.conv(inputs, 64, "conv1", 7, strides=2, use_bias=False), "bn1"))
    x, n = make.keras.layers.MaxPooling2D(3, 2, padding="same")(x), 1
    for stage, block in [(i, j) for i, count in enumerate(blocks) for j in range(count)]:
        filters, strides = 64 * 2**stage, 2 if stage and not block else 1
        shortcut = x
        if not block:
            shortcut = make.conv(x, 4 * filters, f"shortcut{stage + 1}", 1, strides=strides, use_bias=False)
            shortcut = make.batch_norm(shortcut, f"shortcut{stage + 1}_bn")
        for size, width in ((1, filters), (3, filters), (1, 4 * filters)):
            n += 1
            x = make.conv(x, width, f"conv{n}", size, strides=strides if size == 3 else 1, use_bias=False)
            x = make.batch_norm(x, f"bn{n}")
            x = make.relu(x) if width == filters else x
        x = make.relu(make.keras.layers.Add()([x, shortcut]))
    return make.logits(make.keras.layers.GlobalAveragePooling2D()(x), classes)


def vgg(make: Layers, inputs: Any, classes: int, counts: Sequence[int]) -> Any:
    """The VGG for CIFAR (1409.1556 with BatchNorm and one fully connected layer).

    Args:
        counts: convolutions of each of the five stages of 64, 128, 256, 512, 512 filters.
    """
    x, n = inputs, 0
    for stage, count in enumerate(counts):
        if stage:
            x = make.keras.layers.MaxPooling2D()(x)
        for _ in range(count):
            n += 1
            x = make.conv(x, min(64 * 2**stage, 512), f"conv{n}")
            x = make.relu(make.batch_norm(x, f"bn{n}"))
    return make.logits(make.keras.layers.GlobalAveragePooling2D()(x), classes)


def _blocks(depth: int) -> int:
    """Returns n of the ResNet of 6n + 2 layers, shortcuts not counted."""
    n, rest = divmod(depth - 2, 6)
    if rest or n < 1:
        near = 6 * max(n, 1) + 2
        raise ValueError(
            f"There is no 'resnet_{depth}': a ResNet for CIFAR has 6n + 2 layers, such as 'resnet_{near}' or "
            f"'resnet_{near + 6}', and those for ImageNet are 'resnet_50', 'resnet_101' and 'resnet_152'."
        )
    return n


def _fully_connected(
    make: Layers, inputs: Any, widths: Sequence[int], classes: int, activation: str = "relu"
) -> Any:
    x = make.keras.layers.Flatten()(inputs)
    for i, width in enumerate(widths, start=1):
        x = make.dense(x, width, f"fc{i}", activation)
    return make.logits(x, classes)


NETWORKS: dict[str, Callable[..., Any]] = {
    "lenet_300_100": lenet_300_100,
    "mlp": mlp,
    "tanh": functools.partial(mlp, activation="tanh"),
    "conv_2": functools.partial(conv, pairs=(64,)),
    "conv_4": functools.partial(conv, pairs=(64, 128)),
    "conv_6": functools.partial(conv, pairs=(64, 128, 256)),
    "resnet_20": functools.partial(resnet, blocks=3),
    "resnet_50": functools.partial(bottleneck_resnet, blocks=(3, 4, 6, 3)),
    "resnet_101": functools.partial(bottleneck_resnet, blocks=(3, 4, 23, 3)),
    "resnet_152": functools.partial(bottleneck_resnet, blocks=(3, 8, 36, 3)),
    "vgg_11": functools.partial(vgg, counts=(1, 1, 2, 2, 2)),
    "vgg_13": functools.partial(vgg, counts=(2, 2, 2, 2, 2)),
    "vgg_16": functools.partial(vgg, counts=(2, 2, 3, 3, 3)),
    "vgg_19": functools.partial(vgg, counts=(2, 2, 4, 4, 4)),
}
