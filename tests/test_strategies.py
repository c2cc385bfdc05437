"""Strategies by name, and two and four replicas on logical CPU devices."""

import json
import os
import subprocess
import sys
import textwrap

import pytest

from tf_lottery.training import strategies

# A process of its own: logical devices have to be there before TensorFlow starts.
_SETUP = """
import sys
import numpy as np
import tensorflow as tf
from tf_lottery.keras_api import flavour

name, replicas = sys.argv[1], int(sys.argv[2])
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * replicas)
keras = flavour.keras_module(name)
rng = np.random.default_rng(0)
y = rng.integers(0, 3, 240).astype(np.int32)
x = (rng.normal(size=(240, 8)) + 1.5 * np.eye(3, 8)[y]).astype(np.float32)
assert tf.distribute.get_strategy().num_replicas_in_sync == 1
alone, mirrored = tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(
    [f"CPU:{i}" for i in range(replicas)]
)


def dense(strategy, optimizer=None, cls=None):
    with strategy.scope():
        layers = [keras.layers.Input((8,))]
        for i, (units, activation) in enumerate([(16, "relu"), (3, None)], 1):
            drawn = keras.initializers.GlorotNormal(seed=i)
            layers.append(keras.layers.Dense(units, activation, kernel_initializer=drawn, name=f"fc{i}"))
        model = keras.Sequential(layers)
        if cls:
            model = cls(model.inputs, model.outputs)
        model.compile(
            optimizer or keras.optimizers.SGD(0.1, momentum=0.9),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            metrics=["accuracy"],
        )
    return model


def largest_difference(one, other):
    assert one.keys() == other.keys()
    return max(np.abs(one[path] - other[path]).max() for path in one)
"""


def run_apart(program, *arguments, **env):
    """Runs a program after `_SETUP`; returns what it prints."""
    code = _SETUP + textwrap.dedent(program)
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=240,
        env={**os.environ, **env},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


_SAME_TICKETS = """
import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel

tickets, models = [], []
for strategy in (alone, mirrored):
    model = dense(strategy)
    tickets.append(
        tf_lottery.find_ticket(
            model, x, y, test_data=(x[:101], y[:101]), batch_size=24, steps=40, levels=3,
            controls=["reinit"], eval_every=10, rewind_step=5, verbose=0,
        )
    )
    model.fit(x, y, batch_size=24, epochs=1, verbose=0)
    models.append(model)
one, several = tickets
for path, mask in one.mask.items():
    np.testing.assert_array_equal(mask, several.mask[path])
assert largest_difference(one.weights, several.weights) < 1e-5
assert one.verdict == several.verdict
for before, now in zip(one.history, several.history):
    assert before["early_stop_step"] == now["early_stop_step"]
    for name, value in before["metrics"].items():
        np.testing.assert_allclose(now["metrics"][name], value, atol=1e-5, equal_nan=True)

# Every replica holds the same, masks and zeros too, after a fit of Keras's own.
masked = MaskedModel(models[1])
for path, mask in masked.mask().items():
    kernel = masked._slots[path].variable
    kernel = kernel if isinstance(kernel, tf.Variable) else kernel.value
    copies = [copy.numpy() for copy in kernel.values]
    assert len(copies) == replicas
    assert len({copy.device for copy in kernel.values}) == replicas
    for copy in copies:
        np.testing.assert_array_equal(copy, copies[0])
        assert not copy[~mask].any() and copy[mask].all()
print("same")
"""


@pytest.mark.parametrize("flavour, replicas", [("keras", 2), ("tf_keras", 2), ("keras", 4), ("tf_keras", 4)])
def test_replicas_find_the_ticket_of_one_device(flavour, replicas):
    assert run_apart(_SAME_TICKETS, flavour, replicas) == "same\n"


_EACH_WORKS = """
import tf_lottery

seen = []


class Watched(keras.Model):
    def call(self, inputs, training=None):
        context = tf.distribute.get_replica_context()
        if context is not None and training:
            rows = tf.shape(inputs)[0]
            which = context.replica_id_in_sync_group
            tf.py_function(lambda i, n: seen.append((int(i), int(n))), [which, rows], [])
        return super().call(inputs, training=training)


model = dense(mirrored, cls=Watched)
tf_lottery.find_ticket(model, x, y, batch_size=24, steps=10, levels=0, verbose=0)
by_replica = {i: [n for j, n in seen if j == i] for i in range(replicas)}
assert set(by_replica) == set(range(replicas)), by_replica
for sizes in by_replica.values():
    assert sizes == [24 // replicas] * 10, by_replica
print("each")
"""


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_each_replica_works_on_its_part_of_every_batch(flavour):
    assert run_apart(_EACH_WORKS, flavour, 2) == "each\n"


