"""The paths of a network's variables, which of them are kernels, and fresh draws of them."""

import numpy as np
import pytest

from tf_lottery.keras_api import flavour, prunable

LSTM = ("kernel", "recurrent_kernel", "bias")


def dense(keras, units, name, **kwargs):
    return keras.layers.Dense(units, name=name, **kwargs)


def sequential(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((6, 6, 2)),
            layers.Conv2D(3, 2, name="conv"),
            layers.BatchNormalization(name="bn"),
            layers.SeparableConv2D(4, 2, name="separable"),
            layers.Flatten(name="flat"),
            layers.Dropout(0.5, name="dropout"),
            dense(keras, 3, "output"),
        ],
        name="net",
    )


def functional(keras):
    image, number = keras.layers.Input((4,), name="image"), keras.layers.Input((2,), name="number")
    joined = keras.layers.Concatenate(name="joined")(
        [dense(keras, 3, "left")(image), dense(keras, 5, "right")(number)]
    )
    return keras.Model([image, number], [dense(keras, 2, "first")(joined), dense(keras, 1, "second")(joined)])


def nested(keras):
    inner = keras.Sequential(
        [keras.layers.Input((4,)), dense(keras, 3, "fc"), dense(keras, 4, "out")], name="inner"
    )
    outer = keras.Sequential([keras.layers.Input((4,)), inner, dense(keras, 4, "fc")], name="outer")
    return keras.Sequential([keras.layers.Input((4,)), dense(keras, 4, "fc"), outer, dense(keras, 2, "head")])


def shared(keras):
    inputs = keras.layers.Input((4,), name="in")
    twice = dense(keras, 4, "twice")
    block = keras.Sequential([keras.layers.Input((4,)), dense(keras, 4, "fc")], name="block")
    return keras.Model(inputs, dense(keras, 2, "head")(block(twice(block(twice(inputs))))))


def recurrent(keras):
    layers = keras.layers
    return keras.Sequential(
        [
            layers.Input((5, 4)),
            layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="lstm"), name="both"),
            layers.GRU(2, name="gru"),
            dense(keras, 2, "head"),
        ]
    )


def attention(keras):
    inputs = keras.layers.Input((7,), dtype="int32", name="in")
    x = keras.layers.Embedding(11, 6, name="embedding")(inputs)
    x = keras.layers.MultiHeadAttention(2, 3, dropout=0.1, name="attention")(x, x)
    x = keras.layers.LayerNormalization(axis=[1, 2], name="norm")(x)
    return keras.Model(inputs, dense(keras, 2, "head")(x))


def frozen(keras):
    inner = keras.Sequential([keras.layers.Input((4,)), dense(keras, 4, "fc")], name="pretrained")
    inner.trainable = False
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            inner,
            dense(keras, 4, "fixed", trainable=False),
            dense(keras, 2, "head"),
        ]
    )


def no_bias(keras):
    return keras.Sequential([keras.layers.Input((4,)), dense(keras, 4, "fc", use_bias=False)])


def of(layer, *names):
    return [f"{layer}/{name}" for name in names or ("kernel", "bias")]


