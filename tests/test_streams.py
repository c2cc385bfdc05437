"""Searches on data that come batch by batch."""

import gc
import weakref

import numpy as np
import pytest
import tensorflow as tf

import tf_lottery
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.training.loop import Loop
from tf_lottery.training.runs import ReplicateStore
from tf_lottery.training.streams import Stream

# 240 examples are 14 batches of 17 and one of 2.
BATCH, PASS = 17, 15
SMALL = {"steps": 2 * PASS, "eval_every": 10, "levels": 1, "verbose": 0}


# XLA rounds in another way than `fit`.
pytestmark = pytest.mark.usefixtures("no_xla")


def as_dataset(keras, data, batch_size=BATCH):
    return tf.data.Dataset.from_tensor_slices(data).batch(batch_size)


def as_sequence(keras, data):
    """The flavour's own kind of data set: PyDataset, or Sequence."""
    base = keras.utils.PyDataset if hasattr(keras.utils, "PyDataset") else keras.utils.Sequence

    class Batches(base):
        ended = 0

        def __len__(self):
            return -(-len(data[0]) // BATCH)

        def __getitem__(self, index):
            assert 0 <= index < len(self)
            return tuple(part[index * BATCH : (index + 1) * BATCH] for part in data)

        def on_epoch_end(self):
            self.ended += 1

    return Batches()


KINDS = pytest.mark.parametrize("kind", [as_dataset, as_sequence])


def searched(keras, model, batches, **arguments):
    """Searches; returns the ticket, and the weights with which the first network ended."""
    final = []

    class Last(keras.callbacks.Callback):
        def on_train_end(self, logs=None):
            final.append(self.model.get_weights())

    ticket = tf_lottery.find_ticket(model, batches, **{**SMALL, "callbacks": Last(), **arguments})
    return ticket, final[0]


def assert_equal_weights(ones, others):
    assert len(ones) == len(others)
    for one, other in zip(ones, others):
        np.testing.assert_array_equal(one, other)


@KINDS
def test_a_mask_of_ones_trains_as_fit_does_bit_for_bit(keras, make_model, data, kind):
    batches = kind(keras, data)
    _, ours = searched(keras, make_model(), batches, levels=0, validation_data=data)
    if kind is as_sequence:
        assert batches.ended == 1  # the second pass was not asked for more than its last batch
    plain = make_model()
    plain.fit(kind(keras, data), epochs=2, shuffle=False, verbose=0)
    assert_equal_weights(ours, plain.get_weights())


@KINDS
def test_evaluation_is_that_of_evaluate(keras, make_model, data, kind):
    batches, model = kind(keras, data), make_model()
    sources = {"validation": Stream("validation", batches)}
    loop = Loop(MaskedModel(model).model, data, sources, batch_size=16, chunk=4)
    theirs = model.evaluate(batches, verbose=0, return_dict=True)
    for _ in range(2):
        assert loop.evaluate("validation") == pytest.approx(theirs, rel=1e-6)


def test_validation_and_test_data_may_be_data_sets(keras, make_model, data):
    x, y = data
    first, rest = (x[:100], y[:100]), (x[100:], y[100:])
    batches = as_dataset(keras, data, 16)
    as_arrays, _ = searched(keras, make_model(), batches, validation_data=first, test_data=rest)
    first, rest = as_dataset(keras, first), as_sequence(keras, rest)
    ticket, _ = searched(keras, make_model(), batches, validation_data=first, test_data=rest)
    for row, expected in zip(ticket.history, as_arrays.history):
        assert row["metrics"] == pytest.approx(expected["metrics"], rel=1e-4, nan_ok=True)
        assert row["test_accuracy_at_early_stop"] > 0.3


def test_a_pass_may_be_of_any_length(keras, make_model, data):
    whole = as_dataset(keras, data, 16)
    unknown, unknown_endless = (d.filter(lambda x, y: True) for d in (whole, whole.repeat()))
    plain = make_model()
    plain.fit(whole, epochs=2, verbose=0)
    for batches, length in {
        whole: {"steps": None, "epochs": 2},
        unknown: {"steps": None, "epochs": 2, "validation_data": unknown},
        whole.repeat(): {"eval_every": None},
        unknown_endless: {"eval_every": None},
    }.items():
        arguments = {"levels": 0, "validation_data": data, **length}
        ticket, weights = searched(keras, make_model(), batches, **arguments)
        assert ticket.provenance["steps"] == 30
        assert_equal_weights(weights, plain.get_weights())


def test_a_pydataset_may_be_endless(data):
    import keras

    class Endless(keras.utils.PyDataset):
        num_batches = None

        def __getitem__(self, index):
            return tuple(np.take(part, range(index * 16, index * 16 + 16), 0, mode="wrap") for part in data)

    stream = Stream("training", Endless())
    assert stream.endless and stream.count() is None
    (x, _), *_ = stream.order().batches(15, 2)
    np.testing.assert_array_equal(x.reshape(32, 8), data[0][:32])


def test_each_pass_over_a_pydataset_is_told_to_it(data):
    import keras

    told = []

    class Telling(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            told.append(index)
            return [data[0][:4], data[1][:4]]  # to Keras, a list is a tuple

        def on_epoch_begin(self):
            told.append("begin")

        def on_epoch_end(self):
            told.append("end")

    stream = Stream("training", Telling())
    assert [len(part) for part in stream.first] == [4, 4] and stream.describe()
    assert told == [0]
    stream.order().batches(0, 3)
    assert told == [0, "begin", 0, 1, "end", "begin", 0]


@pytest.mark.parametrize("parts", [[(0, 7)], [(0, 3), (3, 4)], [(3, 4)], [(5, 2)]])
def test_batches_depend_on_the_step_and_not_on_how_they_are_asked_for(parts):
    stream = Stream("training", tf.data.Dataset.range(5).batch(2))  # 0 1, 2 3, 4; 0 1, ...
    order = stream.order()
    for step, count in parts:
        found = [row.tolist() for (run,) in order.batches(step, count) for row in run]
        assert found == [[[0, 1], [2, 3], [4]][i % 3] for i in range(step, step + count)]


def test_a_data_set_is_let_go_of_without_the_garbage_collector(data):
    order = Stream("training", tf.data.Dataset.range(5).batch(2)).order()
    order.batches(0, 1)
    gone = weakref.ref(order)
    gc.disable()
    try:
        del order
        assert gone() is None
    finally:
        gc.enable()


def test_inputs_and_outputs_by_name(keras, data):
    def make():
        inputs = {name: keras.layers.Input((width,), name=name) for name, width in {"a": 5, "b": 3}.items()}
        joined = keras.layers.Concatenate()(list(inputs.values()))
        kernel = keras.initializers.GlorotNormal(seed=1)
        out = keras.layers.Dense(3, kernel_initializer=kernel, name="out")(joined)
        size = keras.layers.Dense(1, kernel_initializer=kernel, name="size")(joined)
        model = keras.Model(inputs, {"out": out, "size": size})
        losses = {"out": keras.losses.SparseCategoricalCrossentropy(from_logits=True), "size": "mse"}
        model.compile(keras.optimizers.Adam(0.01), losses)
        return model

    x, y = data
    named = {"a": x[:, :5], "b": x[:, 5:]}, {"out": y, "size": np.float32(np.linalg.norm(x, axis=1)[:, None])}
    batches = as_dataset(keras, named, 16)
    ticket, ours = searched(keras, make(), batches, levels=0, validation_data=batches)
    plain = make()
    plain.fit(batches, epochs=2, verbose=0)
    assert_equal_weights(ours, plain.get_weights())
    assert {"out/kernel", "size/kernel"} == ticket.mask.keys()


def test_sample_weights_in_the_data_set(keras, make_model, data):
    weights = np.random.default_rng(3).random(240).astype(np.float32) * 3
    batches = as_dataset(keras, (*data, weights), 16)
    _, ours = searched(keras, make_model(), batches, levels=0, validation_data=data)
    plain, unweighted = make_model(), make_model()
    plain.fit(batches, epochs=2, verbose=0)
    assert_equal_weights(ours, plain.get_weights())
    unweighted.fit(as_dataset(keras, data, 16), epochs=2, verbose=0)
    assert not np.array_equal(ours[0], unweighted.get_weights()[0])


def test_class_weights_of_a_data_set(keras, make_model, data):
    weights = {0: 5.0, 1: 0.5, 2: 1.0}
    batches = as_dataset(keras, data, 16)
    _, ours = searched(keras, make_model(), batches, levels=0, validation_data=data, class_weight=weights)
    plain = make_model()
    plain.fit(batches, epochs=2, shuffle=False, verbose=0, class_weight=weights)
    assert_equal_weights(ours, plain.get_weights())


def test_inputs_alone(keras, data):
    class Size(keras.layers.Layer):
        def call(self, inputs):
            self.add_loss(tf.reduce_mean(tf.square(inputs)))
            return inputs

    def make():
        kernel = keras.initializers.GlorotNormal(seed=1)
        dense = keras.layers.Dense(4, kernel_initializer=kernel, name="dense")
        model = keras.Sequential([keras.layers.Input((8,)), dense, Size()])
        model.compile(keras.optimizers.SGD(0.1))
        return model

    batches = as_dataset(keras, data[0], 16)
    ticket, ours = searched(keras, make(), batches, levels=0, validation_data=batches)
    plain = make()
    plain.fit(batches, epochs=2, verbose=0)
    assert_equal_weights(ours, plain.get_weights())
    assert ticket.history[0]["early_stop_step"] == 30


def test_a_workdir_lets_a_search_on_a_data_set_go_on(keras, make_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(ReplicateStore, "wants_progress", lambda store: True)
    read = []

    def search(run, fails_at=None):
        inner = as_sequence(keras, data)

        class Counted(type(inner)):
            def __getitem__(self, index):
                read.append(index)
                if len(read) == fails_at:
                    raise KeyboardInterrupt
                return super().__getitem__(index)

        arguments = {**SMALL, "validation_data": data, "rewind_step": 3, "workdir": tmp_path / run}
        read.clear()
        tf_lottery.find_ticket(make_model(), Counted(), **arguments)
        return (tmp_path / run / "results.csv").read_bytes()

    whole = search("whole")
    for fails_at in (25, 55):  # in level 0, then in level 1
        with pytest.raises(KeyboardInterrupt):
            search("parts", fails_at)
    assert search("parts") == whole and whole.count(b"\n") == 3
    # One to look at, and those up to the checkpoint at step 20 are passed over.
    assert len(read) == 31 and read[:3] == [0, 0, 1]


def test_another_data_set_is_told_from_a_first(keras, data):
    x, y = data
    given = [
        Stream("training", as_dataset(keras, data)),
        Stream("training", as_dataset(keras, (x[:100], y[:100]))),
        Stream("training", as_dataset(keras, (x[:, :7], y))),
        Stream("training", as_dataset(keras, (x, y.astype(np.int64)))),
        Stream("training", as_dataset(keras, data), {0: 2.0}),
    ]
    assert len({stream.describe() for stream in given}) == 5
    assert given[0].describe() == Stream("training", as_dataset(keras, data)).describe()


def test_data_sets_that_cannot_be_searched_are_refused(keras, make_model, data):
    model, (x, y) = make_model(), data
    good, unbatched = as_dataset(keras, data), tf.data.Dataset.from_tensor_slices(data)
    given = {"validation_data": data}
    one_hot = tf.data.Dataset.from_tensor_slices((x, np.eye(3)[y]))
    ragged = tf.data.Dataset.from_tensors((tf.ragged.constant([[1], [2, 3]]), [0, 1]))
    words = tf.data.Dataset.from_tensor_slices((np.array(["a", "b"]), [0, 1])).batch(2)
    holey = tf.data.Dataset.from_tensors((x, None, np.ones(240)))
    dry, five_parts = good.filter(lambda x, y: False), good.map(lambda x, y: (x, y, y, y, y))
    for batches, arguments, error, message in [
        (good, {}, ValueError, r"not split: give validation_data, \(x, y\) or another data set"),
        (good, {**given, "y": y}, ValueError, "gives y itself: leave y out"),
        (good, {**given, "sample_weight": y}, ValueError, "gives sample_weight itself"),
        (good, {"validation_data": good.repeat()}, ValueError, r"validation data set never ends.*take"),
        (good, {**given, "test_data": good.repeat()}, ValueError, "test data set never ends"),
        (good, {"validation_data": good.take(0)}, ValueError, "validation data set is empty"),
        (good, {"validation_data": (item for item in ())}, TypeError, "validation data are a generator"),
        (good, {"validation_data": unbatched}, ValueError, r"validation data set must give .*batch\(32\)"),
        (good.take(0), given, ValueError, "training data set is empty. Expected one batch"),
        (dry, given, ValueError, "training data set is empty. Expected one batch"),
        (good.repeat(), {**given, "steps": None, "epochs": 2}, ValueError, "never ends: give steps"),
        (unbatched, given, ValueError, r"Received shapes \(8,\), \(\). Batch it: dataset.batch\(32\)"),
        (one_hot, given, ValueError, r"Received shapes \(8,\), \(3,\). Batch it: dataset.batch\(32\)"),
        (ragged, given, TypeError, "training data hold a RaggedTensor, and must be dense"),
        (words, given, TypeError, "must be arrays of numbers.*Received: .* of object"),
        (holey, given, ValueError, "have sample weights, and no y that they weigh"),
        (five_parts, given, ValueError, r"must be x, \(x, y\) or .* Received 5 parts"),
        (iter(good), given, TypeError, "which can be read once.*a tf.data.Dataset or"),
    ]:
        with pytest.raises(error, match=message):
            tf_lottery.find_ticket(model, batches, **{**SMALL, **arguments})


def test_batches_that_the_model_cannot_take_are_refused(keras, make_model, data):
    x, y = data
    single = tf.data.Dataset.from_tensor_slices(x)
    refused = {
        r"inputs of shape \(8,\). The training x has \(7,\) per example": as_dataset(keras, (x[:, :7], y)),
        "The training y has labels 1 to 3": as_dataset(keras, (x, y + 1)),
        "the training data have no y for it": as_dataset(keras, x),
    }
    for message, batches in refused.items():
        with pytest.raises(ValueError, match=message):
            tf_lottery.find_ticket(make_model(), batches, validation_data=data, **SMALL)
    reconstructing = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(8)])
    reconstructing.compile("sgd")
    with pytest.raises(ValueError, match=r"has \(\) per example. It looks like one .*batch\(32\)"):
        tf_lottery.find_ticket(reconstructing, single, validation_data=(x,), **SMALL)


def test_a_data_set_that_runs_dry_is_told(data):
    class OnlyOnce:
        passes = 0

        def __len__(self):
            return 2 if self.passes == 0 else 0

        def __getitem__(self, index):
            return data[0][:4], data[1][:4]

        def on_epoch_end(self):
            self.passes += 1

    with pytest.raises(ValueError, match="gave no batch in its pass 2. It needs to give some"):
        Stream("training", OnlyOnce()).order().batches(0, 3)