_DRIVER = """
import tempfile
from tf_lottery.experiments import driver
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.training import recorded, replicas as module

parts, run = set(), module.Replicas.run
def counted(self, function, *arguments):
    def noted(*arguments):
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        parts.add(int(tf.get_static_value(replica)))
        return function(*arguments)
    return run(self, noted, *arguments)
module.Replicas.run = counted

found = {}
for strategy in ("default", "mirrored"):
    config = ExperimentConfig(strategy=strategy, controls=("reinit",), flavour=name)
    config.network.name = "mlp:8"
    config.train.optimizer, config.train.learning_rate, config.train.weight_decay = "sgd", 0.1, 1e-4
    config.train.steps, config.train.eval_every_steps, config.train.augment = 20, 10, "crop_flip"
    config.prune.levels, config.prune.criterion, config.prune.rewind_step = 1, "fisher", 4
    folder = tempfile.mkdtemp()
    parts.clear()
    driver.run(config, folder)
    assert parts == set(range(replicas if strategy == "mirrored" else 1)), parts
    found[strategy] = recorded.networks(folder)
assert len(found["default"]) == 3
for one, several in zip(*found.values(), strict=True):
    for path, mask in one.mask().items():
        np.testing.assert_array_equal(mask, several.mask()[path])
    assert largest_difference(one.end(), several.end()) < 1e-5
    assert abs(one.result.final_validation_accuracy - several.result.final_validation_accuracy) < 1e-6
"""


@pytest.mark.parametrize("flavour", ["keras", "tf_keras"])
def test_the_driver_on_several_devices(flavour):
    """With augmentation, weight decay and a criterion that goes by gradients."""
    run_apart(_DRIVER, flavour, 2)


_STREAMS = """
import tf_lottery
from tf_lottery.training import replicas as module
from tf_lottery.training.loop import Loop

dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(24)
uneven = tf.data.Dataset.from_tensor_slices((x[:91], y[:91])).batch(15)  # the last has one
found = []
for strategy in (alone, mirrored):
    found.append(
        tf_lottery.find_ticket(
            dense(strategy), dataset, validation_data=uneven, steps=30, levels=1, eval_every=10, verbose=0
        )
    )
assert largest_difference(found[0].weights, found[1].weights) < 1e-5
for name, value in found[0].history[-1]["metrics"].items():
    np.testing.assert_allclose(found[1].history[-1]["metrics"][name], value, atol=1e-5, equal_nan=True)

# Arrays too large for the device: the same batches, from the host.
module.MEMORY_SHARE = 0.0
streamed = tf_lottery.find_ticket(
    dense(mirrored), x, y, validation_data=(x[:91], y[:91]), batch_size=24, steps=30, levels=1, verbose=0
)
module.MEMORY_SHARE = 0.25
resident = tf_lottery.find_ticket(
    dense(mirrored), x, y, validation_data=(x[:91], y[:91]), batch_size=24, steps=30, levels=1, verbose=0
)
assert largest_difference(streamed.weights, resident.weights) == 0
assert streamed.history[-1]["early_stop_step"] == resident.history[-1]["early_stop_step"]

for wrong, given in (("A batch of 25 examples", {"batch_size": 25}), ("A batch of 24 examples", {})):
    try:
        if given:
            tf_lottery.find_ticket(dense(mirrored), x, y, steps=4, levels=0, verbose=0, **given)
        else:
            odd = tf.data.Dataset.from_tensor_slices((x[:24 * 3 + 1], y[:24 * 3 + 1])).batch(24)
            tf_lottery.find_ticket(
                dense(mirrored), odd, validation_data=(x, y), steps=4, levels=0, verbose=0
            )
    except ValueError as error:
        print(error)
"""


def test_streams_and_large_arrays_are_shared_out_too():
    errors = run_apart(_STREAMS, "keras", 2).splitlines()
    assert errors[0].startswith("A batch of 25 examples cannot be cut into equal parts for 2 replicas: take ")
    assert "24 or 26" in errors[0]
    assert errors[1].startswith("A batch of 1 examples cannot be cut into equal parts for 2 replicas")
    assert "drop_remainder=True" in errors[1]


