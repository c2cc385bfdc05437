"""Bugs that other pruning systems have or had: one test for each, named for the trap."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.analysis import verdict
from tf_lottery.keras_api.masked_model import OPTIMIZER, MaskedModel, apply_mask, network_weights
from tf_lottery.search.imp import iterative_pruning
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import masks
from tf_lottery.tickets.rewinding import Rewinding
from tf_lottery.training.arms import Start
from tf_lottery.training.history import Result
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.trainer import Trainer

ONES, TARGET = np.ones((1, 10), np.float32), np.full((1, 1), 40, np.float32)
EVERY_OTHER = {"inner/kernel": np.array([1, 0] * 5, bool).reshape(10, 1)}


def step(model, data):
    model.train_on_batch(data[0][:32], data[1][:32])


def search(model, data, levels=2, **arguments):
    """Yields (state that the level's training starts from, its ticket) of a search of few steps."""
    starts = []
    model.run_eagerly = True  # cheaper than a trace for so few

    def fit(model):
        starts.append(MaskedModel(model).state())
        step(model, data)
        step(model, data)

    for ticket in tf_lottery.iterative_magnitude_pruning(model, fit, levels=levels, **arguments):
        yield starts[-1], ticket


def shifted(model):
    """Moves every weight off the value that its initializer might give it again."""
    model.set_weights([weight + 0.25 for weight in model.get_weights()])
    return model


def copies(arrays):
    return {path: array.copy() for path, array in arrays.items()}


def assert_equal(arrays, others):
    assert arrays.keys() == others.keys()
    for path, array in arrays.items():
        np.testing.assert_array_equal(array, others[path], err_msg=path)


def assert_only_survivors_live(model, mask):
    for path, kernel in MaskedModel(model).kernels().items():
        assert not kernel[~mask[path]].any(), path
        assert kernel[mask[path]].all(), path


def test_signed_weights(make_inner_product):
    model = make_inner_product([-5, -1, -4, -0.5, -3, -7, -2, -9, -6, -8])
    before = model.get_weights()[0].ravel()
    tickets = tf_lottery.iterative_magnitude_pruning(
        model, lambda model: None, levels=1, prune_fraction=0.4, layer_fractions={}
    )
    mask = list(tickets)[-1].mask["inner/kernel"].ravel()
    assert mask.astype(int).tolist() == [1, 0, 1, 0, 0, 1, 0, 1, 1, 1]
    model.train_on_batch(ONES, TARGET)
    # Negative weights are no pruned ones: all that are left move.
    assert ((model.get_weights()[0].ravel() != before) | ~mask).all()
    assert not model.get_weights()[0].ravel()[~mask].any()


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_all_equal_layers(scope, value):
    mask = masks.ones({"a": (10, 10), "b": (10, 10)})
    counts = []
    alike = {path: np.full((10, 10), value) for path in mask}
    for _ in range(4):
        mask = tf_lottery.prune(mask, alike, {"a": 0.2, "b": 0.2}, scope)
        counts.append(masks.kept(mask))
    # 2 x 41 is left of 2 x 51, each round(10.2) less; of the pool, round(20.4) less.
    assert counts == [160, 128, 102, 82]


def test_zero_threshold(make_model, data):
    # Zeros of earlier levels are the smallest of all, and none of the share that goes.
    counts = [(128, 128, 24), (102, 102, 19), (82, 82, 15), (66, 66, 12), (53, 53, 10)]
    for (start, ticket), expected in zip(
        search(make_model(), data, 4, layer_fractions={}), counts, strict=True
    ):
        assert tuple(int(mask.sum()) for mask in ticket.mask.values()) == expected
        assert tuple(np.count_nonzero(start[path]) for path in ticket.mask) == expected


def test_zero_threshold_with_survivors_that_are_zero(make_inner_product):
    model = apply_mask(make_inner_product([0] * 7 + [7, 8, 9]), EVERY_OTHER)
    assert MaskedModel(model).kernels()["inner/kernel"].ravel().tolist() == [0] * 8 + [8, 0]
    pruned = tf_lottery.prune(
        EVERY_OTHER, {"inner/kernel": MaskedModel(model).kernels()["inner/kernel"]}, {"inner/kernel": 0.4}
    )
    assert pruned["inner/kernel"].ravel().astype(int).tolist() == [1, 0, 1, 0, 0, 0, 0, 0, 1, 0]


def test_bias_aliasing(make_model, data):
    model = shifted(make_model())
    first = network_weights(MaskedModel(model).state())
    kept = copies(first)
    for start, ticket in search(model, data):
        for path in ("fc1/bias", "fc2/bias", "output/bias"):
            np.testing.assert_array_equal(start[path], kept[path])
        ticket_before = copies(ticket.weights)
        step(model, data)
        assert_equal(ticket.weights, ticket_before)
        assert_equal(first, kept)
        assert not np.array_equal(MaskedModel(model).state()["output/bias"], kept["output/bias"])


def test_batch_norm_statistics_that_leak_over_a_rewind(make_model, data):
    model = shifted(make_model(batch_norm=True))
    first = MaskedModel(model).state()
    for start, _ in search(model, data):
        for path in ("bn1/moving_mean", "bn1/moving_variance", "bn2/moving_mean", "bn2/moving_variance"):
            np.testing.assert_array_equal(start[path], first[path], err_msg=path)
            # The ticket that is handed out, too, after a training that has moved them.
            np.testing.assert_array_equal(MaskedModel(model).state()[path], first[path], err_msg=path)
    step(model, data)
    assert not np.array_equal(MaskedModel(model).state()["bn1/moving_mean"], first["bn1/moving_mean"])


def optimizer_state(state):
    return {path: array for path, array in state.items() if path.startswith(OPTIMIZER)}


def test_adam_that_goes_on_over_a_rewind_to_step_0(make_model, data):
    model = make_model()
    for start, _ in search(model, data):
        held = optimizer_state(start)
        assert int(held[f"{OPTIMIZER}000"]) == 0
        moments = [array for array in held.values() if array.ndim]
        assert len(moments) == 12 and not any(array.any() for array in moments)
        assert int(model.optimizer.iterations) == 0
        step(model, data)
        assert int(model.optimizer.iterations) == 1


class Recorder(Listener):
    """Keeps the model's state at the start of each level and at `step` of level 0."""

    def __init__(self, masked, step):
        self.masked, self.step = masked, step
        self.starts, self.rewound_to = {}, None

    def started(self, start, history):
        self.starts[start.level] = self.masked.state()

    def stepped(self, start, step, logs):
        if (start.level, step) == (0, self.step):
            self.rewound_to = self.masked.state()


def test_adam_that_starts_anew_at_a_rewind_to_a_later_step(make_model, data):
    model = make_model()
    masked = MaskedModel(model)
    recorder = Recorder(masked, 3)
    loop = Loop(model, data, {"validation": data}, batch_size=16, chunk=4, jit=False)
    trainer = Trainer(masked, loop, steps=8, eval_every=4, order_key=(0,), listeners=[recorder])
    plan = Plan(2, dict.fromkeys(masked.shapes, 0.2), rewinding=Rewinding(restore=3, restart=3))
    assert len(list(iterative_pruning(plan, trainer, masked.state(), masked.mask()))) == 3
    held = optimizer_state(recorder.rewound_to)
    assert int(held[f"{OPTIMIZER}000"]) == 3
    assert all(array.any() for array in held.values())
    for level in (1, 2):
        assert_equal(optimizer_state(recorder.starts[level]), held)


def test_exempt_layers_in_global_counts(make_model):
    # "fc1" and "fc2" hold 256 of 280 weights. A share of all would be more than "output" has.
    exempt = {"fc1": 0.0, "fc2": 0.0, "output": 0.5}
    tickets = tf_lottery.iterative_magnitude_pruning(
        make_model(), lambda model: None, levels=5, scope="global", layer_fractions=exempt
    )
    left = []
    for ticket in tickets:
        assert ticket.mask["fc1/kernel"].all() and ticket.mask["fc2/kernel"].all()
        left.append(int(ticket.mask["output/kernel"].sum()))
    assert left == [24, 12, 6, 3, 1, 1]  # round(1.5) is 2, round(0.5) is 0


REPLICAS = """
import sys
import numpy as np, tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
import tf_lottery
from tf_lottery.keras_api.flavour import keras_module
from tf_lottery.keras_api.masked_model import MaskedModel
keras = keras_module(sys.argv[1])
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(6, "relu"), keras.layers.Dense(3)])
    model.compile(keras.optimizers.Adam(0.01), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    rng = np.random.default_rng(0)
    mask = {path: rng.random(shape) < 0.5 for path, shape in MaskedModel(model).shapes.items()}
    tf_lottery.apply_mask(model, mask)
before = [weight.copy() for weight in model.get_weights()]
x, y = rng.normal(size=(32, 8)).astype("float32"), rng.integers(0, 3, 32)
model.fit(x, y, batch_size=8, epochs=1, verbose=0)
for variable, old, array in zip(model.trainable_variables[::2], before[::2], mask.values()):
    if keras.__name__ == "keras":
        variable = variable.value
    copies = [copy.numpy() for copy in strategy.experimental_local_results(variable)]
    for copy in copies:
        assert copy.shape == array.shape and not copy[~array].any()
        assert (copy[array] != old[array]).any()
print("replicas:", len(copies))
"""


def test_replicas_that_lose_their_masks(keras):
    root = pathlib.Path(__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root), "CUDA_VISIBLE_DEVICES": "-1"}
    words = [sys.executable, "-c", REPLICAS, keras.__name__]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "replicas: 2" in done.stdout


