"""From a config to a model: optimizer, schedule, augmentation and what is known to Keras's files."""

import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.experiments import learning_rates, models
from tf_lottery.experiments.config import ExperimentConfig, NetworkConfig, TrainConfig
from tf_lottery.experiments.datasets import Data
from tf_lottery.keras_api.flavour import PRECISIONS
from tf_lottery.keras_api.masked_model import network_weights
from tf_lottery.training.loop import Loop

RNG = np.random.default_rng(0)
EXAMPLES = RNG.normal(size=(24, 6, 6, 1)).astype(np.float32), np.arange(24, dtype=np.int32) % 3
DATA = Data(EXAMPLES, EXAMPLES, EXAMPLES, classes=3)


def build(keras, network="mlp:4", initializer="glorot_normal", seed=0, **train):
    config = ExperimentConfig(
        network=NetworkConfig(name=network, initializer=initializer),
        train=TrainConfig(**train),
        flavour=keras.__name__,
        seed=seed,
    )
    return models.build(config, DATA)


def loop_of(masked):
    return Loop(masked.model, EXAMPLES, {"test": EXAMPLES}, batch_size=8, chunk=4, jit=False)


def optimizer(keras, **train):
    return models.optimizer(TrainConfig(**train), keras)


def test_defaults_are_a_plain_adam(keras):
    made = optimizer(keras)
    assert type(made) is keras.optimizers.Adam
    plain = keras.optimizers.Adam(learning_rate=1.2e-3, name=made.name)
    assert made.get_config() == plain.get_config()
    masked = build(keras)
    assert "augment/seed_generator_state" not in masked.state() and not masked.model.losses


def test_sgd_with_momentum(keras):
    made = optimizer(keras, optimizer="sgd", learning_rate=0.1, momentum=0.9)
    assert type(made) is keras.optimizers.SGD and made.momentum == 0.9 and not made.nesterov
    assert optimizer(keras, optimizer="sgd").momentum == 0


def test_unknown_optimizer(keras):
    with pytest.raises(ValueError, match="Unknown optimizer 'adamm'. Did you mean 'adam'"):
        optimizer(keras, optimizer="adamm")


def test_warm_up_rises_by_equal_steps_and_decays_hold_from_their_own_step(keras):
    rate = learning_rates.warmup_and_decay(keras)(0.1, warmup_steps=20)
    # OpenLTH's golden values.
    np.testing.assert_allclose([rate(i) for i in range(20)], [i / 20 * 0.1 for i in range(20)], rtol=1e-6)
    np.testing.assert_allclose([rate(20), rate(21), rate(10**6)], 0.1, rtol=1e-6)
    rate = learning_rates.warmup_and_decay(keras)(0.1, decay_steps=(80, 120))
    np.testing.assert_allclose(
        [rate(i) for i in (0, 79, 80, 119, 120, 5000)], [0.1, 0.1, 0.01, 0.01, 0.001, 0.001], rtol=1e-6
    )
    both = learning_rates.warmup_and_decay(keras)(1.0, warmup_steps=10, decay_steps=[5], decay_factor=0.5)
    np.testing.assert_allclose([both(i) for i in (4, 5, 10)], [0.4, 0.25, 0.5], rtol=1e-6)
    again = type(both).from_config(both.get_config())
    assert again.get_config() == both.get_config()


def test_the_optimizer_counts_its_steps_from_0(keras):
    """A gradient of 1 makes plain SGD move by the rate."""
    made = optimizer(
        keras, optimizer="sgd", learning_rate=0.5, warmup_steps=2, decay_steps=(3,), decay_factor=0.25
    )
    variable = getattr(keras, "Variable", tf.Variable)(np.zeros(2, np.float32))
    values = [np.array(variable)]
    for _ in range(5):
        made.apply_gradients([(tf.ones(2), variable)])
        values.append(np.array(variable))
    np.testing.assert_allclose(-np.diff(values, axis=0)[:, 0], [0, 0.25, 0.5, 0.125, 0.125], rtol=1e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_with_everything_goes_on_from_a_snapshot_bit_for_bit(keras, precision, random_mask):
    masked = build(
        keras,
        "conv_2",
        "he_normal",
        optimizer="sgd",
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=1e-3,
        warmup_steps=3,
        decay_steps=(5,),
        augment="crop_flip",
        label_smoothing=0.1,
        precision=precision,
    )
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    loop = loop_of(masked)
    order = loop.order(1)
    loop.train(order.batches(0, 4))
    snapshot = masked.state()
    loop.train(order.batches(4, 4))
    end = masked.state()
    masked.restore(snapshot)
    loop.train(order.batches(4, 4))
    assert loop.traces == 1
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, end[path], err_msg=path)
    assert not np.array_equal(end["conv1/kernel"], snapshot["conv1/kernel"])
    for path, kept in mask.items():
        assert end[path].dtype == np.float32 and not end[path][~kept].any()
        assert end[path][kept].all()


