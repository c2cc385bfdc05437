"""What is trained is the subnetwork and nothing else: zeros, gradients, optimizers."""

import by_hand
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.keras_api.masked_model import MaskedModel, apply_mask
from tf_lottery.training.loop import Loop

EMA = {"use_ema": True, "ema_momentum": 0.9}


def masked_after_training(make_model, optimizer, data, random_mask):
    """Returns a model that was trained dense and then masked, and its mask."""
    model = make_model(optimizer)
    model.fit(*data, epochs=1, verbose=0)
    mask = random_mask(MaskedModel(model).shapes)
    return apply_mask(model, mask), mask


def assert_trained_under(model, mask, before):
    """Asserts that every kernel moved since `before`, and that pruned weights are 0."""
    after = MaskedModel(model).kernels()
    for path, array in mask.items():
        assert (after[path][~array] == 0).all(), path
        assert not np.array_equal(after[path], before[path]), path


@pytest.mark.parametrize("name, arguments", [("Adam", {}), ("SGD", EMA), ("Muon", EMA)])
def test_the_user_s_own_fit_keeps_the_zeros(keras, make_model, data, random_mask, name, arguments):
    """Keras ends `fit` with the moving averages in the place of the weights."""
    if not hasattr(keras.optimizers, name):
        pytest.skip(f"this Keras has no {name}")
    optimizer = getattr(keras.optimizers, name)(0.01, **arguments)
    model, mask = masked_after_training(make_model, optimizer, data, random_mask)
    before = MaskedModel(model).kernels()
    model.fit(*data, epochs=2, verbose=0)
    assert_trained_under(model, mask, before)


def test_averages_of_a_wrapped_optimizer_keep_the_zeros(keras, make_model, data, random_mask):
    optimizer = keras.mixed_precision.LossScaleOptimizer(keras.optimizers.Adam(0.01, **EMA))
    model, mask = masked_after_training(make_model, optimizer, data, random_mask)
    before = MaskedModel(model).kernels()
    model.fit(*data, epochs=1, verbose=0)
    assert_trained_under(model, mask, before)


@pytest.mark.parametrize("keras", ["keras"], indirect=True)
def test_averages_are_evaluated_with_the_zeros(keras, make_model, data, random_mask):
    """Keras 3 can swap averages and weights for each evaluation."""
    model, mask = masked_after_training(make_model, keras.optimizers.Adam(0.01, **EMA), data, random_mask)
    seen = []
    look = keras.callbacks.LambdaCallback(on_test_begin=lambda logs: seen.append(model.get_weights()))
    callbacks = [keras.callbacks.SwapEMAWeights(), look]
    model.fit(*data, epochs=2, verbose=0, validation_data=data, callbacks=callbacks)
    assert len(seen) == 2
    for kernels in (weights[::2] for weights in seen):
        for kernel, array in zip(kernels, mask.values(), strict=True):
            assert (kernel[~array] == 0).all() and (kernel[array] != 0).all()


def test_train_on_batch_keeps_the_zeros(make_model, data, random_mask):
    model, mask = masked_after_training(make_model, None, data, random_mask)
    before = MaskedModel(model).kernels()
    for _ in range(3):
        model.train_on_batch(*data)
    assert_trained_under(model, mask, before)


