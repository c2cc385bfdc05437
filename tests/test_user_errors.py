"""Errors of the user's own code come out as they were raised, and leave model and workdir to go on with."""

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.keras_api import flavour, masking, own_errors
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.search import find_ticket as module

pytestmark = pytest.mark.usefixtures("no_xla")
COMPILED = ("optimizer", "loss", "run_eagerly", "_run_eagerly", "_jit_compile", "_compile_config")
SHORT = {"steps": 4, "eval_every": 2, "levels": 2, "batch_size": 32, "verbose": 0}


class Peculiar(Exception):
    """Cannot be made of a message alone."""

    def __init__(self, where, number, *, unit):
        super().__init__(where, number)
        self.unit = unit


def errors():
    """One that Keras and AutoGraph make anew, one that they make another of, and none of theirs."""
    return ValueError("boom"), Peculiar("boom", 7, unit="m"), KeyboardInterrupt()


class Fuse:
    """What blows where it is asked to, when it is called for the n-th time."""

    def __init__(self, error=None, where="", calls=1):
        self.error, self.where, self.left = error, where, calls

    def __call__(self, where):
        self.left -= where == self.where
        if where == self.where and self.left == 0:
            raise self.error


def build(keras, fuse, run_eagerly=False):
    """A model that was trained for some steps, with a frozen layer, a schedule, and a fuse in each part."""

    class Layer(keras.layers.Layer):
        def call(self, x):
            fuse("layer")
            return x

    class Model(keras.Model):
        def train_step(self, data):
            fuse("train_step")
            return super().train_step(data)

    class Metric(keras.metrics.Mean):
        def update_state(self, y_true, y_pred, sample_weight=None):
            fuse("metric")
            return super().update_state(tf.reduce_mean(y_pred))

    def loss(y_true, y_pred):
        fuse("loss")
        if fuse.where == "graph":
            y_pred += tf.ensure_shape(tf.py_function(lambda: fuse("graph") or 0.0, [], tf.float32), ())
        return keras.losses.sparse_categorical_crossentropy(y_true, y_pred, from_logits=True)

    tensor = inputs = keras.layers.Input((8,))
    for number, units in enumerate((16, 8, 3)):
        draw = keras.initializers.GlorotNormal(seed=number)
        tensor = keras.layers.Dense(units, kernel_initializer=draw, name=f"fc{number}")(tensor)
        tensor = keras.layers.Dropout(0.1, seed=number, name=f"dropout{number}")(
            Layer(name=f"own{number}")(tensor)
        )
    model = Model(inputs, tensor)
    model.layers[1].trainable = False
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9)
    model.compile(keras.optimizers.Adam(rate), loss, metrics=[Metric(name="own")], run_eagerly=run_eagerly)
    return model


def trained(keras, data, run_eagerly=False):
    """A fuse, and a model that it is in which was trained for some steps."""
    fuse = Fuse()
    model = build(keras, fuse, run_eagerly)
    for _ in range(3):
        model.train_on_batch(data[0][:32], data[1][:32])
    return fuse, model


def values(variables):
    return [np.array(variable.numpy()).tobytes() for variable in variables]


def what_it_is(model):
    """All of a model that a call must leave as it was."""
    optimizer = model.optimizer
    variables = optimizer.variables() if callable(optimizer.variables) else optimizer.variables
    held = [masking.constraint_of(variable) for variable in model.variables]
    layers = list(model._flatten_layers())
    randoms = [getattr(layer, "_random_generator", None) for layer in layers]
    return {
        "weights": values(model.weights),
        "optimizer": values(variables),
        "masks": [None if h is None else h.mask.numpy().tobytes() for h in held],
        "kinds": [type(part) for part in (model, optimizer)],
        "trainable": [layer.trainable for layer in layers],
        "compiled": {name: vars(model).get(name) for name in COMPILED},
        "metrics": [metric.name for metric in model.metrics],
        "functions": [getattr(model, f"{name}_function") for name in ("train", "test", "predict")],
        "randoms": [getattr(random, "_rng_type", None) for random in randoms],
    }


def generator(data, fuse):
    """A data set that fails where the fuse is asked to."""

    def batches():
        for start in range(0, 192, 32):
            fuse("generator")
            yield data[0][start : start + 32], data[1][start : start + 32]

    shapes = (tf.TensorSpec((32, 8), tf.float32), tf.TensorSpec((32,), tf.int32))
    return tf.data.Dataset.from_generator(batches, output_signature=shapes)


def sequence(keras, data, fuse):
    base = getattr(keras.utils, "PyDataset", None) or keras.utils.Sequence

    class Batches(base):
        def __len__(self):
            return 6

        def __getitem__(self, index):
            fuse("sequence")
            return tuple(part[32 * index : 32 * index + 32] for part in data)

    return Batches()