NORMALIZATION = ("gamma", "beta", "moving_mean", "moving_variance")
# Network -> every path in order, and those of the kernels.
NETWORKS = {
    sequential: (
        of("conv")
        + of("bn", *NORMALIZATION)
        + of("separable", "depthwise_kernel", "pointwise_kernel", "bias")
        + of("output"),
        ["conv/kernel", "separable/depthwise_kernel", "separable/pointwise_kernel", "output/kernel"],
    ),
    functional: (
        of("left") + of("right") + of("first") + of("second"),
        ["left/kernel", "right/kernel", "first/kernel", "second/kernel"],
    ),
    nested: (
        of("fc") + of("outer/inner/fc") + of("outer/inner/out") + of("outer/fc") + of("head"),
        ["fc/kernel", "outer/inner/fc/kernel", "outer/inner/out/kernel", "outer/fc/kernel", "head/kernel"],
    ),
    shared: (
        of("twice") + of("block/fc") + of("head"),
        ["twice/kernel", "block/fc/kernel", "head/kernel"],
    ),
    recurrent: (
        of("both/forward_lstm/lstm_cell", *LSTM)
        + of("both/backward_lstm/lstm_cell", *LSTM)
        + of("gru/gru_cell", *LSTM)
        + of("head"),
        of("both/forward_lstm/lstm_cell", *LSTM[:2])
        + of("both/backward_lstm/lstm_cell", *LSTM[:2])
        + of("gru/gru_cell", *LSTM[:2])
        + ["head/kernel"],
    ),
    attention: (
        ["embedding/embeddings"]
        + [p for part in ("query", "key", "value", "attention_output") for p in of(f"attention/{part}")]
        + of("norm", "gamma", "beta")
        + of("head"),
        [f"attention/{part}/kernel" for part in ("query", "key", "value", "attention_output")]
        + ["head/kernel"],
    ),
    frozen: (of("pretrained/fc") + of("fixed") + of("head"), ["head/kernel"]),
    no_bias: (["fc/kernel"], ["fc/kernel"]),
}


def own_paths(model):
    """The paths without the states of seed generators, which only Keras 3 has."""
    return [path for path in prunable.slots(model) if not path.endswith("seed_generator_state")]


@pytest.mark.parametrize("network", NETWORKS)
def test_paths_and_kernels_of_a_network(keras, network):
    paths, kernels = NETWORKS[network]
    model = network(keras)
    assert own_paths(model) == paths
    assert list(prunable.prunable_slots(model)) == kernels
    found = prunable.slots(model)
    assert {id(slot.variable) for slot in found.values()} == {id(variable) for variable in model.variables}
    weights = [slot.variable for path, slot in found.items() if path in paths]
    assert sum(int(np.prod(weight.shape)) for weight in weights) == model.count_params()


@pytest.mark.parametrize("network", NETWORKS)
def test_wrappers_change_no_path_and_share_the_variables(network):
    from tf_lottery.keras_api import tfmot_wrappers

    model = network(flavour.keras_module("tf_keras"))
    wrapped = tfmot_wrappers.wrap(model)
    assert any(prunable.is_pruning_wrapper(layer) for layer in wrapped._flatten_layers())
    for slots in (prunable.slots, prunable.prunable_slots):
        plain, inside = slots(model), slots(wrapped)
        assert list(plain) == list(inside)
        for path, slot in plain.items():
            assert inside[path].variable is slot.variable and inside[path].layer is slot.layer


def test_models_that_users_wrapped_themselves_have_the_same_paths():
    from tf_lottery.keras_api.tfmot_wrappers import tfmot

    wrapped = tfmot.sparsity.keras.prune_low_magnitude(sequential(flavour.keras_module("tf_keras")))
    assert any(prunable.is_pruning_wrapper(layer) for layer in wrapped.layers)
    assert list(prunable.slots(wrapped)) == NETWORKS[sequential][0]
    assert list(prunable.prunable_slots(wrapped)) == NETWORKS[sequential][1]


def test_a_second_network_has_the_same_paths_and_its_own_layers(keras):
    first, second = recurrent(keras), recurrent(keras)
    assert own_paths(second) == own_paths(first) == NETWORKS[recurrent][0]
    slot = prunable.slots(second)["both/forward_lstm/lstm_cell/recurrent_kernel"]
    assert (slot.name, slot.layer.name) == ("recurrent_kernel", "lstm_cell")
    assert slot.layer is second.layers[0].forward_layer.cell


def test_seed_generators_are_variables_of_keras_3():
    model = attention(flavour.keras_module("keras"))
    states = [path for path in prunable.slots(model) if path not in own_paths(model)]
    assert len(states) == 1 and states[0].startswith("attention/dropout")


def test_subclassed_models_of_keras_3_have_paths_of_layer_names():
    keras = flavour.keras_module("keras")

    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            self.blocks = [dense(keras, 4, "first"), dense(keras, 4, "second")]
            self.head = dense(keras, 2, "head")

        def call(self, inputs):
            for block in self.blocks:
                inputs = block(inputs)
            return self.head(inputs)

    model = Net()
    model(np.zeros((1, 4), np.float32))
    assert sorted(prunable.slots(model)) == sorted(of("first") + of("second") + of("head"))


