"""find_ticket on the models that people have: each is searched, and stays the ticket in its own `fit`."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training import loop

EXAMPLES = 24
SMALL = {"steps": 4, "eval_every": 2, "batch_size": 8, "levels": 1, "prune_fraction": 0.5, "verbose": 0}
MODELS = {}


def model_of(*flavours):
    """Registers a function that makes a compiled model, and its x and y."""

    def register(make):
        MODELS[make.__name__] = make, flavours or ("tf_keras", "keras")
        return make

    return register


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=(EXAMPLES, *shape)).astype(np.float32)


def integers(below, *shape, seed=1):
    return np.random.default_rng(seed).integers(0, below, (EXAMPLES, *shape)).astype(np.int32)


def classifier(keras, shape, *layers, optimizer="adam", dtype=None):
    """A Sequential of `layers` with a head of three classes on random data."""
    model = keras.Sequential(
        [
            keras.layers.Input(shape, dtype=dtype),
            *layers,
            keras.layers.Flatten(),
            keras.layers.Dense(3, name="head"),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    x = integers(11, *shape) if dtype else numbers(*shape)
    return model, x, integers(3)


@model_of()
def regression(keras):
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(1)])
    model.compile("adam", "mse", metrics=["mae"])
    return model, numbers(4), numbers(1, seed=1)


@model_of()
def several_inputs_outputs_and_losses(keras):
    image, number = keras.layers.Input((5,), name="image"), keras.layers.Input((2,), name="number")
    joined = keras.layers.Concatenate()([keras.layers.Dense(4, "relu", name="left")(image), number])
    outputs = {
        "kind": keras.layers.Dense(3, name="kind")(joined),
        "size": keras.layers.Dense(1, name="size")(joined),
    }
    model = keras.Model({"image": image, "number": number}, outputs)
    losses = {"kind": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
    model.compile("adam", losses, loss_weights={"kind": 1.0, "size": 0.5}, metrics={"kind": ["accuracy"]})
    y = {"kind": integers(3), "size": numbers(1, seed=3)}
    return model, {"image": numbers(5), "number": numbers(2, seed=2)}, y


@model_of()
def lists_of_inputs_and_outputs(keras):
    inputs = [keras.layers.Input((3,)), keras.layers.Input((2,))]
    joined = keras.layers.Concatenate()(inputs)
    model = keras.Model(inputs, [keras.layers.Dense(2)(joined), keras.layers.Dense(1)(joined)])
    model.compile("adam", ["mse", "mse"])
    return model, [numbers(3), numbers(2, seed=1)], [numbers(2, seed=2), numbers(1, seed=3)]


@model_of()
def shared_and_nested(keras):
    inner = keras.Sequential(
        [keras.layers.Input((6,)), keras.layers.Dense(6, "relu", name="fc")], name="inner"
    )
    inputs, twice = keras.layers.Input((6,)), keras.layers.Dense(6, "tanh", name="twice")
    outputs = keras.layers.Dense(3, name="head")(inner(twice(inner(twice(inputs)))))
    model = keras.Model(inputs, outputs)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, numbers(6), integers(3)


@model_of()
def subclassed(keras):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.hidden = keras.layers.Dense(6, "relu", name="hidden")
            self.blocks = [keras.layers.Dense(6, "relu", name=f"block{i}") for i in range(2)]
            self.drop = keras.layers.Dropout(0.2)
            self.head = keras.layers.Dense(3, name="head")

        def call(self, x, training=False):
            x = self.hidden(x)
            for block in self.blocks:
                x = self.drop(block(x), training=training)
            return self.head(x)

    model = Own()
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model(numbers(4)[:1])
    return model, numbers(4), integers(3)


@model_of()
def own_train_step(keras):
    import tensorflow as tf

    class Own(keras.Model):
        def train_step(self, data):
            x, y = data
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean(tf.square(self(x, training=True) - y))
            variables = self.trainable_variables
            self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
            return {"loss": loss, "twice": 2 * loss}

    inputs = keras.layers.Input((4,))
    model = Own(inputs, keras.layers.Dense(1, name="head")(keras.layers.Dense(6, "relu")(inputs)))
    model.compile("adam", "mse")
    return model, numbers(4), numbers(1, seed=1)


@model_of("keras")
def own_compute_loss(keras):
    class Own(keras.Model):
        def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
            return keras.ops.mean(keras.ops.abs(y - y_pred))

    inputs = keras.layers.Input((4,))
    model = Own(inputs, keras.layers.Dense(1, name="head")(keras.layers.Dense(6, "relu")(inputs)))
    model.compile("adam")
    return model, numbers(4), numbers(1, seed=1)


@model_of()
def added_loss(keras):
    import tensorflow as tf

    class Restores(keras.layers.Layer):
        def call(self, inputs):
            x, restored = inputs
            self.add_loss(tf.reduce_mean((x - restored) ** 2))
            return restored

    inputs = keras.layers.Input((4,))
    restored = keras.layers.Dense(4, name="decode")(keras.layers.Dense(6, "relu", name="encode")(inputs))
    model = keras.Model(inputs, Restores()([inputs, restored]))
    model.compile("adam")
    return model, numbers(4), None


@model_of()
def convolutions(keras):
    layers = keras.layers
    return classifier(
        keras,
        (6, 6, 2),
        layers.Conv2D(3, 2, use_bias=False),
        layers.BatchNormalization(),
        layers.Conv2DTranspose(3, 2),
        layers.DepthwiseConv2D(2),
        layers.SeparableConv2D(4, 2),
        layers.GroupNormalization(2),
    )


@model_of()
def convolutions_in_one_and_three_dimensions(keras):
    layers = keras.layers
    return classifier(
        keras,
        (4, 4, 4, 1),
        layers.Conv3D(2, 2),
        layers.Conv3DTranspose(2, 2),
        layers.Reshape((16, 8)),
        layers.Conv1D(3, 2),
        layers.SeparableConv1D(3, 2),
        layers.DepthwiseConv1D(2),
        layers.Conv1DTranspose(2, 2),
    )


@model_of()
def einsum(keras):
    dense = keras.layers.EinsumDense("abc,cde->abde", output_shape=(4, 2, 3), bias_axes="de", name="einsum")
    norm = keras.layers.LayerNormalization(axis=[2, 3])
    return classifier(keras, (4, 3), dense, norm, keras.layers.Flatten(), keras.layers.PReLU())


@model_of()
def recurrent(keras):
    layers = keras.layers
    return classifier(
        keras,
        (5, 4),
        layers.Bidirectional(layers.LSTM(3, return_sequences=True, dropout=0.1)),
        layers.TimeDistributed(layers.Dense(3, "relu")),
        layers.GRU(2),
    )


@model_of()
def attention(keras):
    tokens = keras.layers.Input((5,), dtype="int32")
    x = keras.layers.Embedding(11, 6, name="embedding")(tokens)
    x = keras.layers.MultiHeadAttention(2, 3, dropout=0.1, name="attention")(x, x)
    x = keras.layers.LayerNormalization()(x)
    outputs = keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling1D()(x))
    model = keras.Model(tokens, outputs)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, integers(11, 5), integers(3)


@model_of()
def masked_sequences(keras):
    layers = keras.layers
    return classifier(keras, (5,), layers.Embedding(11, 4, mask_zero=True), layers.LSTM(3), dtype="int32")


@model_of()
def own_layer(keras):
    class Bilinear(keras.layers.Layer):
        def build(self, shape):
            self.left = self.add_weight(shape=(shape[-1], 3), initializer="glorot_uniform", name="left")
            self.right = self.add_weight(shape=(shape[-1], 3), initializer="glorot_uniform", name="right")
            self.scale = self.add_weight(shape=(3,), initializer="ones", name="scale")

        def call(self, x):
            return (x @ self.left) * (x @ self.right) * self.scale

    return classifier(keras, (4,), Bilinear(name="bilinear"))


@model_of()
def constraints_and_regularizers(keras):
    dense = keras.layers.Dense(
        6, "relu", kernel_constraint=keras.constraints.MaxNorm(0.5), kernel_regularizer="l2"
    )
    return classifier(keras, (4,), dense)


@model_of()
def bfloat16(keras):
    return classifier(keras, (4,), keras.layers.Dense(6, "relu", dtype="mixed_bfloat16"))


@model_of()
def float16_with_loss_scaling(keras):
    if keras.__name__ == "keras":
        optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    else:
        optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    dense = keras.layers.Dense(6, "relu", dtype="mixed_float16")
    return classifier(keras, (4,), dense, optimizer=optimizer)


@model_of()
def schedule_and_averages(keras):
    rate = keras.optimizers.schedules.CosineDecay(0.01, 4)
    optimizer = keras.optimizers.AdamW(rate, use_ema=True, ema_overwrite_frequency=2, global_clipnorm=1.0)
    return classifier(keras, (4,), keras.layers.Dense(6, "relu"), optimizer=optimizer)


@model_of("keras")
def gradient_accumulation(keras):
    optimizer = keras.optimizers.Adam(0.01, gradient_accumulation_steps=2)
    return classifier(keras, (4,), keras.layers.Dense(6, "relu"), optimizer=optimizer)


@model_of("tf_keras")
def wrapped_by_tfmot(keras):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    model, x, y = classifier(keras, (4,), keras.layers.Dense(6, "relu"), keras.layers.Dense(5, "relu"))
    schedule = sparsity.PolynomialDecay(0.1, 0.9, 0, 4)
    wrapped = sparsity.prune_low_magnitude(model, pruning_schedule=schedule)
    wrapped.compile(
        "adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    return wrapped, x, y


@model_of("tf_keras")
def tfmot_prunable_layer(keras):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    class Scaled(keras.layers.Dense, sparsity.PrunableLayer):
        def get_prunable_weights(self):
            return [self.kernel]

    return classifier(keras, (4,), Scaled(6, "relu", name="scaled"))


@model_of()
def an_application(keras):
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=3, classifier_activation=None
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model, numbers(32, 32, 3), integers(3)


@model_of("keras")
def a_keras_hub_transformer(keras):
    hub = pytest.importorskip("keras_hub")
    backbone = hub.models.BertBackbone(
        vocabulary_size=11, num_layers=1, num_heads=2, hidden_dim=4, intermediate_dim=8, max_sequence_length=5
    )
    pooled = backbone.output["pooled_output"]
    model = keras.Model(backbone.input, keras.layers.Dense(3, name="head")(pooled))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    x = {"token_ids": integers(11, 5), "segment_ids": integers(2, 5), "padding_mask": integers(2, 5) * 0 + 1}
    return model, x, integers(3)


CASES = [(name, flavour) for name, (_, flavours) in MODELS.items() for flavour in flavours]


@pytest.fixture
def built(request, no_xla):
    from tf_lottery.keras_api import flavour

    name, keras = request.param
    keras = flavour.keras_module(keras)
    keras.utils.set_random_seed(0)
    return MODELS[name][0](keras)


@pytest.mark.parametrize("built", CASES, indirect=True, ids=" ".join)
def test_a_search_leaves_the_model_as_a_ticket_that_holds(built):
    model, x, y = built
    masked = MaskedModel(model)
    before = masked.fresh_state
    assert_drawn_anew(masked)
    ticket = tf_lottery.find_ticket(model, x, y, **SMALL)
    assert [row["level"] for row in ticket.history] == [0, 1]
    kernels = masked.kernels()
    assert kernels.keys() == ticket.mask.keys()
    for path, mask in ticket.mask.items():
        np.testing.assert_array_equal(kernels[path], np.where(mask, before[path], 0), err_msg=path)
    assert 0.4 < ticket.density < 0.75
    model.fit(x, y, batch_size=8, epochs=3, verbose=0)
    moved = 0
    for path, kernel in masked.kernels().items():
        assert (kernel[~ticket.mask[path]] == 0).all(), path
        moved += np.count_nonzero(kernel != kernels[path])
    assert moved > 0.3 * sum(mask.sum() for mask in ticket.mask.values())


def assert_drawn_anew(masked):
    if "bilinear/left" in masked.shapes:
        with pytest.raises(ValueError, match="Cannot draw 'bilinear/left' anew: .* no attribute left_init"):
            masked.draw_initial(lambda path: 0)
        return
    drawn = masked.draw_initial(lambda path: len(path))
    for path in masked.shapes:
        assert not np.array_equal(drawn[path], masked.fresh_state[path]), path
        if drawn[path].size > 50:
            assert 0.5 < np.std(drawn[path]) / np.std(masked.fresh_state[path]) < 2, path
    masked.restore(masked.fresh_state)


def searched(keras, name, **arguments):
    keras.utils.set_random_seed(0)
    model, x, y = MODELS[name][0](keras)
    return model, tf_lottery.find_ticket(model, x, y, **{**SMALL, **arguments})


def test_frozen_layers_are_left_alone(keras, no_xla):
    fixed = keras.layers.Dense(4, "relu", trainable=False, name="fixed")
    inner = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(4, name="fc")], name="pretrained")
    inner.trainable = False
    model, x, y = classifier(keras, (4,), fixed, inner)
    before = [fixed.get_weights(), inner.get_weights()]
    ticket = tf_lottery.find_ticket(model, x, y, **SMALL, controls=["reinit"])
    assert list(ticket.mask) == ["head/kernel"]
    for weights, layer in zip(before, (fixed, inner)):
        for one, other in zip(weights, layer.get_weights()):
            np.testing.assert_array_equal(one, other)


def test_an_embedding_is_pruned_where_it_is_asked_for(keras, no_xla):
    _, ticket = searched(keras, "attention")
    assert "embedding/embeddings" not in ticket.mask
    model, ticket = searched(keras, "attention", layer_fractions={"embedding": 0.25})
    assert np.count_nonzero(ticket.mask["embedding/embeddings"]) == 66 - round(0.25 * 66)
    # The ticket knows of it on another model too.
    other, x, y = MODELS["attention"][0](keras)
    ticket.apply(other)
    other.fit(x, y, verbose=0)
    weights = MaskedModel(other, asked=["embedding"]).kernels()["embedding/embeddings"]
    assert (weights[~ticket.mask["embedding/embeddings"]] == 0).all() and weights.any()


def test_regression_is_judged_by_validation_loss_and_its_metrics_are_reported(keras, no_xla, capsys):
    _, ticket = searched(keras, "regression", verbose=1)
    shown = capsys.readouterr().out
    assert "validation loss" in shown and "validation mae" in shown
    row = ticket.history[1]
    assert np.isnan(row["final_validation_accuracy"])
    assert row["metrics"]["validation/loss"] == row["min_validation_loss"]
    assert row["metrics"]["validation/mae"] > 0
    assert "validation loss" in ticket.verdict


def test_what_a_train_step_of_one_s_own_returns_is_what_is_logged(keras, no_xla):
    model, x, y = MODELS["own_train_step"][0](keras)
    trained = loop.Loop(MaskedModel(model).model, (x, y), {"validation": (x, y)}, batch_size=24, chunk=2)
    before = float(np.mean((model.predict(x, verbose=0) - y) ** 2))
    logs = trained.train(trained.order(0).batches(0, 1))
    assert logs == {"loss": pytest.approx(before, rel=1e-5), "twice": pytest.approx(2 * before, rel=1e-5)}


def test_both_constraints_hold(keras, no_xla):
    model, ticket = searched(keras, "constraints_and_regularizers")
    path = next(iter(ticket.mask))
    x, y = MODELS["constraints_and_regularizers"][0](keras)[1:]
    model.fit(x, y, epochs=5, verbose=0)
    kernel = MaskedModel(model).kernels()[path]
    assert (np.linalg.norm(kernel, axis=0) < 0.5001).all() and (kernel[~ticket.mask[path]] == 0).all()


def test_dropout_is_rewound_too(keras, no_xla):
    """Two trainings from one state are equal bit for bit, though they draw at random."""
    model, x, y = classifier(keras, (4,), keras.layers.Dense(6, "relu"), keras.layers.Dropout(0.5))
    masked = MaskedModel(model)
    runs = loop.Loop(model, (x, y), {}, batch_size=8, chunk=6)
    finals = []
    for _ in range(2):
        masked.restore(masked.fresh_state)
        runs.train(runs.order(0).batches(0, 6))
        finals.append(masked.state())
    for path, array in finals[0].items():
        np.testing.assert_array_equal(finals[1][path], array, err_msg=path)
    moved = [path for path in finals[0] if path.endswith("seed_generator_state")]
    assert moved and all((finals[0][path] != masked.fresh_state[path]).any() for path in moved)


def test_a_search_on_a_ticket_prunes_it_further(keras, no_xla):
    model, first = searched(keras, "regression")
    x, y = MODELS["regression"][0](keras)[1:]
    second = tf_lottery.find_ticket(model, x, y, **SMALL)
    assert second.density < first.density
    assert all((second.mask[path] <= first.mask[path]).all() for path in first.mask)


def test_xla_gives_way_where_it_cannot_compile_a_train_step(keras):
    import tensorflow as tf

    class Prints(keras.Model):
        def train_step(self, data):
            seen = tf.py_function(lambda: np.float32(1), [], tf.float32)
            return {**super().train_step(data), "seen": seen}

    inputs = keras.layers.Input((4,))
    model = Prints(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", "mse")
    compiled = loop.Loop(MaskedModel(model).model, (numbers(4), numbers(1)), {}, batch_size=8, chunk=2)
    assert compiled.jit
    logs = compiled.train(compiled.order(0).batches(0, 2))
    assert logs["seen"] == 1 and not compiled.jit
    assert int(np.asarray(model.optimizer.iterations)) == 2


def test_a_second_optimizer_of_its_own_is_refused(keras):
    class Own(keras.Model):
        def add_optimizer(self):
            self.second = keras.optimizers.SGD()

    inputs = keras.layers.Input((4,))
    model = Own(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", "mse")
    model.add_optimizer()
    with pytest.raises(
        ValueError, match="an optimizer of its own, 'second', which a search could not rewind"
    ):
        tf_lottery.find_ticket(model, numbers(4), numbers(1), **SMALL)


def test_acceleration_is_no_accuracy(keras, no_xla):
    inputs = keras.layers.Input((4,))
    outputs = {name: keras.layers.Dense(1, name=name)(inputs) for name in ("acceleration", "speed")}
    model = keras.Model(inputs, outputs)
    model.compile("adam", {"acceleration": "mse", "speed": "mse"})
    y = {"acceleration": numbers(1, seed=1), "speed": numbers(1, seed=2)}
    ticket = tf_lottery.find_ticket(model, numbers(4), y, **SMALL)
    assert "validation loss" in ticket.verdict and np.isnan(ticket.history[0]["final_validation_accuracy"])


def test_a_model_that_was_fitted_before_starts_with_a_fresh_optimizer(keras, no_xla):
    model, x, y = MODELS["regression"][0](keras)
    model.fit(x, y, batch_size=8, verbose=0)
    tf_lottery.find_ticket(model, x, y, **SMALL)
    assert int(np.asarray(model.optimizer.iterations)) == 0


def test_run_eagerly_runs_eagerly(keras):
    class Looks(keras.Model):
        def train_step(self, data):
            assert np.isfinite(data[0].numpy()).all()  # which no graph has
            return super().train_step(data)

    inputs = keras.layers.Input((4,))
    model = Looks(inputs, keras.layers.Dense(1)(inputs))
    model.compile("adam", "mse", run_eagerly=True)
    ticket = tf_lottery.find_ticket(model, numbers(4), numbers(1), **SMALL)
    assert len(ticket.history) == 2
    assert int(np.asarray(model.optimizer.iterations)) == 0


def test_averages_are_put_in_place_at_the_end_as_fit_does(keras, no_xla):
    finals = []
    for own in (True, False):
        model = keras.Sequential(
            [
                keras.layers.Input((4,)),
                keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotNormal(seed=1)),
            ]
        )
        model.compile(keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5), "mse")
        x, y = numbers(4), numbers(1, seed=1)
        if own:
            model.fit(x, y, batch_size=24, epochs=3, verbose=0)
        else:
            masked = MaskedModel(model)
            runs = loop.Loop(model, (x, y), {}, batch_size=24, chunk=3)
            runs.train(runs.order(0).batches(0, 3))
            masked.finalize()
        finals.append(model.get_weights()[0])
    np.testing.assert_allclose(finals[0], finals[1], rtol=0, atol=1e-6)


def test_a_mask_on_an_embedding_does_not_outlive_another_ticket(keras):
    model, _, _ = MODELS["attention"][0](keras)
    masked = MaskedModel(model, asked=["embedding"])
    masked.set_mask({path: np.zeros(shape, bool) for path, shape in masked.shapes.items()})
    other = MaskedModel(MODELS["attention"][0](keras)[0])
    ticket = tf_lottery.Ticket(other.mask(), other.fresh_state, level=0)
    ticket.apply(model)
    assert all(array.all() for array in MaskedModel(model).mask().values())