def callback(keras, fuse):
    """Meddles with the model before it fails."""

    class Meddles(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.layers[-3].trainable = False
            self.model.stop_training = True
            fuse("callback")

    return Meddles()


def criterion_and_control(fuse):
    """A criterion and a control of the user's own."""

    def criterion(evidence):
        fuse("criterion")
        return {path: abs(evidence.final[path]) for path in evidence.mask}

    def control(found):
        fuse("control")
        return found.mask, found.rewound, found.step

    return criterion, control


def fails(call, error):
    """The error that the call ends with, once it is looked at whether it is that one."""
    with pytest.raises(type(error)) as caught:
        call()
    assert type(caught.value) is type(error) and caught.value.args == error.args
    return caught.value


@pytest.mark.parametrize("where", ["layer", "loss", "metric", "train_step"])
@pytest.mark.parametrize("run_eagerly", [False, True])
def test_what_is_in_the_model_fails(keras, data, where, run_eagerly):
    fuse, model = trained(keras, data, run_eagerly)
    before = what_it_is(model)
    for error in errors():
        fuse.__init__(error, where)
        assert fails(lambda: tf_lottery.find_ticket(model, *data, **SHORT), error) is error
        assert what_it_is(model) == before
    fuse.__init__()
    model.fit(*data, epochs=1, verbose=0)  # and trains on


@pytest.mark.parametrize("where, calls", [("sequence", 9), ("callback", 3), ("criterion", 2), ("control", 2)])
def test_what_is_given_to_a_search_fails(keras, data, where, calls):
    error = KeyboardInterrupt() if where == "callback" else Peculiar("boom", 7, unit="m")
    fuse, model = trained(keras, data)
    before = what_it_is(model)
    fuse.__init__(error, where, calls)

    criterion, control = criterion_and_control(fuse)
    given = {"callbacks": callback(keras, fuse), "criterion": criterion, "controls": [control]}
    batches = sequence(keras, data, fuse)
    search = lambda: tf_lottery.find_ticket(model, batches, validation_data=data, **given, **SHORT)  # noqa: E731
    assert fails(search, error) is error
    assert what_it_is(model) == before


@pytest.mark.parametrize("where, calls", [("generator", 9), ("graph", 1)])
def test_what_tensorflow_calls_fails(keras, data, where, calls):
    fuse, model = trained(keras, data)
    before = what_it_is(model)
    for error in errors():
        fuse.__init__(error, where, calls)
        batches = generator(data, fuse)
        found = fails(
            lambda batches=batches: tf_lottery.find_ticket(model, batches, validation_data=data, **SHORT),
            error,
        )
        assert isinstance(found.__cause__, tf.errors.OpError)  # which tells where in their code
        assert what_it_is(model) == before


def test_a_masked_model_keeps_its_masks(make_model, random_mask, data):
    model = make_model()
    mask = random_mask(MaskedModel(model).shapes)
    tf_lottery.apply_mask(model, mask)
    model.train_on_batch(data[0][:32], data[1][:32])
    before = what_it_is(model)
    fuse = Fuse(ValueError("boom"), "criterion", 1)
    with pytest.raises(ValueError, match="boom"):
        tf_lottery.find_ticket(model, *data, criterion=lambda evidence: fuse("criterion"), **SHORT)
    assert what_it_is(model) == before


def test_training_of_ones_own_fails(keras, data):
    """In the second level, by a training that compiles the model anew."""
    error = Peculiar("boom", 7, unit="m")
    fuse, model = trained(keras, data)
    before = what_it_is(model)
    fuse.__init__(error, "train", 2)
    masked = []

    def train(model):
        model.layers[-3].trainable = False
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(data[0], np.eye(3)[data[1]], verbose=0)
        masked.append(any(h is not None for h in map(masking.constraint_of, model.variables)))
        fuse("train")

    tickets = tf_lottery.iterative_magnitude_pruning(model, train, levels=2)
    assert next(tickets).level == 0
    assert fails(lambda: next(tickets), error) is error
    assert masked == [True, True]
    assert what_it_is(model) == before


def test_tickets_that_nobody_takes_are_no_error(make_model, data):
    model = make_model()
    tickets = tf_lottery.iterative_magnitude_pruning(model, lambda model: None, levels=2)
    next(tickets)
    ticket = next(tickets)
    tickets.close()
    found = MaskedModel(model).mask()
    assert all((found[path] == mask).all() for path, mask in ticket.mask.items())


def contents(workdir):
    """The bytes of all results; the event files of TensorBoard tell times."""
    kept = [*workdir.glob("replicate_1/**/*.*"), workdir / "results.csv", workdir / "config.json"]
    kept = [path for path in kept if path.is_file() and ".lock" not in path.name]
    return {path.relative_to(workdir): path.read_bytes() for path in kept}


def test_a_search_goes_on_from_its_workdir(keras, data, tmp_path):
    fuse = Fuse()

    criterion, control = criterion_and_control(fuse)

    class Hears(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            fuse("callback")

    def search(workdir):
        model = build(keras, Fuse())
        given = {"callbacks": [Hears()], "criterion": criterion, "controls": [control], "workdir": workdir}
        return tf_lottery.find_ticket(model, *data, **given, **SHORT)

    whole = search(tmp_path / "whole")
    stops = [
        ("callback", 3, KeyError("boom")),
        ("control", 1, KeyboardInterrupt()),
        ("criterion", 2, KeyError()),
    ]
    for where, calls, error in stops:
        fuse.__init__(error, where, calls)
        assert fails(lambda: search(tmp_path / "stopped"), error) is error
    ticket = search(tmp_path / "stopped")
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole") != {}
    assert not list(tmp_path.rglob("*.lock.json")) and not list(tmp_path.rglob("*.tmp"))
    assert ticket.history == whole.history and ticket.verdict == whole.verdict
    for path, array in whole.weights.items():
        np.testing.assert_array_equal(ticket.weights[path], array)


def test_a_stop_iteration_is_no_end(keras, data):
    fuse, model = trained(keras, data)
    fuse.__init__(StopIteration("no more"), "sequence", 9)
    batches = sequence(keras, data, fuse)
    assert fails(lambda: tf_lottery.find_ticket(model, batches, validation_data=data, **SHORT), fuse.error)


def test_what_keras_had_to_say_is_a_note(keras, data):
    fuse, model = trained(keras, data)
    fuse.__init__(ValueError("boom"), "layer")
    with pytest.raises(ValueError) as caught:
        tf_lottery.find_ticket(model, *data, **SHORT)
    assert caught.value is fuse.error and str(caught.value) == "boom"
    [note] = caught.value.__notes__
    assert "Exception encountered when calling" in note and "boom" in note


def test_errors_raised_from_others_are_not_taken_apart():
    def handled(raised):
        try:
            try:
                raise KeyError("inner")
            except KeyError as inner:
                raise raised from (inner if raised.args == ("from",) else None)
        except ValueError as error:
            return error

    for raised in (ValueError("from"), ValueError("None")):
        error = handled(raised)
        assert own_errors.own(error) is error and error.args == raised.args
    assert own_errors.own(tf.errors.InvalidArgumentError(None, None, "ValueError: of TensorFlow")).args == ()


def test_the_docstrings_say_so():
    for function in (module.find_ticket, tf_lottery.iterative_magnitude_pruning):
        assert "as it was raised" in " ".join(function.__doc__.split())
    assert set(flavour.FLAVOURS) == {"keras", "tf_keras"}


def test_what_fails_after_an_error_is_a_note_of_it(make_model, data):
    model = make_model()
    model.reset_metrics = lambda: {}["a metric of the user's own"]
    masked, weights = MaskedModel(model), model.get_weights()
    with pytest.raises(ValueError, match="^first") as caught, masked.undone_on_error():
        model.set_weights([weight + 1 for weight in weights])
        raise ValueError("first")
    assert caught.value.__notes__ == ['After it, this went wrong: KeyError: "a metric of the user\'s own"']
    for weight, found in zip(weights, model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, weight)


def test_the_report_of_a_search_that_is_stopped(make_model, data, tmp_path, monkeypatch):
    def stopped(self, start):
        raise KeyboardInterrupt

    def fails(self):
        raise ValueError("Expected a result of the dense network.")

    monkeypatch.setattr("tf_lottery.training.trainer.Trainer.__call__", stopped)
    monkeypatch.setattr("tf_lottery.analysis.tensorboard.TensorBoard.write_report", fails)
    with pytest.raises(KeyboardInterrupt) as caught:
        tf_lottery.find_ticket(make_model(), *data, **SHORT, workdir=tmp_path)
    assert "Expected a result of the dense network." in caught.value.__notes__[0]


def test_wrong_arguments_leave_no_mask(keras, data):
    _, model = trained(keras, data)
    before = what_it_is(model)
    with pytest.raises(ValueError, match="do not fit the model"):
        tf_lottery.apply_mask(model, {"fc1/kernel": np.ones((2, 2), bool)})
    assert what_it_is(model) == before
    with pytest.raises(ValueError, match="looks at training data"):
        next(tf_lottery.iterative_magnitude_pruning(model, print, criterion="snip"))
    with pytest.raises(ValueError, match="prune_fraction|fraction"):
        next(tf_lottery.iterative_magnitude_pruning(model, print, prune_fraction=3))
    assert what_it_is(model) == before
