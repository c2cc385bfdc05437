"""What criteria ask of a network: gradients of first and second order, and its flow."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search import gradients
from tf_lottery.search.network import KerasNetwork
from tf_lottery.tickets import masks
from tf_lottery.training.streams import Stream

ASKED = ("gradient", "squared_gradient", "hessian_gradient")


def network_of(model, train, **settings):
    """Returns the network, its weights and a mask of ones."""
    masked = MaskedModel(model)
    network = KerasNetwork(masked, train, **{"key": (0, 1), "steps": 4, "batch_size": 8, **settings})
    return network, network_weights(masked.state()), masks.ones(masked.shapes)


def assert_close(found, expected, **tolerance):
    assert list(found) == list(expected)
    for path, array in found.items():
        assert array.shape == expected[path].shape
        np.testing.assert_allclose(array, expected[path], err_msg=path, **{"rtol": 1e-5, **tolerance})


@pytest.fixture
def regression(keras):
    """A linear network of 4 inputs and 3 outputs with mean squared error, data, and its parts by hand."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(12, 4)).astype(np.float32), rng.normal(size=(12, 3)).astype(np.float32)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3, name="fc")])
    model.compile(keras.optimizers.Adam(), keras.losses.MeanSquaredError())
    w, b = rng.normal(size=(4, 3)).astype(np.float32), rng.normal(size=3).astype(np.float32)
    model.set_weights([w, b])
    return model, x, y, w, b


def test_gradients_are_those_worked_out_by_hand(regression):
    model, x, y, w, b = regression
    network, weights, mask = network_of(model, (x, y))
    mask["fc/kernel"] = np.random.default_rng(1).random((4, 3)) < 0.6
    errors = x @ (w * mask["fc/kernel"]) + b - y
    gradient = 2 / (12 * 3) * x.T @ errors
    hessian_gradient = 2 / (12 * 3) * x.T @ x @ (gradient * mask["fc/kernel"])
    singles = np.stack([2 / 3 * np.outer(xi, ei) for xi, ei in zip(x, errors)])
    assert_close(network.gradient(weights, mask, 12), {"fc/kernel": gradient}, atol=1e-6)
    assert_close(network.hessian_gradient(weights, mask, 12), {"fc/kernel": hessian_gradient}, atol=1e-6)
    assert_close(network.squared_gradient(weights, mask, 12), {"fc/kernel": (singles**2).mean(axis=0)})


def test_sample_weights_and_regularizers_are_in_the_loss(keras):
    model = keras.Sequential([keras.layers.Input((2,))])
    model.add(keras.layers.Dense(1, use_bias=False, name="fc", kernel_regularizer=keras.regularizers.L2(0.5)))
    model.compile("sgd", keras.losses.MeanSquaredError())
    model.set_weights([np.array([[1.0], [-2.0]], np.float32)])
    x, y, weights_of = np.eye(2, dtype=np.float32), np.zeros((2, 1), np.float32), np.array([3.0, 5.0])
    network, weights, mask = network_of(model, (x, y, weights_of))
    # (3 w0^2 + 5 w1^2) / 2 + 0.5 (w0^2 + w1^2)
    assert_close(network.gradient(weights, mask, 2), {"fc/kernel": np.array([[4.0], [-12.0]])})


def test_examples_are_drawn_without_replacement_and_by_the_key(regression):
    model, x, y, *_ = regression
    batches = [gradients.draw((x, y), 5, *key) for key in ((0, 1), (0, 1), (0, 2))]
    first, again, other = (batch[0][0].numpy() for batch in batches)
    assert first.shape == (5, 4) and len(np.unique(first, axis=0)) == 5
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    rows = [np.flatnonzero((x == row).all(axis=1))[0] for row in first]
    np.testing.assert_array_equal(batches[0][0][1], y[rows])
    every = gradients.draw((x, y), 99, 0)[0][0].numpy()
    np.testing.assert_array_equal(np.sort(every, axis=0), np.sort(x, axis=0))
    with pytest.raises(ValueError, match="one example at least. Received examples=0"):
        gradients.draw((x, y), 0)