_OWN_STEP = """
import tf_lottery


class Own(keras.Model):
    def train_step(self, data):
        images, labels = data
        with tf.GradientTape() as tape:
            loss = self.compute_loss(images, labels, self(images, training=True))
        gradients = tape.gradient(loss, self.trainable_variables)
        self.optimizer.apply_gradients(zip(gradients, self.trainable_variables))
        return {"loss": loss * replicas_now}

    def test_step(self, data):
        images, labels = data
        return {"loss": self.compute_loss(images, labels, self(images, training=False)) * replicas_now}


found = []
for strategy in (alone, mirrored):
    replicas_now = float(strategy.num_replicas_in_sync)
    model = dense(strategy, cls=Own)
    found.append(
        tf_lottery.find_ticket(
            model, x, y, validation_data=(x[:91], y[:91]), batch_size=24, steps=20, levels=1, verbose=0
        )
    )
assert largest_difference(found[0].weights, found[1].weights) < 1e-5
for name, value in found[0].history[-1]["metrics"].items():
    np.testing.assert_allclose(found[1].history[-1]["metrics"][name], value, atol=1e-5, equal_nan=True)

# In eager mode, with a last batch of one example: nothing for the second replica.
uneven = tf.data.Dataset.from_tensor_slices((x[:13], y[:13])).batch(4)
losses = []
for strategy in (alone, mirrored):
    replicas_now = float(strategy.num_replicas_in_sync)
    model = dense(strategy, cls=Own)
    model.run_eagerly = True
    ticket = tf_lottery.find_ticket(
        model, x, y, validation_data=uneven, batch_size=24, steps=2, levels=0, verbose=0
    )
    losses.append(ticket.history[0]["metrics"]["validation/loss"])
np.testing.assert_allclose(*losses, atol=1e-5)

outside = dense(alone)
try:
    with mirrored.scope():
        tf_lottery.find_ticket(outside, x, y, batch_size=24, steps=4, levels=0, verbose=0)
except ValueError as error:
    print(error)
"""


def test_steps_of_the_users_own_and_a_model_from_outside():
    error = run_apart(_OWN_STEP, "keras", 2)
    assert "was not made under the MirroredStrategy that it is to be trained under" in error
    assert "`with strategy.scope():`" in error


_EQUAL = """
from tf_lottery.training.replicas import Replicas
parts = Replicas(mirrored)
assert [parts.part(91, i) for i in range(4)] == [slice(0, 23), slice(23, 46), slice(46, 69), slice(69, 91)]
parts.equal = True
assert [parts.part(91, i) for i in range(4)] == [slice(22 * i, 22 * i + 22) for i in range(4)]
placed = parts.share_out((x[:91], y[:91]))
local = mirrored.experimental_local_results(placed[0])
assert {tuple(part.shape) for part in local} == {(22, 8)}
assert {part.device[-5:] for part in local} == {"CPU:0", "CPU:1", "CPU:2", "CPU:3"}

# Evaluated in steps of 20 for each replica: of 83 examples the last 3 are nobody's, and no step of their own.
from tf_lottery.training import loop as module
class Equal(Replicas):
    def __init__(self, strategy):
        super().__init__(strategy)
        self.equal = True
module.Replicas, module._EVALUATION_BATCH = Equal, 20
model = dense(mirrored)
loop = module.Loop(model, (x, y), {"some": (x[:83], y[:83])}, batch_size=80, chunk=1)
assert not loop.jit
weights = model.get_weights()
model = dense(alone)
model.set_weights(weights)
expected = model.evaluate(x[:80], y[:80], batch_size=80, verbose=0, return_dict=True)
for name, value in loop.evaluate("some").items():
    np.testing.assert_allclose(value, expected[name], rtol=1e-5)
try:
    module.Loop(dense(mirrored), (x, y), {"test": (x[:3], y[:3])}, batch_size=80, chunk=1)
except ValueError as error:
    print(error)
"""


def test_tpu_parts_have_one_shape_and_each_device_its_own():
    error = run_apart(_EQUAL, "keras", 4)
    assert error == "4 replicas share out the test data equally, and need 4 examples at least. Received 3.\n"


def test_auto_takes_what_there_is(monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert type(strategies.make("auto")).__name__ == "_DefaultDistributionStrategy"
    assert type(strategies.make("one_device")).__name__ == "OneDeviceStrategy"
    assert strategies.make("mirrored").num_replicas_in_sync == 1


@pytest.mark.parametrize(
    "name, tpu, message",
    [
        ("miror", "", "Unknown strategy 'miror'. Did you mean 'mirrored'?"),
        ("tpu", "", "--tpu=NAME"),
        ("multi_worker", "", "set TF_CONFIG in each process"),
    ],
)
def test_what_cannot_be_had_is_said(monkeypatch, name, tpu, message):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    with pytest.raises(ValueError, match=message.replace("?", r"\?").replace(".", r"\.")):
        strategies.make(name, tpu)


def test_no_tpu_is_said():
    with pytest.raises(ConnectionError, match="There is no TPU 'local' to be reached from here"):
        strategies.make("tpu", "local")


@pytest.mark.parametrize(
    "config, message",
    [
        ("{", "TF_CONFIG cannot be used"),
        ("[]", "TF_CONFIG cannot be used"),
        (
            json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}),
            "is not in the",
        ),
        (json.dumps({"cluster": {"worker": ["a", "b:1"]}, "task": {"type": "worker", "index": 1}}), "a port"),
        (json.dumps({"cluster": {"worker": ["a:1"]}, "task": {"type": "ps", "index": 0}}), "is not in the"),
    ],
)
def test_a_wrong_tf_config_is_said(monkeypatch, config, message):
    monkeypatch.setenv("TF_CONFIG", config)
    with pytest.raises(ValueError, match=message) as error:
        strategies.workers()
    assert '"cluster": {"worker": ["host1:2222", "host2:2222"]}' in str(error.value)
