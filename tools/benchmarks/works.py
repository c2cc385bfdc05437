"""What is trained: networks, their data, and how much of it makes a turn."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_lottery.experiments import networks

CLASSES, DENSITY, LEARNING_RATE = 10, 0.21, 1.2e-3
_TOKENS, _WIDTH = 1000, 64


@dataclasses.dataclass(frozen=True)
class Work:
    """A network and how it is trained: Adam, cross-entropy, accuracy, data in memory.

    Attributes:
        title: for people.
        network: returns the model that is trained, not compiled, of a Keras module.
        input_shape: of one example.
        batch_size: examples in a step.
        steps: of a turn; also how many Keras takes in one execution, where it takes several.
        examples: how many there are.
        tokens: whether inputs are words of a vocabulary, not real numbers.
    """

    title: str
    network: Callable[[Any], Any]
    input_shape: tuple[int, ...]
    batch_size: int
    steps: int
    examples: int = 55_000
    tokens: bool = False

    def compiled(self, keras: Any, wrap: Callable[[Any], Any] = lambda model: model, **options: Any) -> Any:
        """Returns the model, compiled; `options` are further ones of Keras's `compile`."""
        model = wrap(self.network(keras))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(LEARNING_RATE), loss, metrics=["accuracy"], **options)
        return model

    def data(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns inputs and labels, at random: what is timed does not depend on them."""
        rng, shape = np.random.default_rng(0), (self.examples, *self.input_shape)
        x = rng.integers(0, _TOKENS, shape).astype(np.int32) if self.tokens else rng.random(shape, np.float32)
        return x, rng.integers(0, CLASSES, self.examples).astype(np.int32)


def _named(name: str, input_shape: tuple[int, ...]) -> Callable[[Any], Any]:
    return lambda keras: networks.build(name, keras, input_shape, CLASSES)


def _lstm(keras: Any) -> Any:
    layers = [keras.Input((28, 28)), keras.layers.LSTM(128), keras.layers.Dense(CLASSES)]
    return keras.Sequential(layers)


def _transformer(keras: Any) -> Any:
    layers, inputs = keras.layers, keras.Input((64,), dtype="int32")
    x = layers.Embedding(_TOKENS, _WIDTH)(inputs)
    for _ in range(2):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, _WIDTH // 4)(x, x))
        hidden = layers.Dense(4 * _WIDTH, "relu")(x)
        x = layers.LayerNormalization()(x + layers.Dense(_WIDTH)(hidden))
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling1D()(x)))


_IMAGE, _PHOTO = (28, 28, 1), (32, 32, 3)
WORKS = {
    "lenet": Work("LeNet-300-100, batch 60", _named("lenet_300_100", _IMAGE), _IMAGE, 60, 200),
    "lenet_1024": Work("LeNet-300-100, batch 1024", _named("lenet_300_100", _IMAGE), _IMAGE, 1024, 20),
    "conv_2": Work("Conv-2 at CIFAR-10's shape, batch 60", _named("conv_2", _PHOTO), _PHOTO, 60, 5, 5000),
    "resnet_20": Work(
        "ResNet-20 at CIFAR-10's shape, batch 128", _named("resnet_20", _PHOTO), _PHOTO, 128, 2, 5000
    ),
    "transformer": Work(
        "Transformer of two blocks (64 wide, 64 tokens), batch 64", _transformer, (64,), 64, 10, tokens=True
    ),
    "lstm": Work("LSTM of 128 units over 28 steps, batch 64", _lstm, (28, 28), 64, 15),
}


def mlp(width: int, batch_size: int) -> Work:
    """Returns the work of a fully connected network with two hidden layers of `width` units."""
    network = _named(f"mlp:{width},{width}", _IMAGE)
    steps = max(2, 18_000 * 300 // (batch_size * width))
    return Work(f"MLP-{width}-{width}, batch {batch_size}", network, _IMAGE, batch_size, min(steps, 300))