def test_large_draws_come_in_batches_that_are_averaged(regression, monkeypatch):
    model, x, y, *_ = regression
    network, weights, mask = network_of(model, (x, y))
    whole = {asked: getattr(network, asked)(weights, mask, 11) for asked in ASKED}
    monkeypatch.setattr(gradients, "_BATCH", 4)
    assert [len(batch[0]) for batch in gradients.draw((x, y), 11, 0)] == [4, 4, 3]
    for asked in ASKED:
        assert_close(getattr(network, asked)(weights, mask, 11), whole[asked], atol=1e-6)


def test_a_stream_gives_its_first_examples(regression):
    model, x, y, *_ = regression
    stream = Stream("training", tf.data.Dataset.from_tensor_slices((x, y)).batch(5))
    assert [len(batch[0]) for batch in gradients.draw(stream, 7)] == [5, 2]
    by_stream, weights, mask = network_of(model, stream)
    by_array, *_ = network_of(model, (x[:7], y[:7]))
    for asked in ASKED:
        expected = getattr(by_array, asked)(weights, mask, 7)
        assert_close(getattr(by_stream, asked)(weights, mask, 7), expected, atol=1e-6)


def test_the_hessian_agrees_with_finite_differences(keras):
    rng = np.random.default_rng(0)
    layers = [keras.layers.Input((5,), dtype="float64")]
    layers += [keras.layers.Dense(n, "tanh", dtype="float64", name=f"fc{n}") for n in (6, 2)]
    model = keras.Sequential(layers)
    in_double = {"dtype": "float64"} if keras.__name__ == "keras" else {}
    model.compile("sgd", keras.losses.MeanSquaredError(**in_double))
    x, y = (rng.normal(size=(20, n)).astype(np.float32) for n in (5, 2))
    network, weights, mask = network_of(model, (x, y))
    mask = {path: rng.random(array.shape) < 0.7 for path, array in mask.items()}
    weights = {path: rng.normal(size=array.shape) for path, array in weights.items()}
    g = masks.apply(mask, network.gradient(weights, mask, 20))
    epsilon = 1e-4
    ahead, back = (
        network.gradient({p: w + s * g[p] if p in g else w for p, w in weights.items()}, mask, 20)
        for s in (epsilon, -epsilon)
    )
    expected = {path: (ahead[path] - back[path]) / (2 * epsilon) for path in g}
    assert min(np.abs(array).max() for array in expected.values()) > 1e-3
    assert_close(network.hessian_gradient(weights, mask, 20), expected, rtol=1e-5, atol=1e-8)


def test_squares_are_of_single_examples(make_model, data):
    x, y = data[0][:20], data[1][:20]
    model = make_model(batch_norm=True)
    rng = np.random.default_rng(0)
    model.set_weights([np.abs(w + 0.1 * rng.normal(size=w.shape)) for w in model.get_weights()])
    network, weights, mask = network_of(model, (x, y))
    kernels = gradients.kernels_of(MaskedModel(model))
    squares = []
    for i in range(20):
        with tf.GradientTape() as tape:
            logits = tf.convert_to_tensor(model(x[i : i + 1], training=False))
            loss = tf.nn.sparse_softmax_cross_entropy_with_logits(y[i : i + 1], logits)
        squares.append([np.square(g) for g in tape.gradient(loss, kernels)])
    expected = dict(zip(mask, [np.mean(s, axis=0) for s in zip(*squares)]))
    assert_close(network.squared_gradient(weights, mask, 20), expected, rtol=1e-4, atol=1e-9)


@pytest.fixture
def restless(keras):
    """A model with BatchNorm, dropout and an optimizer that has taken steps, on two named inputs."""
    a, b = (keras.layers.Input((4,), name=name) for name in "ab")
    hidden = keras.layers.Dense(8, "relu", name="fc")(keras.layers.Concatenate()([a, b]))
    hidden = keras.layers.Dropout(0.5, name="drop")(keras.layers.BatchNormalization(name="bn")(hidden))
    outputs = [keras.layers.Dense(3, name=name)(hidden) for name in ("one", "two")]
    model = keras.Model({"a": a, "b": b}, outputs)
    losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in outputs]
    model.compile(keras.optimizers.Adam(0.01), losses, run_eagerly=True)
    return model