@pytest.mark.parametrize("name", ["SGD", "AdamW"])
def test_weight_decay_and_stale_moments_that_move_pruned_weights(keras, make_model, data, random_mask, name):
    settings = {
        "SGD": {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.1},
        "AdamW": {"learning_rate": 0.01, "weight_decay": 0.1},
    }
    model = make_model(getattr(keras.optimizers, name)(**settings[name]))
    model.run_eagerly = True
    step(model, data)
    step(model, data)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    state = masked.state()
    pruned = ~mask["fc1/kernel"]
    moments = [array for array in optimizer_state(state).values() if array.shape == pruned.shape]
    assert moments and all(array[pruned].any() for array in moments)
    for _ in range(4):
        step(model, data)
        assert_only_survivors_live(model, mask)


@pytest.mark.parametrize("clipping", ["clipnorm", "global_clipnorm"])
def test_clipping_that_sees_the_gradients_of_pruned_weights(keras, make_inner_product, clipping):
    model = make_inner_product(optimizer=keras.optimizers.SGD(0.01, **{clipping: 1.0}))
    apply_mask(model, EVERY_OTHER)
    model.train_on_batch(ONES, TARGET)
    # Five equal gradients of norm 1 together; with the pruned ones it would be 0.01 / sqrt(10).
    expected = (np.arange(10) + 0.01 / np.sqrt(5)) * ([1, 0] * 5)
    np.testing.assert_allclose(model.get_weights()[0].ravel(), expected, rtol=0, atol=2e-6)


