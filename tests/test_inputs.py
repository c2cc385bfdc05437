"""What a user may hand over as data, and what is said where it does not fit."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.training import inputs
from tf_lottery.training.data import DataOrder

# Two epochs of 15 steps.
SMALL = {"steps": 30, "eval_every": 15, "batch_size": 16, "levels": 0, "verbose": 0}


# XLA rounds in another way than `fit`.
pytestmark = pytest.mark.usefixtures("no_xla")


def searched(keras, model, x, y=None, **arguments):
    """Searches; returns the ticket, and the weights with which the first network ended."""
    final = []

    class Last(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            final.append(self.model.get_weights())

    ticket = tf_lottery.find_ticket(model, x, y, **{**SMALL, "callbacks": Last(), **arguments})
    return ticket, final[0]


def in_our_order(part, seed=0):
    """The examples in the order in which the first network of a search sees them."""
    rows = DataOrder(240, 16, seed, 1, 0).batches(0, 30).ravel()
    return tf.nest.map_structure(lambda leaf: np.asarray(leaf)[rows], part)


def fitted(model, *examples, **arguments):
    """Fits on the examples as a search does; returns the weights."""
    x, y, weights = (*in_our_order(examples), None)[:3]
    model.fit(x, y, sample_weight=weights, batch_size=16, shuffle=False, verbose=0, **arguments)
    return model.get_weights()


def assert_equal_weights(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        np.testing.assert_array_equal(one, other)


@pytest.fixture
def make_forked(keras):
    """Makes models of two inputs, of 5 and 3 numbers, and two outputs: classes and a size."""

    def make(by_name):
        a, b = keras.layers.Input((5,), name="a"), keras.layers.Input((3,), name="b")
        joined = keras.layers.Concatenate()([a, b])
        kernel = keras.initializers.GlorotNormal(seed=1)
        out = keras.layers.Dense(3, kernel_initializer=kernel, name="out")(joined)
        size = keras.layers.Dense(1, kernel_initializer=kernel, name="size")(joined)
        losses = [keras.losses.SparseCategoricalCrossentropy(from_logits=True), "mse"]
        if by_name:
            model = keras.Model({"a": a, "b": b}, {"out": out, "size": size})
            model.compile(keras.optimizers.Adam(0.01), dict(zip(("out", "size"), losses)))
        else:
            model = keras.Model([a, b], [out, size])
            model.compile(keras.optimizers.Adam(0.01), losses)
        return model

    return make


@pytest.fixture
def forked_data(data):
    x, y = data
    return (x[:, :5], x[:, 5:]), (y, np.linalg.norm(x, axis=1)[:, None])


@pytest.mark.parametrize("kind", [list, tuple, dict])
def test_several_inputs_and_outputs(keras, make_forked, forked_data, kind, tmp_path):
    x, y = forked_data
    if kind is dict:
        x, y = dict(zip("ab", x)), dict(zip(("out", "size"), y))
    else:
        x, y = kind(tf.constant(part) for part in x), kind(y)
    ticket, ours = searched(
        keras, make_forked(kind is dict), x, y, validation_data=(x, y), test_data=(x, y), workdir=tmp_path
    )
    assert_equal_weights(ours, fitted(make_forked(kind is dict), x, y))
    assert ticket.mask.keys() == {"out/kernel", "size/kernel"}
    row = ticket.history[0]["metrics"]
    assert row["validation/loss"] == pytest.approx(row["test/loss"])


def test_a_split_of_several_inputs(keras, make_forked, forked_data):
    ticket, _ = searched(keras, make_forked(False), *forked_data, validation_split=0.25, levels=1)
    assert len(ticket.history) == 2 and ticket.history[0]["early_stop_step"] == 30


@pytest.mark.parametrize("kind", ["float64", "tensors"])
def test_inputs_of_other_kinds_train_like_arrays(keras, make_model, data, kind):
    x, y = data[0].astype(np.float64), data[1].astype(np.int64)
    if kind == "tensors":
        x, y = map(tf.constant, data)
    _, ours = searched(keras, make_model(), x, y, validation_data=(x, y))
    assert_equal_weights(ours, fitted(make_model(), *data))


def test_labels_may_be_one_hot(keras, make_model, data):
    x, y = data
    one_hot = np.eye(3)[y]

    def make():
        model = make_model()
        loss = keras.losses.CategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(0.01), loss, metrics=["accuracy"])
        return model

    ticket, ours = searched(keras, make(), x, one_hot, validation_data=(x, one_hot))
    assert_equal_weights(ours, fitted(make(), x, one_hot.astype(np.float32)))
    assert ticket.history[0]["final_validation_accuracy"] > 0.5


def test_sample_weights_are_those_of_fit(keras, make_model, data):
    weights = np.random.default_rng(1).random(240) * 3
    _, ours = searched(keras, make_model(), *data, sample_weight=weights, validation_data=data)
    assert_equal_weights(ours, fitted(make_model(), *data, weights.astype(np.float32)))


def test_sample_weights_of_evaluation_data_are_those_of_evaluate(keras, make_model, data):
    weights = np.linspace(0, 2, 240, dtype=np.float32)
    losses = []

    class Losses(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            theirs = self.model.evaluate(*data, sample_weight=weights, batch_size=240, verbose=0)[0]
            losses.append((logs["val_loss"], theirs))

    tf_lottery.find_ticket(
        make_model(), *data, **SMALL, validation_data=(*data, weights), callbacks=[Losses()]
    )
    assert len(losses) == 2
    for ours, theirs in losses:
        assert ours == pytest.approx(theirs, rel=1e-5)


@pytest.mark.parametrize("labels", ["integers", "column", "one-hot"])
def test_class_weights_are_those_of_fit(keras, make_model, data, labels):
    x, y = data
    given = {"integers": y, "column": y[:, None], "one-hot": np.eye(3, dtype=np.float32)[y]}[labels]
    weights = {0: 4.0, 1: 0.25, 2: 1.0}

    def make():
        model = make_model()
        if labels == "one-hot":
            loss = keras.losses.CategoricalCrossentropy(from_logits=True)
            model.compile(keras.optimizers.Adam(0.01), loss)
        return model

    _, ours = searched(keras, make(), x, given, class_weight=weights, validation_data=(x, given))
    assert_equal_weights(ours, fitted(make(), x, given, class_weight=weights))


def test_class_weights_leave_the_validation_examples_alone(data):
    arguments = {"validation_split": 0.25, "seed": 3}
    plain = inputs.gather(*data, **arguments)
    weighted = inputs.gather(*data, **arguments, class_weight={0: 5.0})
    assert len(weighted["validation"]) == 2
    for one, other in zip(weighted["validation"], plain["validation"]):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(weighted["training"][2], np.where(weighted["training"][1] == 0, 5, 1))


def test_sample_weights_are_split_with_their_examples(data):
    x, y = data
    sources = inputs.gather({"x": x}, [y, y], sample_weight=[y * 2, y * 3], validation_split=0.3)
    for part, count in {"training": 168, "validation": 72}.items():
        (named, (labels, _), (double, triple)) = sources[part]
        assert len(named["x"]) == len(labels) == count
        np.testing.assert_array_equal(double, labels * 2)
        np.testing.assert_array_equal(triple, labels * 3)


def test_another_class_weight_is_another_search(data):
    plain, weighted = (inputs.gather(*data, class_weight=weights)["training"] for weights in (None, {0: 2.0}))
    assert inputs.digest(plain) != inputs.digest(weighted)


def test_a_search_on_inputs_alone(keras, data):
    class Size(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(tf.reduce_mean(tf.square(inputs)))
            return inputs

    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(4), Size()])
    model.compile(keras.optimizers.SGD(0.1))
    ticket, _ = searched(keras, model, data[0], validation_data=(data[0],))
    assert ticket.history[0]["early_stop_step"] == 30


def test_what_does_not_fit_is_refused(keras, make_model, data):
    model, (x, y) = make_model(), data
    words, objects = np.array(["a"] * 240), np.array([{}] * 240)
    for given, arguments, error, message in [
        ((x, y[:100]), {}, ValueError, "as many labels.* Received arrays of 240, 100 examples"),
        ((x, y), {"sample_weight": y[:9]}, ValueError, "Received arrays of 240, 240, 9 examples"),
        ((x[:0], y[:0]), {}, ValueError, "more than none. Received arrays of 0, 0 examples"),
        ((x,), {"sample_weight": y}, ValueError, "have sample weights, and no y that they weigh"),
        ((words, y), {}, TypeError, "arrays of numbers.* Received: ndarray of <U1"),
        ((objects, y), {}, TypeError, "arrays of numbers.* Received: ndarray of object"),
        ((x.tolist(), y), {}, TypeError, "Received: float, a single value. Make .*np.asarray.numbers"),
        ((x, y.tolist()), {}, TypeError, "Received: int, a single value. Make .*np.asarray.numbers"),
        ((tf.sparse.from_dense(x), y), {}, TypeError, "hold a SparseTensor, and must be dense"),
        (([x, (i for i in x)], y), {}, TypeError, "arrays of numbers.* Received: generator"),
        (("digits.csv", y), {}, TypeError, "arrays of numbers.* Received: str, a single value"),
        ((x, y), {"class_weight": {"cat": 2.0}}, ValueError, "maps classes, integers,.* Received 'cat'"),
        ((x, y), {"class_weight": {0: 1.0}, "sample_weight": y}, ValueError, "product as sample_weight"),
        ((x, y), {"validation_split": 1.5}, ValueError, "validation_split must be in .* Received 1.5"),
        ((x, y), {"validation_data": (x,)}, ValueError, "validation data have no y"),
        (
            (x, y),
            {"validation_data": (x, y, y, y)},
            TypeError,
            "must be .x, y., .*a data set. Received: tuple",
        ),
        ((x, y), {"test_data": {"x": x}}, TypeError, "test_data must be .x, y.* Received: dict"),
        ((x, y), {"validation_data": iter([x])}, TypeError, "validation data are a list_iterator, which"),
    ]:
        with pytest.raises(error, match=message):
            tf_lottery.find_ticket(model, *given, **{**SMALL, **arguments})


def test_class_weights_for_several_outputs_are_refused(make_forked, forked_data):
    with pytest.raises(ValueError, match="class_weight needs one array y of labels"):
        tf_lottery.find_ticket(make_forked(False), *forked_data, **SMALL, class_weight={0: 2.0})
