"""Which Keras a model is of, and that importing TF-MOT changes nothing for the program."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from tf_lottery.keras_api import flavour

ROOT = pathlib.Path(__file__).parent.parent


def test_the_flavour_is_that_of_the_model(keras):
    inputs = keras.layers.Input((2,))
    outputs = keras.layers.Dense(1)(inputs)

    class Net(keras.Model):
        pass

    for model in (keras.Sequential(), keras.Model(inputs, outputs), Net()):
        assert flavour.flavour_of(model) == keras.__name__


def test_the_flavour_gives_the_module(keras):
    assert flavour.keras_module(keras.__name__) is keras


@pytest.mark.parametrize(
    ("thing", "name"),
    [(None, "builtins.NoneType"), ("model", "builtins.str"), (pathlib.PurePosixPath(), "PurePosixPath")],
)
def test_what_is_no_model_is_refused(thing, name):
    with pytest.raises(TypeError, match=rf"Expected a keras.Model .* Received: .*{name}\.$"):
        flavour.flavour_of(thing)


def test_layers_and_classes_are_no_models(keras):
    for thing in (keras.layers.Dense(1), keras.Model, keras.Sequential):
        with pytest.raises(TypeError, match="Expected a keras.Model"):
            flavour.flavour_of(thing)


def test_an_unknown_flavour_is_refused():
    with pytest.raises(ValueError, match="Unknown flavour 'torch'. Expected one of: tf_keras, keras"):
        flavour.keras_module("torch")


def test_another_backend_is_refused(monkeypatch):
    keras = flavour.keras_module("keras")
    model = keras.Sequential()
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    with pytest.raises(TypeError, match="on the 'jax' backend: set KERAS_BACKEND=tensorflow"):
        flavour.flavour_of(model)
    with pytest.raises(ValueError, match="on the 'jax' backend here. Set KERAS_BACKEND=tensorflow"):
        flavour.keras_module("keras")
    assert flavour.flavour_of(flavour.keras_module("tf_keras").Sequential()) == "tf_keras"


@pytest.mark.parametrize("before", [None, "0", "1"])
@pytest.mark.parametrize("inside", [None, "0", "1"])
def test_the_variable_is_put_back_even_after_an_error(monkeypatch, before, inside):
    def put(value):
        if value is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = value

    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "")  # So it is as it was after the test.
    put(before)
    with flavour.keras_environment_kept():
        put(inside)
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before
    with pytest.raises(ImportError), flavour.keras_environment_kept():
        put(inside)
        raise ImportError
    assert os.environ.get("TF_USE_LEGACY_KERAS") == before


def test_importing_tfmot_leaves_the_program_as_it_was():
    code = """
import json, os, sys
sys.modules["sklearn"] = None  # Keras does without, and starts faster.
import tf_lottery.keras_api.tfmot_wrappers
import tensorflow as tf
print(json.dumps([os.environ.get("TF_USE_LEGACY_KERAS"), tf.keras.Sequential.__module__.split(".")[0],
                  "tensorflow_model_optimization" in sys.modules]))
"""
    base = {key: value for key, value in os.environ.items() if key != "TF_USE_LEGACY_KERAS"}
    expected = {None: "keras", "0": "keras", "1": "tf_keras"}
    processes = {
        value: subprocess.Popen(
            [sys.executable, "-c", code],
            env=base if value is None else {**base, "TF_USE_LEGACY_KERAS": value},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for value in expected
    }
    for value, process in processes.items():
        output, _ = process.communicate()
        assert process.returncode == 0
        assert json.loads(output) == [value, expected[value], True]
