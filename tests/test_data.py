"""The order of the data, and what is not data."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.training import data
from tf_lottery.training.data import DataOrder


def test_each_epoch_shows_every_example_once():
    stream = DataOrder(10, 3, 0, 1).batches(0, 20).ravel()
    for epoch in range(6):
        assert sorted(stream[epoch * 10 : epoch * 10 + 10]) == list(range(10))
    assert not np.array_equal(stream[:10], stream[10:20])


def test_batches_depend_on_the_step_and_not_on_how_they_are_asked_for():
    whole = DataOrder(10, 3, 0, 1).batches(0, 12)
    order = DataOrder(10, 3, 0, 1)
    parts = [order.batches(9, 3), order.batches(0, 4), order.batches(4, 5)]
    np.testing.assert_array_equal(np.concatenate([parts[1], parts[2], parts[0]]), whole)


def test_a_batch_may_be_larger_than_the_data():
    batches = DataOrder(4, 10, 0).batches(0, 2)
    assert batches.shape == (2, 10)
    assert np.bincount(batches.ravel()).tolist() == [5, 5, 5, 5]


@pytest.mark.parametrize("key", [(0, 2), (1, 1), (0, 1, 1)])
def test_another_key_gives_another_order(key):
    assert not np.array_equal(DataOrder(50, 5, 0, 1).batches(0, 10), DataOrder(50, 5, *key).batches(0, 10))


def test_the_order_is_pinned():
    assert DataOrder(6, 3, 0, 1, 2).batches(0, 2).tolist() == [[0, 5, 4], [1, 2, 3]]


def test_a_split_holds_out_its_share_once():
    x = np.arange(100)
    (train, _), (validation, labels) = data.split((x, x * 2), 0.1, 0)
    assert len(validation) == 10 and sorted([*train, *validation]) == list(range(100))
    np.testing.assert_array_equal(labels, validation * 2)
    assert not np.array_equal(data.split((x, x), 0.1, 1)[1][0], validation)


@pytest.mark.parametrize("share", [0.0, 1.0, 0.001])
def test_a_split_that_leaves_a_side_empty_is_refused(share):
    with pytest.raises(ValueError, match=f"validation_split must be in .* Received {share}"):
        data.split((np.arange(10), np.arange(10)), share, 0)


def test_what_is_no_data_is_refused():
    with pytest.raises(
        ValueError, match="training data need as many labels.* Received arrays of 4, 3 examples"
    ):
        data.as_examples("training", np.zeros((4, 2)), np.zeros(3))
    with pytest.raises(TypeError, match="arrays of numbers.* Received: ndarray"):
        data.as_examples("training", np.array([{}, {}]), np.zeros(2))
    with pytest.raises(ValueError, match="have sample weights, and no y"):
        data.as_examples("training", np.zeros(2), None, np.zeros(2))
    with pytest.raises(TypeError, match="hold a RaggedTensor, and must be dense"):
        data.as_examples("training", tf.ragged.constant([[1], [1, 2]]), np.zeros(2))


def test_nested_examples_are_split_and_taken_leaf_by_leaf():
    x = {"a": np.arange(10), "b": (np.arange(10) * 2, tf.range(10) * 3)}
    examples = data.as_examples("training", x, np.arange(10) * 4)
    assert data.count(examples) == 10
    for part in data.split(examples, 0.3, 0):
        rows = part[0]["a"]
        np.testing.assert_array_equal(part[0]["b"][0], rows * 2)
        np.testing.assert_array_equal(part[0]["b"][1], rows * 3)
        np.testing.assert_array_equal(part[1], rows * 4)


@pytest.mark.parametrize("y", [[0, 2, 1, 2], [[0], [2], [1], [2]], np.eye(3)[[0, 2, 1, 2]]])
def test_class_weights_become_sample_weights(y):
    weighted = data.weigh_classes((np.zeros(4), np.asarray(y)), {0: 5.0, 2: 0.5})
    np.testing.assert_array_equal(weighted[2], np.float32([5, 0.5, 1, 0.5]))


def test_class_weights_beside_sample_weights_are_refused():
    with pytest.raises(ValueError, match="class_weight needs one array y of labels, and no sample weights"):
        data.weigh_classes((np.zeros(2), np.zeros(2), np.zeros(2)), {0: 1.0})
    with pytest.raises(ValueError, match="one label for each example. Received y of shape .2, 3, 1"):
        data.weigh_classes((np.zeros(2), np.zeros((2, 3, 1))), {0: 1.0})


def test_inputs_that_keras_reshapes_and_labels_that_a_loss_ignores_are_taken():
    import keras

    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(3)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=-1))
    data.check_fits(model, (np.zeros(4, np.float32), np.array([0, -1, 2, 1])), "training")
    with pytest.raises(ValueError, match="labels 0 to 2. The training y has labels 0 to 3"):
        data.check_fits(model, (np.zeros(4, np.float32), np.array([0, -1, 3, 1])), "training")
