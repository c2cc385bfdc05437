"""What the tests share: small models and data, on both flavours."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api import flavour


@pytest.fixture(params=flavour.FLAVOURS)
def keras(request):
    """The module `keras`, then the module `tf_keras`."""
    return flavour.keras_module(request.param)


@pytest.fixture
def make_model(keras):
    """Makes compiled models of 8 inputs and 3 classes, always with the same weights."""

    def make(optimizer=None, widths=(16, 8), batch_norm=False):
        layers = [keras.layers.Input((8,))]
        for i, width in enumerate(widths, 1):
            initializer = keras.initializers.GlorotNormal(seed=i)
            layers.append(keras.layers.Dense(width, "relu", kernel_initializer=initializer, name=f"fc{i}"))
            if batch_norm:
                layers.append(keras.layers.BatchNormalization(name=f"bn{i}"))
        initializer = keras.initializers.GlorotNormal(seed=99)
        layers.append(keras.layers.Dense(3, kernel_initializer=initializer, name="output"))
        model = keras.Sequential(layers)
        model.compile(
            optimizer or keras.optimizers.Adam(0.01),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
        return model

    return make


@pytest.fixture
def make_inner_product(keras):
    """Makes compiled models that are an inner product with the given weights: 10 inputs, no bias."""

    def make(weights=range(10), optimizer=None):
        inner = keras.layers.Dense(1, use_bias=False, name="inner")
        model = keras.Sequential([keras.layers.Input((10,)), inner])
        model.compile(optimizer or keras.optimizers.SGD(0.01), keras.losses.MeanSquaredError())
        inner.set_weights([np.reshape(np.array(weights, np.float32), (10, 1))])
        return model

    return make


@pytest.fixture
def no_xla(monkeypatch):
    """Leaves XLA out, which takes seconds to compile each model; it has tests of its own."""
    monkeypatch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)


@pytest.fixture
def count_refused():
    """Counts the contents of a ticket file that are refused, by name; the others must be sound."""

    def count(path, contents, check):
        refused = 0
        for content in contents:
            path.write_bytes(content)
            try:
                loaded = tf_lottery.Ticket.load(path)
            except ValueError as error:
                refused += 1
                assert str(path) in str(error)
            else:
                check(loaded)
        return refused

    return count


@pytest.fixture(scope="session")
def data():
    """240 examples of 8 numbers in 3 classes that a small network can tell apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240).astype(np.int32)
    x = (rng.normal(size=(240, 8)) + 1.5 * np.eye(3, 8)[y]).astype(np.float32)
    return x, y


@pytest.fixture
def random_mask():
    """Makes a mask that keeps about a share of the weights."""

    def make(shapes, share=0.4, seed=0):
        rng = np.random.default_rng(seed)
        return {path: rng.random(shape) < share for path, shape in shapes.items()}

    return make
