"""Compacted models: they compute the same, with as few inputs and units as that takes."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.experiments import networks
from tf_lottery.keras_api import flavour, prunable
from tf_lottery.keras_api.holding import HoldsMasks
from tf_lottery.keras_api.masked_model import MaskedModel


def fill(model, seed=0):
    """Gives every variable random values; statistics of BatchNorm too, and biases."""
    rng = np.random.default_rng(seed)
    for path, slot in prunable.slots(model).items():
        if path.endswith(prunable.SEED):
            continue
        shape = tuple(slot.variable.shape)
        values = rng.normal(size=shape, scale=np.prod(shape[:-1]) ** -0.5)
        slot.variable.assign(np.abs(values) + 0.5 if "variance" in path else values)
    return model


def thin(model, density=0.3, units=0.8, seed=0):
    """Masks a model at random; some units have no weight left that comes in, and some none that goes out."""
    rng = np.random.default_rng(seed)
    masked = MaskedModel(model)
    mask = {}
    for path, shape in masked.shapes.items():
        inputs, outputs = rng.random(shape[-2]) < units, rng.random(shape[-1]) < units
        mask[path] = (rng.random(shape) < density) & inputs[:, None] & outputs
    masked.set_mask(mask)
    return masked.model


def check(model, x):
    """Compacts a model, holds it against the original, and returns what comes of it."""
    before = [np.copy(weights) for weights in model.get_weights()]
    expected = np.asarray(model(x, training=False))
    assert np.ptp(expected, axis=0).max() > 0  # it depends on the example
    small, kept = tf_lottery.compact(model)
    output = np.asarray(small(x, training=False))
    np.testing.assert_allclose(output, expected, atol=1e-5, rtol=1e-5, strict=True)
    for weights, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, other)
    kernels = {path: np.asarray(slot.variable) for path, slot in prunable.slots(model).items()}
    mine = {path: np.asarray(slot.variable) for path, slot in prunable.slots(small).items()}
    assert mine.keys() >= kept.keys()
    for path, (rows, units) in kept.items():
        np.testing.assert_array_equal(mine[path], kernels[path][..., rows[:, None], units])
    return small, kept


def images(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def test_units_by_hand(keras):
    fc, output = keras.layers.Dense(4, "relu", name="fc"), keras.layers.Dense(1, name="output")
    model = keras.Sequential([keras.layers.Input((3,)), fc, output])
    # The second unit is 5 and goes into the bias, the third is not heard, the fourth is always 0.
    fc.set_weights([np.array([[1, 0, 2, 0], [0, 0, 3, 0], [0, 0, 0, 0]]), np.array([0, 5, 0, -5])])
    output.set_weights([np.array([[1], [2], [0], [4]]), np.ones(1)])
    small, kept = check(model, images(20, 3))
    assert {path: [indices.tolist() for indices in both] for path, both in kept.items()} == {
        "fc/kernel": [[0], [0]],
        "output/kernel": [[0], [0]],
    }
    np.testing.assert_array_equal(small.get_weights()[-1], [11])


@pytest.mark.parametrize(
    ("network", "shape"),
    [("mlp:40,30,20", (6, 6, 1)), ("conv_2", (8, 8, 3)), ("resnet_8", (8, 8, 3)), ("vgg_11", (32, 32, 3))],
)
@pytest.mark.parametrize("seed", range(3))
def test_networks(keras, network, shape, seed):
    model = fill(networks.build(network, keras, shape, classes=5), seed)
    small, kept = check(thin(model, seed=seed), images(8, *shape))
    assert small.count_params() < 0.8 * model.count_params()
    assert set(kept) == set(MaskedModel(model).shapes)
    assert [layer.name for layer in model.layers if layer.weights] == [
        layer.name for layer in small.layers if layer.weights
    ]


def test_a_dense_network_stays_as_large_as_it_is(keras):
    model = fill(networks.build("resnet_8", keras, (8, 8, 3), classes=5))
    small, _ = check(model, images(8, 8, 8, 3))
    assert small.count_params() == model.count_params()


@pytest.mark.parametrize(("padding", "units"), [("valid", [0]), ("same", [0, 1])])
def test_a_constant_in_front_of_a_convolution(keras, padding, units):
    model = keras.Sequential(
        [
            keras.layers.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, activation="sigmoid", name="conv1"),
            keras.layers.MaxPooling2D(2),
            keras.layers.Conv2D(2, 2, padding=padding, name="conv2"),
        ]
    )
    kernel, bias, *others = fill(model).get_weights()
    kernel[..., 1:] = 0
    bias[2] = -200  # of a sigmoid: 0, which any bias can take in
    model.set_weights([kernel, bias, *others])
    _, kept = check(model, images(5, 6, 6, 2))
    assert kept["conv1/kernel"][1].tolist() == kept["conv2/kernel"][0].tolist() == units


def test_a_sum_keeps_what_one_of_its_sides_needs(keras):
    inputs = keras.Input((4,))
    left = keras.layers.Dense(3, name="left")(inputs)
    right = keras.layers.Dense(3, name="right")(keras.layers.Dense(2, "tanh", name="below")(inputs))
    outputs = keras.layers.Dense(2, name="output")(keras.layers.Add()([left, right]))
    model = fill(keras.Model(inputs, outputs))
    masked = MaskedModel(model)
    mask = {path: np.ones(shape, bool) for path, shape in masked.shapes.items()}
    mask["left/kernel"][:, 0] = False  # a constant on one side
    mask["right/kernel"][:, 1:] = False  # constants on one side, and on both
    mask["left/kernel"][:, 2] = False
    masked.set_mask(mask)
    _, kept = check(model, images(9, 4))
    assert kept["left/kernel"][1].tolist() == kept["right/kernel"][1].tolist() == [0, 1]
    assert kept["output/kernel"][0].tolist() == [0, 1]


def test_side_by_side_and_across(keras):
    inputs = keras.Input((6, 6, 2))
    first = keras.layers.Conv2D(4, 3, padding="same", activation="relu", name="first")(inputs)
    second = keras.layers.Conv2D(3, 3, padding="same", activation="elu", name="second")(first)
    x = keras.layers.Concatenate()([first, second, inputs])
    x = keras.layers.AveragePooling2D(2)(keras.layers.Dropout(0.5)(x))
    x = keras.layers.BatchNormalization(name="bn")(x)
    x = keras.layers.Flatten()(x)
    model = fill(keras.Model(inputs, keras.layers.Dense(3, "softmax", name="output")(x)))
    mask = {path: np.ones(shape, bool) for path, shape in MaskedModel(model).shapes.items()}
    mask["output/kernel"].reshape(9, 9, 3)[:, [1, 5]] = False  # at every place, a unit of both
    tf_lottery.apply_mask(model, mask)
    _, kept = check(model, images(9, 6, 6, 2))
    assert kept["first/kernel"][1].tolist() == [0, 1, 2, 3]  # which the second layer hears
    assert kept["second/kernel"][1].tolist() == [0, 2]
    assert len(kept["output/kernel"][0]) == 9 * 7


def test_what_is_not_known_stays(keras):
    class Own(keras.layers.Dense):
        def call(self, inputs):
            return super().call(inputs[..., ::-1])

    words = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(9, 6, name="embedding")(words)
    x = x + keras.layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = keras.layers.Dense(6, name="down")(keras.layers.Dense(12, "relu", name="up")(x))
    x = keras.layers.LSTM(4, name="lstm")(keras.layers.Reshape((5, 6))(x))
    shared = keras.layers.Dense(4, name="shared")
    x = shared(shared(Own(4, name="own")(x)))
    model = fill(keras.Model(words, keras.layers.Dense(2, name="output")(x)))
    kernels = MaskedModel(model).shapes
    x = np.random.default_rng(0).integers(0, 9, (10, 5))
    _, kept = check(thin(model, density=0.5, units=0.8), x)
    assert set(kept) == {"up/kernel", "down/kernel", "output/kernel"} < set(kernels)
    assert len(kept["up/kernel"][1]) < 12 and len(kept["down/kernel"][1]) == 6


def test_sums_and_activations_that_are_no_layers(keras):
    ops = keras.ops if hasattr(keras, "ops") else tf.nn
    inputs = keras.Input((4,))
    left, right = (keras.layers.Dense(5, name=name)(inputs) for name in ("left", "right"))
    outputs = keras.layers.Dense(2, name="output")(ops.relu(left + right) + 1.0)
    model = fill(keras.Model(inputs, outputs))
    mask = {path: np.ones(shape, bool) for path, shape in MaskedModel(model).shapes.items()}
    mask["output/kernel"][:2] = False
    tf_lottery.apply_mask(model, mask)
    _, kept = check(model, images(9, 4))
    # Of a sum with what is no tensor of the model nothing is known.
    assert len(kept["left/kernel"][1]) == len(kept["output/kernel"][0]) + 2 == 5


def test_what_masks_hang_on_stays(keras):
    words = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(9, 6, mask_zero=True, name="embedding")(words)
    x = keras.layers.Dense(6, name="fc")(x)
    numbers = keras.Input((5, 2))
    x = keras.layers.Maximum()([x, keras.layers.Dense(6, name="other")(x)])
    one_side = keras.layers.Multiply()([x, keras.layers.Dense(6, name="unmasked")(numbers)])
    outputs = [keras.layers.LSTM(4, name="lstm")(x), keras.layers.Dense(3, name="output")(one_side)]
    outputs = keras.layers.Concatenate()([outputs[0], keras.layers.Flatten()(outputs[1])])
    model = fill(keras.Model([words, numbers], outputs))
    mask = {path: np.ones(shape, bool) for path, shape in MaskedModel(model).shapes.items()}
    mask["fc/kernel"][:2] = mask["other/kernel"][:2] = False  # inputs that nobody hears
    for path in ("fc/kernel", "other/kernel", "unmasked/kernel"):
        mask[path][:, 1] = False  # constants
    tf_lottery.apply_mask(model, mask)
    x = np.random.default_rng(0).integers(0, 3, (10, 5))  # 0 in the middle and at the end
    check(model, [x, images(10, 5, 2)])


def test_a_batch_norm_that_is_called_twice_is_cut_for_none(keras):
    inputs, norm = keras.Input((4,)), keras.layers.BatchNormalization(name="norm")
    sides = [norm(keras.layers.Dense(4, name=name)(inputs)) for name in ("left", "right")]
    model = fill(keras.Model(inputs, keras.layers.Dense(2, name="output")(keras.layers.Concatenate()(sides))))
    mask = {path: np.ones(shape, bool) for path, shape in MaskedModel(model).shapes.items()}
    mask["output/kernel"][[0, 5, 6]] = False  # other units on each side
    tf_lottery.apply_mask(model, mask)
    _, kept = check(model, images(9, 4))
    assert len(kept["left/kernel"][1]) == len(kept["right/kernel"][1]) == 4


def test_what_a_layer_has_adapted_to_is_kept(keras):
    normalizing = keras.layers.Normalization(name="normalizing")
    normalizing.adapt(5 + 3 * images(100, 4))
    inside = keras.Sequential([keras.Input((4,)), normalizing], name="inside")
    bins = keras.layers.Discretization(num_bins=4)
    bins.adapt(5 + 3 * images(100, 4))
    layers = keras.layers
    for first in ([normalizing], [inside], [bins, layers.Embedding(5, 3), layers.Flatten()]):
        model = keras.Sequential([keras.Input((4,)), *first, layers.Dense(6, "relu"), layers.Dense(2)])
        for layer in model.layers[1:]:
            layer.set_weights([images(*weights.shape) for weights in layer.get_weights()])
        check(model, 5 + 3 * images(9, 4))


def test_functions_of_ones_own_with_names_of_keras(keras):
    def relu(x):
        return abs(x)

    layers = [
        keras.layers.Dense(6, relu),
        keras.layers.Activation(relu),
        keras.layers.Dense(2, keras.activations.tanh),
    ]
    check(thin(fill(keras.Sequential([keras.Input((4,)), *layers])), density=0.6), images(9, 4))

    def twice(x):
        return 2 * x

    inside = keras.Sequential(
        [keras.Input((3, 4)), keras.layers.TimeDistributed(keras.layers.Dense(5, relu))]
    )
    layers = [inside, keras.layers.LSTM(4, activation=relu), keras.layers.Dense(2, twice)]
    model = keras.Sequential([keras.Input((3, 4)), *layers])
    check(thin(fill(model), density=0.6), images(9, 3, 4))


@pytest.mark.parametrize("training", [True, 1, "by place"])
def test_calls_in_training_mode_stay(keras, training):
    inputs, norm = keras.Input((4,)), keras.layers.BatchNormalization(name="norm")
    x = keras.layers.Dense(6, name="fc")(inputs)
    if training == "by place" and keras.__name__ == "tf_keras":  # which Keras 3 refuses
        x = norm(x, True)
    else:
        x = norm(x, training=bool(training) if training == "by place" else training)
    model = fill(keras.Model(inputs, keras.layers.Dense(2, name="output")(x)))
    mask = {path: np.ones(shape, bool) for path, shape in MaskedModel(model).shapes.items()}
    mask["fc/kernel"][:, 0] = False
    tf_lottery.apply_mask(model, mask)
    before = [np.copy(weights) for weights in model.get_weights()]
    _, kept = tf_lottery.compact(model)
    for weights, other in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weights, other)
    assert len(kept["fc/kernel"][1]) == 6


@pytest.mark.parametrize("name", ["grouped", "causal", "within", "half"])
def test_what_is_seldom_computes_the_same(keras, name):
    layers = keras.layers
    made = {
        "grouped": lambda: [layers.Conv1D(6, 3), layers.Conv1D(4, 3, groups=2), layers.Flatten()],
        "causal": lambda: [layers.Conv1D(6, 3), layers.Conv1D(4, 3, padding="causal"), layers.Flatten()],
        "within": lambda: [keras.Sequential([keras.Input((8, 4)), layers.Conv1D(6, 3), layers.Flatten()])],
        "half": lambda: [layers.Flatten(dtype="mixed_bfloat16"), layers.Dense(6, dtype="mixed_bfloat16")],
    }[name]
    model = keras.Sequential([keras.Input((8, 4)), *made(), layers.Dense(3, dtype="float32")])
    model = thin(fill(model), density=0.7)
    x = images(9, 8, 4)
    if name != "half":
        check(model, x)
        return
    small, _ = tf_lottery.compact(model)
    assert small.count_params() < model.count_params() and small.layers[-2].compute_dtype == "bfloat16"
    np.testing.assert_allclose(np.asarray(small(x)), np.asarray(model(x)), atol=0.05)


def test_layers_that_cannot_be_made_again(keras):
    class Scale(keras.layers.Layer):
        def __init__(self, by):
            super().__init__(name="scale")
            self.by = by

        def call(self, inputs):
            return inputs * self.by

        def get_config(self):
            return {}

    words = keras.layers.StringLookup(vocabulary=["a", "b"], name="words")
    for first, message in (
        (Scale(2.0), "The layer 'scale' of the class Scale cannot be made again from its config: "),
        (words, "The layer 'words' keeps a vocabulary: compact the model behind it."),
    ):
        inputs = keras.Input((4,), dtype="string" if first is words else "float32")
        outputs = keras.layers.Dense(2)(keras.layers.Rescaling(1.0)(first(inputs)))
        with pytest.raises(TypeError, match=message):
            tf_lottery.compact(keras.Model(inputs, outputs))


def test_several_inputs_and_outputs_by_name(keras):
    a, b = keras.Input((4,), name="a"), keras.Input((5,), name="b")
    both = keras.layers.Concatenate()([keras.layers.Dense(6, "relu", name="fc")(a), b])
    outputs = {name: keras.layers.Dense(2, name=name)(both) for name in ("one", "two")}
    model = thin(fill(keras.Model({"a": a, "b": b}, outputs)), density=0.5)
    small, _ = tf_lottery.compact(model)
    x = {"a": images(7, 4), "b": images(7, 5)}
    assert small(x).keys() == {"one", "two"}
    for name, output in model(x).items():
        np.testing.assert_allclose(np.asarray(small(x)[name]), np.asarray(output), atol=1e-5)


@pytest.mark.parametrize("pruned", [("fc1/kernel",), ("fc2/kernel", "output/kernel"), ("output/kernel",)])
def test_a_layer_that_is_pruned_whole(make_model, pruned):
    model = fill(make_model())
    masked = MaskedModel(model)
    masked.set_mask({path: np.full(shape, path not in pruned) for path, shape in masked.shapes.items()})
    x = images(6, 8)
    expected = np.asarray(model(x))
    small, kept = tf_lottery.compact(model)
    np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5)
    assert all(len(indices) > 0 for both in kept.values() for indices in both)
    assert np.ptp(expected, axis=0).max() == 0 and small.count_params() < 20


def test_a_layer_without_a_bias_gets_one_where_it_takes_constants_in(keras):
    model = keras.Sequential(
        [keras.layers.Input((3,)), keras.layers.Dense(4, "sigmoid"), keras.layers.Dense(2, use_bias=False)]
    )
    fill(model)
    kernel, *others = model.get_weights()
    kernel[:, 0] = 0
    model.set_weights([kernel, *others])
    small, _ = check(model, images(5, 3))
    assert [layer.use_bias for layer in small.layers if layer.weights] == [True, True]


def test_the_model_goes_on_as_it_is_and_the_small_one_is_plain(make_model, data, tmp_path):
    model = thin(make_model(batch_norm=True), density=0.5)
    mask = MaskedModel(model).mask()
    small, _ = tf_lottery.compact(model)
    model.fit(*data, epochs=1, verbose=0)
    for path, kernel in MaskedModel(model).kernels().items():
        assert not kernel[~mask[path]].any() and kernel.any()
    keras = flavour.keras_module(flavour.flavour_of(model))
    assert not isinstance(small, HoldsMasks)
    small.save(tmp_path / "small.keras")
    again = keras.models.load_model(tmp_path / "small.keras")
    np.testing.assert_array_equal(again.predict(data[0], verbose=0), small.predict(data[0], verbose=0))


def test_a_model_in_tfmot_wrappers():
    import tf_keras

    model = tf_lottery.wrap(networks.build("resnet_8", tf_keras, (8, 8, 3), classes=5))
    model = thin(fill(model))
    x = images(8, 8, 8, 3)
    expected = np.asarray(model(x))
    for _ in range(2):
        small, kept = tf_lottery.compact(model)
        np.testing.assert_allclose(np.asarray(small(x)), expected, atol=1e-5)
        assert not prunable.has_wrappers(small) and len(kept["conv2/kernel"][1]) < 16
        assert prunable.has_wrappers(model)


def test_a_model_that_is_code(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.layer = keras.layers.Dense(2)

        def call(self, inputs):
            return self.layer(inputs)

    model = Own()
    model(images(2, 3))
    with pytest.raises(TypeError, match="Expected a Sequential or functional model. Received 'own"):
        tf_lottery.compact(model)
    with pytest.raises(ValueError, match="has no weights yet. Build it first"):
        tf_lottery.compact(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(TypeError, match="Expected a keras.Model"):
        tf_lottery.compact(3)
