"""Keras callbacks in a search hear what they would hear in `fit`."""

import csv

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.tickets import masks
from tf_lottery.training import callbacks as callbacks_module
from tf_lottery.training.arms import Start
from tf_lottery.training.callbacks import KerasCallbacks
from tf_lottery.training.loop import Loop
from tf_lottery.training.streams import Stream
from tf_lottery.training.trainer import Trainer

# Three epochs of 15 steps for each of two networks.
SMALL = {"steps": 45, "eval_every": 15, "batch_size": 16, "levels": 1, "verbose": 0}


# Compiling changes nothing that callbacks see.
pytestmark = pytest.mark.usefixtures("no_xla")


def search(model, data, callbacks, **arguments):
    arguments = {**SMALL, "validation_data": data, "callbacks": callbacks, **arguments}
    return tf_lottery.find_ticket(model, *data, **arguments)


def recorder(keras):
    """Makes a callback that writes down every call that is made to it."""

    class Recorder(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.calls = []

        def of(self, hook):
            return [call[1:] for call in self.calls if call[0] == hook]

        def on_train_begin(self, logs=None):
            self.calls.append(("train_begin", {k: self.params[k] for k in ("epochs", "steps", "verbose")}))

        def on_train_end(self, logs=None):
            self.calls.append(("train_end", dict(logs)))

        def on_epoch_begin(self, epoch, logs=None):
            self.calls.append(("epoch_begin", epoch))

        def on_epoch_end(self, epoch, logs=None):
            self.calls.append(("epoch_end", epoch, dict(logs)))

        def on_train_batch_begin(self, batch, logs=None):
            self.calls.append(("batch_begin", batch))

        def on_train_batch_end(self, batch, logs=None):
            self.calls.append(("batch_end", batch, dict(logs)))

        def on_test_begin(self, logs=None):
            self.calls.append(("test_begin",))

        def on_test_end(self, logs=None):
            self.calls.append(("test_end", dict(logs)))

    return Recorder()


def worsening(keras):
    """A callback that makes the weights worse from the second epoch of each network on."""

    class Worsening(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch:
                self.model.set_weights([weights * -2 for weights in self.model.get_weights()])

    return Worsening()


@pytest.mark.parametrize("steps_per_execution", [5, 15])
def test_the_calls_are_those_of_fit(keras, make_model, data, steps_per_execution):
    fitted, trained = recorder(keras), recorder(keras)
    plain = make_model()
    plain.compile(
        keras.optimizers.Adam(0.01), plain.loss, metrics=["accuracy"], steps_per_execution=steps_per_execution
    )
    batches = tf.data.Dataset.from_tensor_slices(data).batch(16)  # the same order for both
    plain.fit(batches, epochs=3, validation_data=data, verbose=0, callbacks=[fitted])

    masked = MaskedModel(make_model())
    loop = Loop(
        masked.model,
        Stream("training", batches),
        {"validation": data},
        batch_size=16,
        chunk=steps_per_execution,
    )
    listener = KerasCallbacks(masked.model, [trained], steps=45, eval_every=15)
    train = Trainer(masked, loop, steps=45, eval_every=15, order_key=(0, 1), listeners=[listener])
    train(Start(0, "ticket", masks.ones(masked.shapes), masked.fresh_state))

    assert len(trained.calls) == len(fitted.calls) == 2 + 3 * (4 + 2 * 15 // steps_per_execution)
    for ours, theirs in zip(trained.calls, fitted.calls):
        assert ours[:-1] == theirs[:-1]
        assert ours[-1] == (pytest.approx(theirs[-1], rel=1e-4) if isinstance(ours[-1], dict) else theirs[-1])
        if isinstance(ours[-1], dict):
            assert list(ours[-1]) == list(theirs[-1])


def test_the_last_batch_of_an_epoch_may_be_shorter(keras, make_model, data):
    masked = MaskedModel(make_model())
    loop = Loop(masked.model, data, {"validation": data}, batch_size=16, chunk=4)
    heard = recorder(keras)
    listener = KerasCallbacks(masked.model, heard, steps=32, eval_every=10)
    train = Trainer(masked, loop, steps=32, eval_every=10, order_key=(0, 1), listeners=[listener])
    train(Start(0, "ticket", masks.ones(masked.shapes), masked.fresh_state))
    assert [batch for (batch,) in heard.of("batch_begin")] == [0, 4, 8] * 3 + [0]
    assert [batch for batch, _ in heard.of("batch_end")] == [3, 7, 9] * 3 + [1]


@pytest.mark.parametrize(("rewind_step", "first"), [(5, 0), (18, 1)])
def test_epochs_lie_between_evaluations_and_go_on_after_a_rewind(keras, make_model, data, rewind_step, first):
    heard = recorder(keras)
    search(make_model(), data, heard, steps=32, eval_every=10, rewind_step=rewind_step)
    (dense,), (ticket,) = heard.of("train_begin")
    assert (dense["epochs"], ticket["epochs"]) == (4, 4)
    assert [epoch for epoch, _ in heard.of("epoch_end")] == [*range(4), *range(first, 4)]


def test_every_arm_is_a_fit_of_its_own(keras, make_model, data):
    made = []

    def make(level, arm):
        made.append((level, arm, recorder(keras)))
        return [made[-1][2]]

    search(make_model(), data, make, controls=["reinit"])
    assert [(level, arm) for level, arm, _ in made] == [(0, "ticket"), (1, "ticket"), (1, "reinit")]
    for _, _, heard in made:
        assert [call[0] for call in heard.calls[:2]] == ["train_begin", "epoch_begin"]
        assert len(heard.of("epoch_end")) == 3 and len(heard.of("train_end")) == 1
        assert set(heard.of("train_end")[0][0]) == {"accuracy", "loss", "val_accuracy", "val_loss"}


def test_a_function_may_give_one_callback_or_none(keras, make_model, data):
    heard = recorder(keras)
    search(make_model(), data, lambda level, arm: heard if level else None)
    assert len(heard.of("train_end")) == 1


def test_an_epoch_is_a_pass_where_eval_every_is_not_given(keras, make_model, data):
    heard = recorder(keras)
    search(make_model(), data, heard, levels=0, steps=None, eval_every=None, epochs=2)  # one needs no list
    assert heard.of("train_begin") == [({"epochs": 2, "steps": 15, "verbose": 0},)]
    assert len(heard.of("epoch_end")) == 2


def test_model_checkpoint_keeps_the_best_of_each_level(keras, make_model, data, tmp_path):
    def make(level, arm):
        path = str(tmp_path / f"{level}.keras")
        saves = keras.callbacks.ModelCheckpoint(path, monitor="val_loss", save_best_only=True)
        return [worsening(keras), saves, heard[level]]

    heard = [recorder(keras), recorder(keras)]
    model = make_model()
    before = model.get_weights()
    ticket = search(model, data, make)
    for level in (0, 1):
        saved = keras.models.load_model(tmp_path / f"{level}.keras")
        losses = [logs["val_loss"] for _, logs in heard[level].of("epoch_end")]
        assert np.argmin(losses) == 0 and len(losses) == 3
        loss, _ = saved.evaluate(*data, batch_size=240, verbose=0)
        assert loss == pytest.approx(losses[0], rel=1e-5)
        zeros = sum(int((kernel == 0).sum()) for kernel in saved.get_weights()[::2])
        pruned = round(sum(kernel.size for kernel in before[::2]) * (1 - ticket.history[level]["density"]))
        assert zeros == pruned and (zeros > 0) == (level == 1)


def test_early_stopping_starts_anew_at_each_level(keras, make_model, data):
    heard = recorder(keras)
    stops = keras.callbacks.EarlyStopping("val_loss", patience=1)
    ticket = search(make_model(), data, [worsening(keras), stops, heard], steps=90)
    assert [epoch for epoch, _ in heard.of("epoch_end")] == [0, 1, 0, 1]
    assert [row["last_step"] for row in ticket.history] == [30, 30]
    assert [row["early_stop_step"] for row in ticket.history] == [15, 15]


def test_what_early_stopping_restores_is_what_is_pruned(keras, make_model, data):
    best, scored, restored = [], [], []

    class Best(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                best.append(self.model.get_weights())

        def on_train_end(self, logs=None):
            restored.append(self.model.get_weights())

    def criterion(evidence):
        scored.append(evidence.final)
        return tf_lottery.CRITERIA["magnitude"](evidence)

    stops = keras.callbacks.EarlyStopping("val_loss", patience=1, restore_best_weights=True)
    search(make_model(), data, [worsening(keras), Best(), stops], criterion=criterion)
    assert len(best) == 2 and len(scored) == 1
    for kernel, path in zip(best[0][::2], ("fc1/kernel", "fc2/kernel", "output/kernel")):
        np.testing.assert_array_equal(scored[0][path], kernel)
    assert not np.array_equal(restored[0][0], best[0][0])  # Best is called before EarlyStopping


def test_csv_logger_writes_a_row_for_each_epoch(keras, make_model, data, tmp_path):
    search(
        make_model(),
        data,
        lambda level, arm: [keras.callbacks.CSVLogger(str(tmp_path / f"{level}_{arm}.csv"))],
        controls=["shuffle"],
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "0_ticket.csv",
        "1_shuffle.csv",
        "1_ticket.csv",
    ]
    for path in tmp_path.iterdir():
        with path.open() as file:
            rows = list(csv.DictReader(file))
        assert [row["epoch"] for row in rows] == ["0", "1", "2"]
        assert set(rows[0]) == {"epoch", "accuracy", "loss", "val_accuracy", "val_loss"}
        assert all(float(value) >= 0 for row in rows for value in row.values())


def test_a_learning_rate_that_falls_is_back_for_the_next_network(keras, make_model, data):
    rates = []

    class Rates(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            rates.append(float(np.asarray(self.model.optimizer.learning_rate)))

    falls = keras.callbacks.ReduceLROnPlateau("val_loss", factor=0.1, patience=1)
    model = make_model(keras.optimizers.Adam(0.01))
    callbacks = [Rates(), worsening(keras), falls]
    # A control by redrawing starts with an optimizer that is made anew.
    search(model, data, callbacks, controls=["reinit", "shuffle"])
    assert rates == pytest.approx([0.01, 0.01, 0.001] * 4, rel=1e-5)
    assert float(np.asarray(model.optimizer.learning_rate)) == pytest.approx(0.01)


def test_a_learning_rate_scheduler_is_obeyed(keras, make_model, data):
    kernels = []

    class Kernels(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernels.append(self.model.get_weights()[0])

    rate = keras.callbacks.LearningRateScheduler(lambda epoch: 0.0 if epoch == 1 else 0.01)
    search(make_model(), data, [rate, Kernels()], levels=0)
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.array_equal(kernels[1], kernels[2])


def test_tensorboard_writes_its_files(keras, make_model, data, tmp_path):
    def make(level, arm):
        return keras.callbacks.TensorBoard(str(tmp_path / str(level)), histogram_freq=1, update_freq="batch")

    search(make_model(), data, make)
    for level in ("0", "1"):
        for part in ("train", "validation"):
            (events,) = (tmp_path / level / part).glob("events.out.tfevents.*")
            assert b"epoch_loss" in events.read_bytes()


def test_stopping_at_a_batch_ends_the_network_there(keras, make_model, data):
    class Stopping(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    heard = recorder(keras)
    ticket = search(make_model(), data, [Stopping(), heard], steps=500, eval_every=250)
    assert [row["last_step"] for row in ticket.history] == [100, 100]
    assert [call[0] for call in heard.calls] == [
        *("train_begin", "epoch_begin", "batch_begin", "batch_end"),
        *("test_begin", "test_end", "epoch_end", "train_end"),
    ] * 2


def test_stopping_before_the_rewind_step_is_an_error(keras, make_model, data):
    stops = keras.callbacks.EarlyStopping("val_loss", patience=1)
    with pytest.raises(ValueError, match="was stopped at step 30, before step 31 .* lower rewind_step"):
        search(make_model(), data, [worsening(keras), stops], rewind_step=31)


@pytest.mark.parametrize("hook", ["on_train_batch_end", "on_train_end"])
def test_what_a_callback_raises_comes_through(keras, make_model, data, hook):
    class MyError(Exception):
        pass

    def fail(*arguments, **named):
        raise MyError("mine")

    callback = keras.callbacks.Callback()
    setattr(callback, hook, fail)
    model = make_model()
    before = model.get_weights()
    with pytest.raises(MyError, match="^mine$") as caught:
        search(model, data, lambda level, arm: callback if level else [])
    assert caught.value.__cause__ is None
    for now, then in zip(model.get_weights(), before):
        np.testing.assert_array_equal(now, then)
    assert int(np.asarray(model.optimizer.iterations)) == 0


def test_a_callback_of_the_other_keras_is_refused_by_name(keras, make_model, data):
    import keras as keras_3
    import tf_keras

    other = tf_keras if keras is keras_3 else keras_3
    message = f"The model is one of {keras.__name__}, .* Received: {other.__name__}.*EarlyStopping"
    with pytest.raises(TypeError, match=message):
        search(make_model(), data, [other.callbacks.EarlyStopping()])
    with pytest.raises(TypeError, match=message):
        search(make_model(), data, lambda level, arm: [other.callbacks.EarlyStopping()])
    with pytest.raises(TypeError, match="expected a .*callbacks.Callback. Received: builtins.str"):
        search(make_model(), data, ["EarlyStopping"])


def test_backup_and_restore_is_refused(keras, make_model, data, tmp_path):
    with pytest.raises(ValueError, match="BackupAndRestore would bring .* give find_ticket a workdir"):
        search(make_model(), data, [keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))])


def test_an_interrupted_network_is_trained_again_from_its_start(keras, make_model, data, tmp_path):
    class Interrupting(keras.callbacks.Callback):
        at = None

        def on_epoch_end(self, epoch, logs=None):
            heard.append(epoch)
            if len(heard) == self.at:
                raise KeyboardInterrupt

    def callbacks():
        return [Interrupting(), keras.callbacks.EarlyStopping("val_loss", patience=2)]

    heard = []
    search(make_model(), data, callbacks(), workdir=tmp_path / "whole")
    assert heard == [0, 1, 2, 0, 1, 2]
    heard.clear()
    Interrupting.at = 5
    with pytest.raises(KeyboardInterrupt):
        search(make_model(), data, callbacks(), workdir=tmp_path / "parts")
    heard.clear()
    search(make_model(), data, callbacks(), workdir=tmp_path / "parts")
    assert heard == [0, 1, 2]
    results = [(tmp_path / run / "results.csv").read_bytes() for run in ("whole", "parts")]
    assert results[0] == results[1] and results[0].count(b"\n") == 3


def test_names_tell_callbacks_apart(keras):
    class Making:
        def __call__(self, level, arm):
            return []

    def by_level(level, arm):
        return []

    assert callbacks_module.names(by_level) == ["by_level"]
    assert callbacks_module.names(Making()) == ["Making"]
    assert callbacks_module.names(keras.callbacks.History()) == ["History"]
    assert callbacks_module.names(None) == callbacks_module.names([]) == []