def test_a_model_that_was_fitted_before_it_was_masked(make_model, data, random_mask):
    model, few = make_model(), (data[0][:64], data[1][:64])
    model.fit(*few, epochs=1, verbose=0)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    before = masked.kernels()
    model.fit(*few, epochs=1, verbose=0)
    assert_only_survivors_live(model, mask)
    assert not any(np.array_equal(kernel, before[path]) for path, kernel in masked.kernels().items())
    # A later mask reaches the train function that is there by now.
    other = random_mask(masked.shapes, 0.5, seed=1)
    smaller = {path: array & other[path] for path, array in mask.items()}
    masked.set_mask(smaller)
    model.fit(*few, epochs=1, verbose=0)
    assert_only_survivors_live(model, smaller)


def test_step_counters_that_count_forward_passes(keras, make_model, data, random_mask):
    model = make_model()
    mask = random_mask(MaskedModel(model).shapes)
    apply_mask(model, mask)
    wrapped = tf_lottery.wrap(model) if keras.__name__ == "tf_keras" else model
    before = [variable.numpy().copy() for variable in wrapped.variables]
    gradients = []
    for rows in (slice(0, 16), slice(16, 32)):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(wrapped(data[0][rows], training=True) ** 2)
        gradients.append(tape.gradient(loss, model.trainable_variables))
    for variable, value in zip(wrapped.variables, before):
        np.testing.assert_array_equal(variable.numpy(), value, err_msg=variable.name)
    model.optimizer.apply_gradients(
        zip([one + other for one, other in zip(*gradients)], model.trainable_variables)
    )
    assert int(model.optimizer.iterations) == 1
    assert_equal(MaskedModel(model).mask(), mask)
    assert_only_survivors_live(model, mask)


def test_early_stopping_that_goes_by_test_accuracy(make_model, data):
    x, y = data
    model = make_model()
    # Test labels that the trained network gets wrong: it is best on them before it is trained.
    evaluation = {"validation": (x[180:], y[180:]), "test": (x[180:], (y[180:] + 1) % 3)}
    loop = Loop(model, (x[:180], y[:180]), evaluation, batch_size=16, chunk=10, jit=False)
    masked = MaskedModel(model)
    trainer = Trainer(masked, loop, steps=40, eval_every=10, order_key=(0,))
    trained = trainer(Start(0, "ticket", masks.ones(masked.shapes), masked.state()))
    result, curves = trained.result(1), trained.history.curves
    chosen = int(np.argmin(curves["validation/loss"]))
    assert result.early_stop_step == trained.history.steps[chosen] > 0
    assert result.test_accuracy_at_early_stop == curves["test/accuracy"][chosen]
    assert result.test_accuracy_at_early_stop < max(curves["test/accuracy"])


def test_the_best_of_losing_tickets_by_test_accuracy():
    def row(level, density, stop, test, validation):
        return Result(1, level, "ticket", density, stop, test, 0.5, test, validation, 1000)

    # Both stop later than the dense network, so neither wins.
    rows = [row(0, 1.0, 300, 0.90, 0.90), row(1, 0.8, 400, 0.91, 0.92), row(2, 0.6, 500, 0.99, 0.91)]
    judged = verdict.judge(rows)
    assert judged.winning is None
    assert judged.level == 1