@pytest.mark.parametrize("brand_new", [False, True])
def test_a_loop_of_the_user_s_own_keeps_the_zeros(keras, make_model, data, random_mask, brand_new):
    model, mask = masked_after_training(make_model, keras.optimizers.Adam(0.01), data, random_mask)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=0.1) if brand_new else model.optimizer
    before = MaskedModel(model).kernels()
    for _ in range(3):
        with tf.GradientTape() as tape:
            loss = model.loss(data[1], model(data[0], training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        assert np.any(gradients[0].numpy()[~mask["fc1/kernel"]])
        optimizer.apply_gradients(zip(gradients, model.trainable_variables))
        assert_trained_under(model, mask, before)


def test_survivors_are_those_of_the_subnetwork_under_a_new_compile(keras):
    model, mask = by_hand.masked(keras, keras.optimizers.Adam(0.01))
    optimizers = [keras.optimizers.SGD(0.1, momentum=0.9, global_clipnorm=0.1) for _ in range(2)]
    model.model.compile(optimizers[0], model.model.loss)
    reference = by_hand.Reference(keras, model.state(), mask, optimizers[1])
    start = by_hand.flat(reference.effective()).numpy()
    x, y = by_hand.batches("float32")
    trained = by_hand.trajectory(model.model, x, y)
    by_hand.assert_follows(trained, reference.trajectory(x, y)[1], reference.kept(), start)


def test_the_user_s_constraint_holds_too(keras, data, random_mask):
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_constraint=keras.constraints.NonNeg(), name="a"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    model.fit(*data, epochs=1, verbose=0)
    kernel = masked.state()["a/kernel"]
    assert (kernel >= 0).all() and (kernel > 0).any() and (kernel[~mask["a/kernel"]] == 0).all()


def test_the_optimizer_stays_what_it_was(keras, make_model):
    optimizer = keras.optimizers.Adam(0.02)
    model = make_model(optimizer)
    MaskedModel(model)
    assert model.optimizer is optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    assert type(keras.optimizers.Adam(0.02)) is keras.optimizers.Adam


def test_masking_twice_changes_nothing(make_model, random_mask):
    model = make_model()
    first = MaskedModel(model)
    mask = random_mask(first.shapes)
    first.set_mask(mask)
    second = MaskedModel(model)
    assert all(np.array_equal(second.mask()[path], mask[path]) for path in mask)


class Frozen(by_hand.Reference):
    """`w * m + c`: pruned weights are constants of the forward pass."""

    def __init__(self, keras, state, mask, optimizer):
        super().__init__(keras, state, mask, optimizer)
        self.constants = {p: tf.constant(v.numpy()) * (1 - self.mask[p]) for p, v in self.variables.items()}

    def effective(self):
        return [w + c for w, c in zip(super().effective(), self.constants.values())]


def frozen(keras, optimizer):
    """Returns `by_hand.network` with its pruned weights frozen, and its mask."""
    model = MaskedModel(by_hand.network(keras, optimizer))
    mask = by_hand.harsh_mask(model.shapes)
    model.set_mask(mask, frozen=True)
    return model, mask


def assert_follows_frozen(trained, expected, kept, start):
    assert (trained[:, ~kept] == start[~kept]).all() and start[~kept].all(), "frozen weights that moved"
    np.testing.assert_allclose(trained, expected, rtol=0, atol=1e-6)
    assert (np.abs(trained - start).max(0)[kept] > 1e-4).all(), "weights that never moved"


FREEZING = {
    "adam": ("Adam", {"learning_rate": 0.01}),
    "momentum, clipping": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "global_clipnorm": 0.1}),
    "adamw": ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "decay, averages": (
        "SGD",
        {"learning_rate": 0.1, "weight_decay": 0.2, **EMA, "ema_overwrite_frequency": 7, "clipnorm": 0.05},
    ),
}


@pytest.mark.parametrize("name", FREEZING)
def test_survivors_among_frozen_weights_are_those_of_the_network_with_constants(keras, name):
    class_name, arguments = FREEZING[name]
    optimizers = [getattr(keras.optimizers, class_name)(**arguments) for _ in range(2)]
    model, mask = frozen(keras, optimizers[0])
    reference = Frozen(keras, model.state(), mask, optimizers[1])
    start = by_hand.flat(model.model.trainable_variables).numpy()
    np.testing.assert_array_equal(by_hand.flat(reference.effective()).numpy(), start)
    x, y = (array[:20] for array in by_hand.batches("float32"))
    trained = by_hand.trajectory(model.model, x, y)
    gradients, expected = reference.trajectory(x, y)
    assert_follows_frozen(trained, expected, reference.kept(), start)
    if "global_clipnorm" in arguments:
        assert (np.linalg.norm(gradients, axis=1) > arguments["global_clipnorm"]).mean() > 0.5


