"""What is trained is the network with `w * m` in its forward pass, under every optimizer and setting.

In float64, so that no rounding decides the sign of an update.
"""

import by_hand
import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.training.loop import Loop

# name -> class, arguments; the learning rates are such that every weight moves
OPTIMIZERS = {
    "sgd": ("SGD", {"learning_rate": 0.1}),
    "momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "nesterov": ("SGD", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": ("Adam", {"learning_rate": 0.01}),
    "adamw": ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adamax": ("Adamax", {"learning_rate": 0.01}),
    "nadam": ("Nadam", {"learning_rate": 0.01}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9, "centered": True}),
    "adagrad": ("Adagrad", {"learning_rate": 0.1}),
    "adadelta": ("Adadelta", {"learning_rate": 10.0}),
    "adafactor": ("Adafactor", {"learning_rate": 0.05, "epsilon_1": 1e-16}),
    "ftrl": ("Ftrl", {"learning_rate": 0.1, "initial_accumulator_value": 1e-6}),
    "lion": ("Lion", {"learning_rate": 0.003}),
    "lamb": ("Lamb", {"learning_rate": 0.01}),
    "muon": ("Muon", {"learning_rate": 0.01}),
    "schedule_free": ("ScheduleFreeAdamW", {"learning_rate": 0.01}),
}
KERAS_3_ONLY = ("lamb", "muon", "schedule_free")
DECAY = {"weight_decay": 0.2}
EMA = {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 7}
SETTINGS = {
    "plain": {},
    "clipnorm, decay": {"clipnorm": 0.05, **DECAY},
    "global_clipnorm, ema": {"global_clipnorm": 0.1, **EMA},
    "clipvalue, decay, ema": {"clipvalue": 0.01, **DECAY, **EMA},
}
CASES = [
    pytest.param(flavour, optimizer, setting, id=f"{flavour}-{optimizer}-{setting}")
    for flavour in ("keras", "tf_keras")
    for optimizer in OPTIMIZERS
    for setting in SETTINGS
    if flavour == "keras" or optimizer not in KERAS_3_ONLY
]
only_keras_3 = pytest.mark.parametrize("keras", ["keras"], indirect=True)


@pytest.fixture
def float64(keras):
    """Makes variables float64. TensorFlow optimizes no graph, which takes longer than to run it."""
    options = tf.config.optimizer.get_experimental_options()
    _set_float(keras, "float64")
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False, **options})
    _set_float(keras, "float32")


def _set_float(keras, name):
    keras.backend.set_floatx(name)
    keras.mixed_precision.set_global_policy(name)  # Keras 3 keeps the one that it had before


def optimizer_of(keras, name, **arguments):
    class_name, own = OPTIMIZERS[name]
    if name in KERAS_3_ONLY and not hasattr(keras.optimizers, class_name):
        pytest.skip(f"this Keras has no {class_name}")
    return getattr(keras.optimizers, class_name)(**{**own, **arguments})


def share_clipped(gradients, setting):
    """Returns the share of steps at which a clipping bites, by the gradients that came to it."""
    norms = [np.linalg.norm(part, axis=1) for part in np.split(gradients, [48, 54], axis=1)]
    sizes = {
        "clipnorm": np.max(norms, axis=0),
        "global_clipnorm": np.linalg.norm(gradients, axis=1),
        "clipvalue": np.abs(gradients).max(axis=1),
    }
    name = next(name for name in setting if name in sizes)
    return (sizes[name] > setting[name]).mean()


@pytest.mark.parametrize("keras, optimizer, setting", CASES, indirect=["keras"])
def test_survivors_follow_the_network_with_the_mask_in_its_forward_pass(keras, float64, optimizer, setting):
    setting = SETTINGS[setting]
    _, gradients = by_hand.followed(keras, *(optimizer_of(keras, optimizer, **setting) for _ in range(2)))
    assert not setting or share_clipped(gradients, setting) > 0.5


def test_every_part_of_the_settings_changes_what_is_trained(keras, float64):
    parts = [{"clipnorm": 0.05}, {"global_clipnorm": 0.1}, {"clipvalue": 0.01}, DECAY, EMA]
    x, y = by_hand.batches()
    plain, *others = (
        by_hand.trajectory(by_hand.masked(keras, optimizer_of(keras, "adam", **part))[0].model, x, y)
        for part in ({}, *parts)
    )
    for part, other in zip(parts, others):
        assert np.abs(other - plain).max() > 1e-3, part


