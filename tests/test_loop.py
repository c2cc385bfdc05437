"""The compiled loop: the same training as `fit`, in one trace."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training.data import DataOrder
from tf_lottery.training.loop import Loop, prefers_xla


def make_loop(masked, data, jit=False, chunk=7, batch_size=16):
    return Loop(masked.model, data, {"validation": data}, batch_size=batch_size, chunk=chunk, jit=jit)


def test_a_mask_of_ones_trains_as_fit_does_bit_for_bit(make_model, data):
    x, y = data
    plain, model = make_model(), make_model()
    order = DataOrder(len(x), 16, 0).batches(0, 30)
    masked = MaskedModel(model)
    loop = make_loop(masked, data)
    for start in range(0, 30, 7):
        loop.train(order[start : start + 7])
    flat = order.ravel()
    plain.fit(x[flat], y[flat], batch_size=16, epochs=1, shuffle=False, verbose=0)
    for ours, theirs in zip(model.get_weights(), plain.get_weights()):
        np.testing.assert_array_equal(ours, theirs)


def test_metrics_are_those_of_evaluate(make_model, data):
    model = make_model()
    loop = make_loop(MaskedModel(model), data)
    logs = loop.evaluate("validation")
    loss, accuracy = model.evaluate(*data, batch_size=240, verbose=0)
    assert logs["loss"] == pytest.approx(loss, rel=1e-5)
    assert logs["accuracy"] == pytest.approx(accuracy, abs=1e-6)


def test_evaluation_counts_every_example_once(keras, make_model):
    # 2,345 examples: two full evaluation batches and a rest.
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(2345, 8)).astype(np.float32), rng.integers(0, 3, 2345)
    model = make_model()
    loop = make_loop(MaskedModel(model), (x, y), jit=True)
    predicted = np.argmax(model.predict(x, verbose=0), axis=1)
    assert loop.evaluate("validation")["accuracy"] == pytest.approx(np.mean(predicted == y), abs=1e-6)


def test_xla_changes_rounding_only(make_model, data):
    states = []
    for jit in (False, True):
        masked = MaskedModel(make_model())
        make_loop(masked, data, jit).train(DataOrder(240, 16, 0).batches(0, 7))
        states.append(masked.state())
    for path in states[0]:
        np.testing.assert_allclose(states[1][path], states[0][path], rtol=0, atol=1e-5, err_msg=path)


def test_chunks_of_any_length_and_new_masks_share_one_trace(make_model, data, random_mask):
    masked = MaskedModel(make_model())
    loop = make_loop(masked, data, jit=True)
    order = DataOrder(240, 16, 0)
    for level in range(4):
        masked.restore(masked.fresh_state)
        masked.set_mask(random_mask(masked.shapes, 0.8**level, level))
        for count in (7, 3, 1):
            loop.train(order.batches(0, count))
        loop.evaluate("validation")
    assert loop.traces == 2


def test_a_short_chunk_takes_just_its_steps(make_model, data):
    masked = MaskedModel(make_model())
    loop = make_loop(masked, data)
    loop.train(DataOrder(240, 16, 0).batches(0, 3))
    assert int(masked.model.optimizer.iterations) == 3


def test_building_the_loop_changes_no_variable(make_model, data):
    masked = MaskedModel(make_model(batch_norm=True))
    make_loop(masked, data)
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, masked.fresh_state[path])


def _prefers_xla(keras, *layers):
    return prefers_xla(keras.Sequential([keras.layers.Input((8, 8)), *layers]))


def test_xla_is_left_out_where_something_convolves_on_a_cpu(keras, make_model):
    assert prefers_xla(make_model(batch_norm=True))

    class Own(keras.layers.Conv1D):
        pass

    for layer in (keras.layers.Conv1D(2, 3), keras.Sequential([keras.layers.Conv1D(2, 3)]), Own(2, 3)):
        assert not _prefers_xla(keras, layer)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_xla_is_left_out_where_a_layer_of_keras_3_draws_on_a_cpu(rate):
    import keras
    import tf_keras

    for make in (
        lambda layers: layers.Dropout(rate),
        lambda layers: layers.SpatialDropout1D(rate),
        lambda layers: layers.GaussianNoise(rate),
        lambda layers: layers.TimeDistributed(layers.Dropout(rate)),
        lambda layers: layers.SimpleRNN(3, recurrent_dropout=rate),
    ):
        assert _prefers_xla(keras, make(keras.layers)) == (rate == 0)
        assert _prefers_xla(tf_keras, make(tf_keras.layers))
    for module in (keras, tf_keras):
        flipping = module.Sequential([module.layers.Input((8, 8, 1)), module.layers.RandomFlip()])
        assert prefers_xla(flipping) == (module is tf_keras)
    inputs = keras.Input((8, 8))
    attending = keras.layers.MultiHeadAttention(2, 4, dropout=rate)(inputs, inputs)
    assert prefers_xla(keras.Model(inputs, attending)) == (rate == 0)


def test_xla_is_left_out_for_lstm_and_gru_of_tf_keras_on_a_cpu():
    import keras
    import tf_keras

    for make in (
        lambda layers: layers.LSTM(3),
        lambda layers: layers.Bidirectional(layers.GRU(3)),
        lambda layers: layers.LSTM(3, dropout=0.5),
    ):
        assert not _prefers_xla(tf_keras, make(tf_keras.layers))
    wrapped = tf_lottery.wrap(tf_keras.Sequential([tf_keras.Input((8, 8)), tf_keras.layers.LSTM(3)]))
    assert not prefers_xla(wrapped)
    for module in (keras, tf_keras):
        assert _prefers_xla(module, module.layers.SimpleRNN(3))
        assert _prefers_xla(module, module.layers.RNN(module.layers.LSTMCell(3)))
    assert _prefers_xla(keras, keras.layers.Bidirectional(keras.layers.LSTM(3)))


def test_xla_is_left_out_where_a_layer_cannot_be_compiled():
    import keras

    turning = keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.RandomRotation(0.1)])
    assert not prefers_xla(turning)
