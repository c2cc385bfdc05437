"""What a network predicts, and whether its weights are numbers."""

import numpy as np
import pytest

from tf_lottery.training.replicas import Replicas
from tf_lottery.training.soundness import Soundness


def soundness(model, x, y=None):
    return Soundness(model, Replicas(model.distribute_strategy), (x, np.zeros(len(x)) if y is None else y))


def set_output(model, kernel, bias):
    model.layers[-1].set_weights([np.broadcast_to(kernel, model.layers[-1].kernel.shape), np.array(bias)])


def test_how_many_classes_are_predicted(make_model, data):
    model, (x, y) = make_model(), data
    looks = soundness(model, x, y)
    predicted = model.predict(x, verbose=0).argmax(-1)
    assert looks.classes_predicted() == len(set(predicted)) > 1
    set_output(model, 0, [0, 1, 0])  # the weights of now count
    assert looks.classes_predicted() == 1


def test_a_column_has_two_classes_or_says_nothing(keras, make_inner_product):
    model, x = make_inner_product(), np.random.default_rng(0).normal(size=(20, 10)).astype(np.float32)
    assert soundness(model, x).classes_predicted() == 2
    assert soundness(model, x[:1].repeat(20, 0)).classes_predicted() == 1


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