@pytest.mark.parametrize("optimizer", ["momentum", "lamb", "muon"])
@only_keras_3
def test_accumulated_gradients_are_those_of_the_subnetwork(keras, float64, optimizer):
    arguments = {"gradient_accumulation_steps": 3, "global_clipnorm": 0.1}
    trained, _ = by_hand.followed(keras, *(optimizer_of(keras, optimizer, **arguments) for _ in range(2)))
    moved = (np.diff(trained, axis=0) != 0).any(axis=1)
    assert moved[1::3].all() and not moved[::3].any() and not moved[2::3].any()


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
def test_learning_rate_schedules_are_followed(keras, float64, optimizer):
    def one():
        rate = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.2, staircase=True)
        return optimizer_of(keras, optimizer, learning_rate=rate, global_clipnorm=0.1)

    trained, _ = by_hand.followed(keras, one(), one())
    moves = np.abs(np.diff(trained, axis=0)).max(axis=1)
    assert moves[40:].max() < 0.1 * moves[:9].max()


def test_a_scaled_loss_is_trained_as_an_unscaled_one(keras, float64):
    """Powers of two scale without rounding, so the reference has the bare optimizer and the bare loss."""
    inner, bare = (optimizer_of(keras, "adam", global_clipnorm=0.1) for _ in range(2))
    # The scale doubles on the way.
    scaled = keras.mixed_precision.LossScaleOptimizer(inner, initial_scale=2.0**10, dynamic_growth_steps=20)
    _, gradients = by_hand.followed(keras, scaled, bare)
    assert share_clipped(gradients, {"global_clipnorm": 0.1}) > 0.5
    scale = scaled.dynamic_scale if hasattr(scaled, "dynamic_scale") else scaled.loss_scale
    assert float(scale) == 2.0**12


@only_keras_3
def test_an_optimizer_s_own_loss_scale_is_taken_off_before_it_clips(keras, float64):
    scaled = optimizer_of(keras, "adam", global_clipnorm=0.1, loss_scale_factor=1024.0)
    by_hand.followed(keras, scaled, optimizer_of(keras, "adam", global_clipnorm=0.1))


@only_keras_3
def test_each_optimizer_of_a_multi_optimizer_trains_the_subnetwork(keras, float64):
    if not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")

    def one():
        of_layers = keras.optimizers.OptimizerMap(optimizer_of(keras, "adam", clipnorm=0.05))
        of_layers[".*fc1/.*"] = optimizer_of(keras, "muon", global_clipnorm=0.1, **EMA)
        return keras.optimizers.MultiOptimizer(of_layers)

    optimizer = one()
    by_hand.followed(keras, optimizer, one())
    assert [type(part).__name__ for part in optimizer.optimizers] == ["Muon", "Adam"]


@pytest.mark.parametrize(
    "optimizer, arguments",
    [("adam", {"global_clipnorm": 0.1}), ("momentum", {"clipnorm": 0.05, **DECAY, **EMA})],
)
def test_the_compiled_loop_trains_the_same_in_float32(keras, optimizer, arguments):
    model, mask = by_hand.masked(keras, optimizer_of(keras, optimizer, **arguments))
    reference = by_hand.Reference(keras, model.state(), mask, optimizer_of(keras, optimizer, **arguments))
    start = by_hand.flat(reference.effective()).numpy()
    x, y = by_hand.batches("float32")
    rows = np.arange(x.shape[0] * by_hand.BATCH).reshape(-1, by_hand.BATCH)
    examples = x.reshape(-1, 8), y.reshape(-1)
    loop = Loop(model.model, examples, {}, batch_size=by_hand.BATCH, chunk=5, jit=True)
    trained = []
    for first in range(0, len(rows), loop.chunk):
        loop.train(rows[first : first + loop.chunk])
        trained.append(by_hand.flat(model.model.trainable_variables).numpy())
    assert loop.jit
    _, expected = reference.trajectory(x, y)
    by_hand.assert_follows(
        np.stack(trained), expected[loop.chunk - 1 :: loop.chunk], reference.kept(), start, atol=2e-6
    )