def custom(keras, names=("kernel",), attributes=None):
    class Custom(keras.layers.Layer):
        def build(self, input_shape):
            for key, value in (attributes or {}).items():
                setattr(self, key, value)
            self.added = [self.add_weight(name=name, shape=(4, 4), initializer="he_normal") for name in names]
            super().build(input_shape)

        def call(self, inputs):
            for weight in self.added:
                inputs = inputs @ weight
            return inputs

    return keras.Sequential([keras.layers.Input((4,)), Custom(name="mine"), dense(keras, 2, "head")])


def test_equal_names_are_numbered(keras):
    assert own_paths(custom(keras, ["kernel", "kernel", "kernel"])) == [
        *of("mine", "kernel", "kernel_1", "kernel_2"),
        *of("head"),
    ]


def test_kernels_of_custom_layers_are_pruned_and_their_biases_are_not(keras):
    model = custom(keras, ["left", "bias_table", "token_embeddings", "right"])
    assert list(prunable.prunable_slots(model)) == ["mine/left", "mine/right", "head/kernel"]


def test_an_unbuilt_model_is_refused(keras):
    with pytest.raises(ValueError, match="The model 'net' has no weights yet. Build it first"):
        prunable.prunable_slots(keras.Sequential([dense(keras, 2, "fc")], name="net"))


def test_a_model_with_nothing_to_prune_is_refused(keras):
    model = keras.Sequential([keras.layers.Input((4,)), dense(keras, 2, "fc")], name="net")
    model.trainable = False
    with pytest.raises(ValueError, match="The model 'net' has nothing to prune"):
        prunable.prunable_slots(model)


def lenet(keras, **kwargs):
    return keras.Sequential(
        [
            keras.layers.Input((784,)),
            dense(keras, 300, "fc1", kernel_initializer=keras.initializers.GlorotNormal(seed=1)),
            dense(keras, 300, "fc2", kernel_initializer="glorot_normal", **kwargs),
            dense(keras, 300, "fc3", kernel_initializer="glorot_normal", bias_initializer="ones"),
        ]
    )


def seed_of(seed):
    return lambda path: seed * 1000 + sum(path.encode())


def test_glorot_normal_has_its_standard_deviation(keras):
    draws = prunable.draw_initial(lenet(keras), seed_of(1))
    assert draws["fc1/kernel"].shape == (784, 300)
    assert draws["fc1/kernel"].std() == pytest.approx(np.sqrt(2 / (784 + 300)), rel=0.01)
    assert draws["fc1/kernel"].std() == pytest.approx(0.0430, rel=0.01)
    assert draws["fc2/kernel"].std() == pytest.approx(np.sqrt(2 / 600), rel=0.01)
    for path in ("fc1/kernel", "fc2/kernel"):
        # 5 sigma of the mean of 90000 draws; a normal that is cut off at two sigma of its own.
        assert abs(draws[path].mean()) < 5 * draws[path].std() / 300
        assert np.abs(draws[path]).max() < 2.3 * draws[path].std()


def test_draws_depend_on_path_and_seed_alone(keras):
    first, again = (prunable.draw_initial(lenet(keras), seed_of(1)) for _ in range(2))
    other = prunable.draw_initial(lenet(keras), seed_of(2))
    assert list(first) == of("fc1") + of("fc2") + of("fc3")
    for path, array in first.items():
        np.testing.assert_array_equal(array, again[path])
        if path.endswith("kernel"):
            assert (array != other[path]).mean() > 0.999
    assert (first["fc2/kernel"] != first["fc3/kernel"]).mean() > 0.999


def test_a_fixed_seed_of_the_layer_s_own_does_not_count(keras):
    model = lenet(keras)
    own = model.get_weights()[0]
    drawn = prunable.draw_initial(model, seed_of(1))["fc1/kernel"]
    assert (drawn != own).mean() > 0.999