def test_weight_decay_adds_kernels_to_their_gradients_and_the_penalty_to_the_loss(keras):
    ends, losses = [], []
    for decay in (0.0, 0.2):
        masked = build(keras, optimizer="sgd", learning_rate=0.1, momentum=0.9, weight_decay=decay)
        initial = masked.draw_initial(len)
        loop = loop_of(masked)
        losses.append(loop.evaluate("test")["loss"])
        loop.train(loop.order(0).batches(0, 1))
        ends.append(network_weights(masked.state()))
    for path, plain in ends[0].items():
        expected = plain - 0.1 * 0.2 * initial[path] if path in masked.shapes else plain
        np.testing.assert_allclose(ends[1][path], expected, rtol=1e-5, atol=1e-6)
    penalty = 0.2 / 2 * sum(np.square(initial[path]).sum() for path in masked.shapes)
    assert losses[1] - losses[0] == pytest.approx(penalty, rel=1e-4)


def test_augmentation_follows_the_seed_of_the_config(keras):
    path = "augment/seed_generator_state"
    one, two, other = (build(keras, augment="crop_flip", seed=seed).state()[path] for seed in (1, 1, 2))
    assert one.tolist() == two.tolist() != other.tolist()


def test_import_of_the_package_is_all_that_files_need():
    script = (
        "import tf_lottery, keras, tf_keras\n"
        "for each in (keras, tf_keras):\n"
        "    for name in ('CropFlip', 'SignedConstant', 'WarmupAndDecay', 'HoldsMasks'):\n"
        "        assert each.saving.get_registered_object(f'tf_lottery>{name}'), name\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_is_that_of_this_model_alone(keras, precision):
    before = keras.mixed_precision.global_policy().name
    masked = build(keras, "conv_2", precision=precision)
    assert keras.mixed_precision.global_policy().name == before == "float32"
    inner = next(layer for layer in masked.model._flatten_layers() if layer.name == "conv1")
    assert inner.compute_dtype == precision.removeprefix("mixed_")
    assert all(array.dtype == np.float32 for array in masked.kernels().values())
    scales = isinstance(masked.model.optimizer, keras.mixed_precision.LossScaleOptimizer)
    assert scales == (precision == "mixed_float16")


def test_the_policy_is_set_back_after_an_error_too(keras):
    with pytest.raises(ValueError, match="Unknown initializer"):
        build(keras, initializer="glorot", precision="mixed_float16")
    assert keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_a_lower_precision_trains_nearly_as_float32_does(keras, precision):
    losses = []
    for name in ("float32", precision):
        masked = build(keras, "conv_2", "he_normal", precision=name)
        masked.draw_initial(len)
        loop = loop_of(masked)
        loop.train(loop.order(0).batches(0, 4))
        losses.append(loop.evaluate("test")["loss"])
    assert losses[0] != losses[1] == pytest.approx(losses[0], rel=0.05)


def test_label_smoothing_is_that_of_the_losses(keras):
    plain, smoothed = (build(keras, label_smoothing=share) for share in (0.0, 0.3))
    for masked in (plain, smoothed):
        masked.draw_initial(len)
    x, labels = EXAMPLES
    logits = np.asarray(plain.model(x))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = 0.7 * np.eye(3)[labels] + 0.3 / 3
    expected = [-logs[np.arange(24), labels].mean(), -(targets * logs).sum(axis=1).mean()]
    assert abs(expected[0] - expected[1]) > 0.01
    for masked, loss in zip((plain, smoothed), expected):
        found = loop_of(masked).evaluate("test")
        assert found["loss"] == pytest.approx(loss, rel=1e-5)
        assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())
