"""Tickets on other models than that which they were found on."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api import flavour
from tf_lottery.keras_api.masked_model import MaskedModel


def network(keras, units=6, named=True, seed=0):
    """Most kinds of layers, with names of their own or Keras's."""
    layers, count = keras.layers, iter(range(99))

    def name(kind):
        return f"{kind}{next(count)}" if named else None

    inputs = layers.Input((6, 4))
    x = layers.Conv1D(units, 2, name=name("conv"))(inputs)
    x = layers.BatchNormalization(name=name("norm"))(x)
    x = layers.SeparableConv1D(units, 2, name=name("separable"))(x)
    x = layers.DepthwiseConv1D(2, name=name("depthwise"))(x)
    x = layers.MultiHeadAttention(2, 3, dropout=0.1, name=name("attention"))(x, x)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True), name=name("both"))(x)
    x = layers.Dropout(0.2, name=name("dropout"))(layers.GRU(4, name=name("gru"))(x))
    x = keras.Sequential([layers.Input((4,)), layers.Dense(5, name=name("inner"))], name=name("block"))(x)
    model = keras.Model(inputs, layers.Dense(3, name=name("head"))(x))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    rng = np.random.default_rng(seed)
    model.set_weights([0.3 * abs(rng.normal(size=w.shape)) for w in model.get_weights()])
    return model


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return rng.normal(size=(24, 6, 4)).astype(np.float32), rng.integers(0, 3, 24)


@pytest.mark.parametrize("named", [True, False])
def test_a_ticket_of_one_keras_fits_the_other(keras, sequences, no_xla, tmp_path, named):
    other = flavour.keras_module({"keras": "tf_keras", "tf_keras": "keras"}[keras.__name__])
    found = network(keras, named=named)
    if named:
        masked = MaskedModel(found)
        mask = {path: np.random.default_rng(0).random(s) < 0.5 for path, s in masked.shapes.items()}
        ticket = tf_lottery.Ticket(mask, masked.fresh_state, level=1)
        ticket.apply(found)
    else:
        ticket = tf_lottery.find_ticket(found, *sequences, steps=2, levels=1, batch_size=8, verbose=0)
    ticket.save(tmp_path / "the.ticket")
    applied = network(other, named=named, seed=1)
    tf_lottery.Ticket.load(tmp_path / "the.ticket").apply(applied)
    x = sequences[0]
    np.testing.assert_allclose(np.asarray(applied(x)), np.asarray(found(x)), rtol=0, atol=1e-5)
    applied.train_on_batch(*sequences)
    masks, kernels = list(ticket.mask.values()), MaskedModel(applied).kernels()
    counts = sorted((mask.shape, int(mask.sum())) for mask in masks)
    assert counts == sorted((kernel.shape, np.count_nonzero(kernel)) for kernel in kernels.values())


def test_layers_without_names_are_found_in_the_same_keras(keras):
    found = network(keras, named=False)
    masked = MaskedModel(found)
    ticket = tf_lottery.Ticket(masked.mask(), masked.fresh_state, level=0)
    applied = network(keras, named=False, seed=1)
    assert MaskedModel(applied).shapes.keys() != ticket.mask.keys()
    ticket.apply(applied)
    for one, two in zip(found.get_weights(), applied.get_weights()):
        np.testing.assert_array_equal(one, two)


def test_the_mask_alone_leaves_the_model_its_weights(make_model, data, random_mask):
    first, second = make_model(), make_model()
    second.set_weights([w + 1 for w in second.get_weights()])
    mask = random_mask(MaskedModel(first).shapes)
    ticket = tf_lottery.Ticket(mask, MaskedModel(first).fresh_state, level=1)
    before = MaskedModel(second).fresh_state
    assert ticket.apply(second, mask_only=True) is second
    after = MaskedModel(second).state()
    for path in ("fc1/kernel", "fc2/kernel", "output/kernel"):
        np.testing.assert_array_equal(after[path], np.where(mask[path], before[path], 0))
    np.testing.assert_array_equal(after["fc1/bias"], before["fc1/bias"])


def test_a_model_may_be_compiled_after_it_is_made_the_ticket(keras, data):
    layers = [keras.layers.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(3, name="b")]
    model = keras.Sequential(layers)
    weights = MaskedModel(model).fresh_state
    mask = {"a/kernel": np.eye(8, 4) > 0, "b/kernel": np.eye(4, 3) > 0}
    tf_lottery.Ticket(mask, weights, level=1).apply(model)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, verbose=0)
    for path, kernel in MaskedModel(model).kernels().items():
        assert (kernel[~mask[path]] == 0).all() and kernel.any()


def test_a_ticket_that_does_not_fit_names_each_layer(keras):
    masked = MaskedModel(network(keras))
    ticket = tf_lottery.Ticket(masked.mask(), masked.fresh_state, level=0)
    other = network(keras, units=7)
    before = other.get_weights()
    with pytest.raises(ValueError) as error:
        ticket.apply(other)
    message = str(error.value)
    for path in ("conv0/kernel", "norm1/gamma", "separable2/pointwise_kernel"):
        assert f"  {path}: shape" in message
    assert "gru" not in message and "head" not in message
    for one, two in zip(before, other.get_weights()):
        np.testing.assert_array_equal(one, two)