def test_drawing_leaves_the_model_alone(keras):
    model = lenet(keras)
    before = model.get_weights()
    for array in prunable.draw_initial(model, seed_of(1)).values():
        array[...] = 7
    for array, other in zip(model.get_weights(), before):
        np.testing.assert_array_equal(array, other)


def test_biases_and_normalization_start_where_their_layers_start_them(keras):
    lstm = keras.Sequential([keras.layers.Input((5, 4)), keras.layers.LSTM(3, name="lstm")])
    for model in (lenet(keras), sequential(keras), lstm, attention(keras)):
        initial = {path: slot.variable.numpy() for path, slot in prunable.slots(model).items()}
        draws = prunable.draw_initial(model, seed_of(1))
        constant = [path for path in draws if path.endswith(("bias", "gamma", "beta"))]
        assert constant
        for path in constant:
            np.testing.assert_array_equal(draws[path], initial[path], err_msg=path)


def test_statistics_and_seed_generators_are_not_drawn(keras):
    draws = prunable.draw_initial(sequential(keras), seed_of(1))
    assert list(draws) == [path for path in NETWORKS[sequential][0] if "moving" not in path]


def test_the_forget_gate_of_an_lstm_starts_open_where_the_layer_says_so(keras):
    for is_open in (True, False):
        layer = keras.layers.LSTM(3, unit_forget_bias=is_open, name="lstm")
        model = keras.Sequential([keras.layers.Input((5, 4)), layer])
        bias = prunable.draw_initial(model, seed_of(1))["lstm/lstm_cell/bias"]
        assert bias.tolist() == [0, 0, 0, *[float(is_open)] * 3, 0, 0, 0, 0, 0, 0]


def test_recurrent_kernels_are_drawn_from_their_own_initializer(keras):
    model = keras.Sequential([keras.layers.Input((5, 4)), keras.layers.GRU(3, name="gru")])
    drawn = prunable.draw_initial(model, seed_of(1))["gru/gru_cell/recurrent_kernel"]
    np.testing.assert_allclose(drawn @ drawn.T, np.eye(3), atol=1e-5)  # orthogonal
    assert not np.allclose(drawn, model.get_weights()[1])


def test_embeddings_are_drawn_too(keras):
    model = attention(keras)
    drawn = prunable.draw_initial(model, seed_of(1))["embedding/embeddings"]
    own = prunable.slots(model)["embedding/embeddings"].variable.numpy()
    assert drawn.shape == own.shape and (drawn != own).all()


def test_frozen_layers_are_not_drawn(keras):
    assert list(prunable.draw_initial(frozen(keras), seed_of(1))) == of("head")


def test_draws_have_the_type_of_their_variable(keras):
    model = lenet(keras, dtype="float64")
    draws = prunable.draw_initial(model, seed_of(1))
    types = {path: array.dtype.name for path, array in draws.items()}
    assert types["fc1/kernel"] == "float32" and types["fc2/kernel"] == types["fc2/bias"] == "float64"


def test_wrapped_models_get_the_same_draws():
    from tf_lottery.keras_api import tfmot_wrappers

    model = sequential(flavour.keras_module("tf_keras"))
    plain = prunable.draw_initial(model, seed_of(1))
    wrapped = prunable.draw_initial(tfmot_wrappers.wrap(model), seed_of(1))
    assert list(plain) == list(wrapped)
    for path, array in plain.items():
        np.testing.assert_array_equal(array, wrapped[path])


def test_a_custom_layer_may_name_its_initializer_in_any_way_keras_knows(keras):
    ways = ["he_normal", keras.initializers.HeNormal(), keras.initializers.HeNormal(seed=3)]
    draws = [
        prunable.draw_initial(custom(keras, attributes={"kernel_initializer": way}), seed_of(1))[
            "mine/kernel"
        ]
        for way in ways
    ]
    for drawn in draws:
        np.testing.assert_array_equal(drawn, draws[0])
    assert draws[0].std() > 0.1


def test_a_custom_layer_without_an_initializer_is_refused(keras):
    with pytest.raises(
        ValueError, match="Cannot draw 'mine/table' anew: its layer Custom .*table_initializer"
    ):
        prunable.draw_initial(custom(keras, ["table"]), seed_of(1))