@pytest.fixture
def two_inputs(data):
    x, y = data
    return {"a": x[:, :4], "b": x[:, 4:]}, [y, (y + 1) % 3]


@pytest.mark.parametrize("asked", [*ASKED, "supermask", "l0"])
def test_the_model_is_left_as_it_was_and_answers_the_same_again(restless, two_inputs, asked):
    x, y = two_inputs
    restless.fit(x, y, epochs=1, verbose=0)
    network, weights, mask = network_of(restless, two_inputs)
    masked = MaskedModel(restless)
    given = {path: array + 0.1 for path, array in weights.items()}
    rng = np.random.default_rng(0)
    mask, held = ({p: rng.random(a.shape) < 0.7 for p, a in mask.items()} for _ in range(2))
    masked.set_mask(held)
    before = masked.state()
    ask = getattr(network, asked)
    arguments = (given, mask, 16) if asked in ASKED else (given, mask)
    first = ask(*arguments)
    after = masked.state()
    assert list(after) == list(before)
    for path, array in before.items():
        np.testing.assert_array_equal(after[path], array, err_msg=path)
    for path, array in masked.mask().items():
        np.testing.assert_array_equal(array, held[path])
    assert all(np.asarray(metric.result()).max() == 0 for metric in restless.metrics if metric.name == "loss")
    restless.fit(x, y, epochs=1, verbose=0)  # moves weights, random states and the optimizer
    for path, array in ask(*arguments).items():
        np.testing.assert_array_equal(array, first[path], err_msg=path)
    assert all(np.isfinite(array).all() and array.any() for array in first.values())


def test_the_model_is_left_as_it_was_where_it_raises(make_model, data):
    model = make_model()
    network, weights, mask = network_of(model, data)
    masked = MaskedModel(model)
    before = masked.state()
    with pytest.raises(ValueError, match="fc2/kernel"):
        network.gradient({p: a + 1 for p, a in weights.items() if p != "fc2/kernel"}, mask, 8)
    with pytest.raises(ValueError, match="fc1/kernel"):
        network.l0({p: a + 1 for p, a in weights.items()}, {**mask, "fc1/kernel": np.ones((2, 2), bool)})
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)
    assert all(array.all() for array in masked.mask().values())


def test_a_model_without_the_argument_training_is_asked_too(keras, data):
    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc = keras.layers.Dense(3, name="fc")

        def call(self, inputs):
            return self.fc(inputs)

    model = Plain()
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(data[0][:1])
    network, weights, mask = network_of(model, data)
    assert network.gradient(weights, mask, 16)["fc/kernel"].any()


def test_what_cannot_be_asked_is_refused(keras, make_model, data):
    network, weights, mask = network_of(make_model(), None)
    for asked in ASKED:
        with pytest.raises(ValueError, match="looks at training data: give x and y .find_ticket. or data="):
            getattr(network, asked)(weights, mask, 8)
    for asked in ("supermask", "l0"):
        with pytest.raises(ValueError, match="looks at training data"):
            getattr(network, asked)(weights, mask)

    class Own(keras.Sequential):
        def train_step(self, data):
            raise NotImplementedError

    layers = [keras.layers.Input((8,)), keras.layers.Dense(3)]
    own, bare = Own(layers), keras.Sequential(layers)
    own.compile("sgd")
    network, weights, mask = network_of(own, data)
    with pytest.raises(ValueError, match="inside its own train_step.*compute_loss"):
        network.gradient(weights, mask, 8)
    network, weights, mask = network_of(bare, data)
    with pytest.raises(ValueError, match="is not compiled: compile it with its loss"):
        network.gradient(weights, mask, 8)
