"""Masks that are learned: supermasks and L0 regularization."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.experiments import datasets
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search import gates
from tf_lottery.search.network import KerasNetwork
from tf_lottery.tickets import masks


@pytest.fixture
def learned(data):
    """Learns a mask of a model; returns the scores."""

    def learn(model, asked, mask=None, **settings):
        masked = MaskedModel(model)
        settings = {"key": (0,), "steps": 150, "batch_size": 24, **settings}
        network = KerasNetwork(masked, settings.pop("train", data), **settings)
        return getattr(network, asked)(network_weights(masked.state()), mask or masks.ones(masked.shapes))

    return learn


def test_noise_is_uniform_and_differs_between_steps_weights_and_seeds():
    draws = [gates.uniform((200, 300), seed, step).numpy() for seed, step in ((1, 1), (1, 2), (2, 1))]
    again = tf.function(lambda step: gates.uniform((200, 300), 1, step), jit_compile=True)(tf.constant(1))
    np.testing.assert_array_equal(draws[0], again)
    for noise in draws:
        assert noise.min() >= 0 and noise.max() < 1
        shares = np.histogram(noise, bins=10, range=(0, 1))[0] / noise.size
        np.testing.assert_allclose(shares, 0.1, atol=0.006)  # 5 standard deviations
        assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.02
    correlations = np.corrcoef([noise.ravel() for noise in draws])
    assert np.abs(correlations - np.eye(3)).max() < 0.02


def test_a_bernoulli_gate_has_the_gradient_of_its_probability():
    logits = tf.constant([-2.0, 0.0, 3.0, 0.0])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        drawn = gates.bernoulli(logits, tf.constant([0.2, 0.4, 0.9, 0.6]))
    p = 1 / (1 + np.exp(-logits.numpy()))
    np.testing.assert_allclose(drawn, [0, 1, 1, 0], atol=1e-6)
    np.testing.assert_allclose(tape.gradient(drawn, logits), p * (1 - p), rtol=1e-5)


def test_a_hard_concrete_gate_is_that_of_the_paper():
    logits, noise = np.array([-6.0, -1.0, 0.5, 6.0]), np.array([0.3, 0.6, 0.4, 0.9])
    stretched = 1.2 / (1 + np.exp(-(np.log(noise / (1 - noise)) + logits) * 1.5)) - 0.1
    drawn = gates.hard_concrete(tf.constant(logits), tf.constant(noise))
    np.testing.assert_allclose(drawn, stretched.clip(0, 1), rtol=1e-6)
    assert drawn[0] == 0 and drawn[-1] == 1
    assert np.isfinite(gates.hard_concrete(tf.constant([0.0]), tf.constant([0.0])))
    # The closed form of how often it is not 0, against draws.
    draws = gates.hard_concrete(tf.fill((100_000,), -1.0), gates.uniform((100_000,), 0, 1))
    assert float(gates.chance_of_open(-1.0)) == pytest.approx(np.mean(draws.numpy() > 0), abs=0.008)
    # Without noise it closes at the logit that scores are counted from.
    z = [1.2 / (1 + np.exp(-(gates.L0.closed + e))) - 0.1 for e in (-1e-3, 1e-3)]
    assert z[0] < 0 < z[1]


@pytest.mark.parametrize("kind", [gates.SUPERMASK, gates.L0])
def test_the_chain_rule_by_hand(make_inner_product, kind):
    """One SGD-like step, worked out in NumPy: mean squared error of sum x w z."""
    rng = np.random.default_rng(0)
    w = rng.normal(size=(10, 1)).astype(np.float32)
    x, y = rng.normal(size=(6, 10)).astype(np.float32), rng.normal(size=(6, 1)).astype(np.float32)
    model = make_inner_product(w)
    masked = MaskedModel(model)
    kind = dataclasses.replace(kind, start=0.3)
    gated = gates._GatedModel(masked, kind, (0,))
    by_logit, by_weight = [], []
    gated._optimizer.apply_gradients = lambda pairs: by_logit.extend(g.numpy() for g, _ in pairs)
    gated._train_weights = lambda found: by_weight.extend(g.numpy() for g in found)
    logs = gated.train_step((tf.constant(x), tf.constant(y)))
    noise = gates.uniform((10, 1), gated._seeds[0], tf.constant(1)).numpy().astype(float)
    if kind.trains_weights:
        s = 1 / (1 + np.exp(-(np.log(noise / (1 - noise)) + 0.3) * 1.5))
        z, slope = (1.2 * s - 0.1).clip(0, 1), 1.2 * 1.5 * s * (1 - s) * (np.abs(1.2 * s - 0.6) < 0.5)
        is_open = 1 / (1 + np.exp(-0.3 - np.log(11) / 1.5))
        penalty = kind.penalty / 10 * is_open * (1 - is_open)
    else:
        p = 1 / (1 + np.exp(-0.3))
        z, slope, penalty = noise < p, p * (1 - p), 0
    error = x @ (w * z) - y
    by_gated = 2 / 6 * x.T @ error
    np.testing.assert_allclose(logs["loss"], np.mean(error**2), rtol=1e-4)
    np.testing.assert_allclose(by_logit[0], by_gated * w * slope + penalty, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(masked.kernels()["inner/kernel"], w)
    if kind.trains_weights:
        np.testing.assert_allclose(by_weight[0], by_gated * z, rtol=1e-4, atol=1e-6)
    assert bool(by_weight) == kind.trains_weights


def test_compiled_or_not_gates_learn_the_same(make_model, learned):
    model = make_model()
    compiled = learned(model, "l0", steps=20)
    model.run_eagerly = True
    eager, other = (learned(model, "l0", steps=20, key=key) for key in ((0,), (1,)))
    for path, array in eager.items():
        np.testing.assert_allclose(compiled[path], array, atol=1e-4)
        assert (other[path] != array).any()


def test_a_supermask_classifies_digits_with_weights_that_were_never_trained(keras, learned, no_xla):
    digits = datasets.load("digits", validation_size=200)
    (x, y), (xt, yt) = digits.train, digits.test
    x, xt = x.reshape(len(x), -1), xt.reshape(len(xt), -1)
    layers = [keras.layers.Input(x.shape[1:])]
    for i, (units, activation) in enumerate([(200, "relu"), (100, "relu"), (10, None)]):
        draw = keras.initializers.GlorotNormal(seed=i)
        layers.append(keras.layers.Dense(units, activation, kernel_initializer=draw))
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    scores = learned(model, "supermask", train=(x, y), steps=500, batch_size=60)
    masked = MaskedModel(model)
    initial = masked.kernels()
    found = {path: array > 0 for path, array in scores.items()}
    assert 0.3 < masks.density(found) < 0.7
    rng = np.random.default_rng(0)
    shuffled = {p: rng.permutation(a.ravel()).reshape(a.shape) for p, a in found.items()}
    accuracies = []
    for mask in (found, shuffled, masks.ones(masked.shapes)):
        masked.set_weights({**network_weights(masked.state()), **initial})
        masked.set_mask(mask)
        accuracies.append(model.evaluate(xt, yt, verbose=0)[1])
    assert accuracies[0] > 0.85 and max(accuracies[1:]) < 0.4, accuracies


def test_l0_closes_the_gates_of_what_is_of_no_use(keras, learned, no_xla):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 10)).astype(np.float32)
    y = x[:, :3] @ np.array([[2.0], [-1.0], [1.5]], np.float32)
    model = keras.Sequential([keras.layers.Input((10,)), keras.layers.Dense(1, name="inner")])
    model.compile(keras.optimizers.Adam(0.02), keras.losses.MeanSquaredError())
    scores = learned(model, "l0", train=(x, y), steps=1000, batch_size=40)
    np.testing.assert_array_equal(scores["inner/kernel"][:, 0] > 0, np.arange(10) < 3)


@pytest.mark.parametrize("asked", ["supermask", "l0"])
def test_pruned_weights_stay_out_of_what_is_learned(make_model, learned, asked):
    """The same gates are learned whatever the pruned weights are: they are 0 in every step."""
    model = make_model()
    model.run_eagerly = True
    masked = MaskedModel(model)
    mask = masks.ones(masked.shapes)
    mask["fc1/kernel"][4:] = False
    first = learned(model, asked, mask, steps=10)
    weights = network_weights(masked.state())
    weights["fc1/kernel"][4:] += 1
    masked.set_weights(weights)
    second = learned(model, asked, mask, steps=10)
    for path, array in first.items():
        np.testing.assert_array_equal(second[path][mask[path]], array[mask[path]], err_msg=path)


def test_a_supermask_trains_no_bias_and_l0_does(make_model, data):
    for kind, moves in ((gates.SUPERMASK, False), (gates.L0, True)):
        model = make_model()
        model.run_eagerly = True
        masked = MaskedModel(model)
        before = masked.state()
        gates.Learner(kind, masked, data, key=(0,), batch_size=24).learn(5)
        after = masked.state()
        for path in ("fc1/kernel", "fc1/bias", "output/kernel"):
            assert (after[path] != before[path]).any() == moves, path
