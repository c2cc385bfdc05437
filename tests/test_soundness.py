"""What a network predicts, and whether its weights are numbers."""

import numpy as np
import pytest

from tf_lottery.training.replicas import Replicas
from tf_lottery.training.soundness import Soundness


def soundness(model, x, y=None):
    return Soundness(
        model, Replicas(model.distribute_strategy), (x, np.arange(len(x)) % 2 if y is None else y)
    )


def set_output(model, kernel, bias):
    model.layers[-1].set_weights([np.broadcast_to(kernel, model.layers[-1].kernel.shape), np.array(bias)])


def test_how_many_classes_are_predicted(make_model, data):
    model, (x, y) = make_model(), data
    looks = soundness(model, x, y)
    predicted = model.predict(x, verbose=0).argmax(-1)
    assert looks.classes_predicted() == len(set(predicted)) > 1
    set_output(model, 0, [0, 1, 0])  # the weights of now count
    assert looks.classes_predicted() == 1


@pytest.mark.parametrize(
    ("outputs", "classes"),
    [
        ((0.31, 0.38), 1),  # probabilities of a network that always says no
        ((0.31, 0.62), 2),
        ((0.62, 0.71), 1),
        ((-3.1, -0.2), 1),  # logits
        ((-3.1, 0.2), 2),
        ((1, 1), 1),
    ],
)
def test_a_column_has_two_classes_where_it_is_on_two_sides(make_inner_product, outputs, classes):
    x = np.zeros((20, 10), np.float32)
    x[:, 1] = np.linspace(*outputs, 20)
    assert soundness(make_inner_product(), x).classes_predicted() == classes


def test_data_that_are_sorted_are_looked_at_all_over(make_model):
    y = np.repeat([0, 1, 2], 1000)
    x = np.eye(8, dtype=np.float32)[y]
    model = make_model(widths=())
    model.set_weights([np.eye(8, 3), np.zeros(3)])
    assert soundness(model, x, y).classes_predicted() == 3


def test_examples_of_one_class_say_nothing(make_model, data):
    model, (x, _) = make_model(), data
    assert soundness(model, x, np.ones(len(x))).classes_predicted() == 0
    assert soundness(model, x, np.tile([0.0, 1, 0], (len(x), 1))).classes_predicted() == 0
    assert soundness(model, x, np.eye(3)[np.arange(len(x)) % 3]).classes_predicted() > 1


def test_a_model_that_runs_eagerly_and_one_that_cannot_be_called(keras, data):
    class Eager(keras.Model):
        def __init__(self, raises):
            super().__init__()
            self.raises, self.output_layer = raises, keras.layers.Dense(3)

        def call(self, x):
            if self.raises:
                raise RuntimeError("It is trained by other means.")
            return self.output_layer(x) + 0 * float(np.sum(x.numpy()))

    for raises in (False, True):
        model = Eager(raises=False)
        model.compile("sgd", "mse", run_eagerly=True)
        model(data[0][:2])
        model.raises = raises
        assert (soundness(model, *data).classes_predicted() > 0) is not raises


def test_each_element_of_a_sequence_has_a_class(keras):
    model = keras.Sequential([keras.layers.Input((4, 3)), keras.layers.Dense(5)])
    model.compile("sgd", "mse")
    x = np.random.default_rng(0).normal(size=(8, 4, 3)).astype(np.float32)
    assert soundness(model, x).classes_predicted() == len(set(model.predict(x, verbose=0).argmax(-1).ravel()))


def test_several_outputs_are_not_looked_at(keras):
    given = keras.Input((8,))
    model = keras.Model(given, [keras.layers.Dense(3)(given), keras.layers.Dense(2)(given)])
    model.compile("sgd", ["mse", "mse"])
    assert soundness(model, np.ones((5, 8), np.float32)).classes_predicted() == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers(make_model, data, value):
    model = make_model(batch_norm=True)
    looks = soundness(model, *data)
    assert looks.is_finite()
    mean = model.layers[1].moving_mean  # it is not trained
    mean.assign(np.full(mean.shape, value))
    assert not looks.is_finite()