def test_one_trace_trains_with_frozen_weights_and_with_zeros(keras):
    optimizers = [keras.optimizers.Adam(0.01) for _ in range(2)]
    model = MaskedModel(by_hand.network(keras, optimizers[0]))
    state, mask = model.state(), by_hand.harsh_mask(model.shapes)
    x, y = (array[:20] for array in by_hand.batches("float32"))
    examples, rows = (x.reshape(-1, 8), y.reshape(-1)), np.arange(y.size).reshape(y.shape)
    loop = Loop(model.model, examples, {}, batch_size=by_hand.BATCH, chunk=20, jit=True)
    reference = Frozen(keras, state, mask, optimizers[1])
    start = by_hand.flat(reference.effective()).numpy()
    kept, expected = reference.kept(), reference.trajectory(x, y)[1][-1:]
    for freezes in (False, True, False):
        model.restore(state)
        model.set_mask(mask, frozen=freezes)
        loop.train(rows)
        trained = by_hand.flat(model.model.trainable_variables).numpy()
        if freezes:
            assert_follows_frozen(trained[None], expected, kept, start)
        else:
            assert not trained[~kept].any() and (trained[kept] != start[kept]).all()
    assert loop.jit and loop.traces == 1


@pytest.mark.parametrize("name, arguments", [("Adam", {}), ("SGD", {**EMA, "weight_decay": 0.1})])
def test_the_user_s_own_fit_keeps_frozen_weights(keras, make_model, data, random_mask, name, arguments):
    masked = MaskedModel(make_model(getattr(keras.optimizers, name)(0.01, **arguments)))
    masked.model.fit(*data, epochs=1, verbose=0)  # moments that would go on moving what is then frozen
    mask, before = random_mask(masked.shapes), masked.kernels()
    masked.set_mask(mask, frozen=True)
    masked.model.fit(*data, epochs=2, verbose=0)
    for path, kernel in masked.kernels().items():
        np.testing.assert_array_equal(kernel[~mask[path]], before[path][~mask[path]])
        assert (kernel[mask[path]] != before[path][mask[path]]).mean() > 0.9
    masked.set_mask(mask)
    before = masked.kernels()
    masked.model.fit(*data, epochs=1, verbose=0)
    assert_trained_under(masked.model, mask, before)


@pytest.mark.parametrize("keras", ["keras"], indirect=True)
def test_averages_are_evaluated_with_frozen_weights(keras, make_model, data, random_mask):
    masked = MaskedModel(make_model(keras.optimizers.Adam(0.01, **EMA)))
    mask, before, seen = random_mask(masked.shapes), masked.kernels(), []
    masked.set_mask(mask, frozen=True)
    look = keras.callbacks.LambdaCallback(on_test_begin=lambda logs: seen.append(masked.kernels()))
    callbacks = [keras.callbacks.SwapEMAWeights(), look]
    masked.model.fit(*data, epochs=2, verbose=0, validation_data=data, callbacks=callbacks)
    assert len(seen) == 2
    for kernels in (*seen, masked.kernels()):
        for path, kernel in kernels.items():
            np.testing.assert_array_equal(kernel[~mask[path]], before[path][~mask[path]])


def test_the_user_s_constraint_leaves_frozen_weights_alone(keras, data, random_mask):
    hidden = keras.layers.Dense(16, "relu", kernel_constraint=keras.constraints.NonNeg(), name="a")
    model = keras.Sequential([keras.layers.Input((8,)), hidden, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    masked = MaskedModel(model)
    mask, before = random_mask(masked.shapes), masked.kernels()["a/kernel"]
    masked.set_mask(mask, frozen=True)
    model.fit(*data, epochs=1, verbose=0)
    kernel, kept = masked.kernels()["a/kernel"], mask["a/kernel"]
    assert (kernel[kept] >= 0).all() and (before[~kept] < 0).any()
    np.testing.assert_array_equal(kernel[~kept], before[~kept])
