"""A masked model stays masked: through `compile`, and through Keras's own files."""

import copy
import json
import pathlib
import pickle
import subprocess
import sys
import zipfile

import numpy as np
import pytest

import tf_lottery
from tf_lottery import files
from tf_lottery.keras_api import flavour, holding
from tf_lottery.keras_api.masked_model import MaskedModel, apply_mask

ROOT = pathlib.Path(__file__).parent.parent
LOAD = """
{imports}
import json, numpy as np
model = {keras}.models.load_model({path!r})
rng = np.random.default_rng(0)
x, y = rng.normal(size=(48, 8)).astype("float32"), rng.integers(0, 3, 48)
def kernels():
    return [w for w in model.get_weights() if w.ndim == 2]
before = kernels()
def moved(): return [bool((w != b).any()) for w, b in zip(kernels(), before)]
def held(): return [bool((w[b == 0] == 0).all()) for w, b in zip(kernels(), before)]
report = [float(np.mean([(w == 0).mean() for w in before]))]
model.fit(x, y, verbose=0)
report += [moved(), held()]
model.compile("adam", {keras}.losses.SparseCategoricalCrossentropy(from_logits=True))
model.fit(x, y, verbose=0)
print(json.dumps([*report, held()]))
"""


@pytest.fixture
def masked(make_model, random_mask):
    model = make_model(batch_norm=True)
    mask = random_mask(MaskedModel(model).shapes)
    return apply_mask(model, mask), mask


def in_a_new_process(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def assert_held(model, mask):
    kernels = MaskedModel(model).kernels()
    for path, array in mask.items():
        assert (kernels[path][~array] == 0).all(), path
        assert np.array_equal(MaskedModel(model).mask()[path], array)


@pytest.mark.parametrize("first", ["tf_lottery", "keras"])
def test_a_model_from_a_file_holds_its_mask_with_nothing_but_the_import(keras, masked, tmp_path, first):
    model, mask = masked
    path = str(tmp_path / "model.keras")
    model.save(path)
    imports = [keras.__name__, "tf_lottery"] if first == "keras" else ["tf_lottery", keras.__name__]
    code = LOAD.format(imports=f"import {', '.join(imports)}", keras=keras.__name__, path=path)
    zeros, moved, held, held_later = in_a_new_process(code)
    assert zeros == pytest.approx(0.6, abs=0.1)
    assert all(moved) and all(held) and all(held_later)


def test_a_model_that_comes_back_is_the_same(keras, masked, tmp_path, data):
    model, mask = masked
    model.fit(*data, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert isinstance(loaded, keras.Sequential)
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), model.predict(data[0], verbose=0))
    for one in (model, loaded):
        one.fit(*data, shuffle=False, verbose=0)
        assert_held(one, mask)
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), model.predict(data[0], verbose=0))


def test_a_subclassed_model_comes_back_with_its_mask(keras, tmp_path, data):
    @keras.saving.register_keras_serializable("test_holding")
    class Own(keras.Model):
        def __init__(self, units=4, **kwargs):
            super().__init__(**kwargs)
            self.units, self.hidden, self.head = units, keras.layers.Dense(units), keras.layers.Dense(3)

        def call(self, x):
            return self.head(self.hidden(x))

        def get_config(self):
            return {"units": self.units}

    model = Own(5)
    model.build((None, 8))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model(data[0][:1])
    masked = MaskedModel(model)
    mask = {path: np.random.default_rng(0).random(shape) < 0.5 for path, shape in masked.shapes.items()}
    masked.set_mask(mask)
    model.save(tmp_path / "own.keras")
    loaded = keras.models.load_model(tmp_path / "own.keras")
    assert isinstance(loaded, Own) and loaded.units == 5
    loaded.fit(*data, verbose=0)
    kernels = list(MaskedModel(loaded).kernels().values())
    for kernel, array in zip(kernels, mask.values()):
        assert (kernel[~array] == 0).all() and kernel.any()


def test_what_keras_could_not_make_anew_it_still_refuses_to_save(tmp_path):
    import keras

    class Needs(keras.Model):
        def __init__(self, layers):
            super().__init__()
            self.dense = layers

        def call(self, x):
            return self.dense(x)

    model = Needs(keras.layers.Dense(3))
    model(np.zeros((1, 8), np.float32))
    messages = []
    for masked in (False, True):
        if masked:
            apply_mask(model, {path: np.ones(s, bool) for path, s in MaskedModel(model).shapes.items()})
        with pytest.raises((NotImplementedError, TypeError)) as error:
            model.save(tmp_path / "needs.keras")
            keras.models.load_model(tmp_path / "needs.keras")
        messages.append(type(error.value))
    assert messages[0] is messages[1]


def test_a_wrapped_model_comes_back_with_its_mask(tmp_path):
    import tf_keras

    layers = tf_keras.layers
    model = tf_lottery.wrap(tf_keras.Sequential([layers.Input((8,)), layers.Dense(4), layers.Dense(3)]))
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    mask = {p: np.random.default_rng(0).random(s) < 0.5 for p, s in MaskedModel(model).shapes.items()}
    apply_mask(model, mask).save(tmp_path / "wrapped.keras")
    path = str(tmp_path / "wrapped.keras")
    zeros, moved, held, held_later = in_a_new_process(
        LOAD.format(imports="import tf_lottery, tf_keras", keras="tf_keras", path=path)
    )
    assert 0.3 < zeros < 0.7 and any(moved) and all(held) and all(held_later)


def test_other_formats_hold_a_plain_model(masked, keras, tmp_path, data):
    model, _ = masked
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert type(loaded) is keras.Sequential
    np.testing.assert_array_equal(loaded.predict(data[0], verbose=0), model.predict(data[0], verbose=0))
    assert isinstance(model, holding.HoldsMasks)


def test_a_failure_leaves_masks_that_were_there(make_model, random_mask):
    inner = make_model()
    mask = random_mask(MaskedModel(inner).shapes)
    apply_mask(inner, mask)
    outer = type(inner).__mro__[2]([inner])
    outer.build((None, 8))
    masked = MaskedModel(outer)
    with pytest.raises(KeyError), masked.undone_on_error():
        raise KeyError
    assert not isinstance(outer, holding.HoldsMasks)
    assert_held(inner, mask)


def test_a_new_compile_masks_the_new_optimizer_too(keras, masked, data):
    model, mask = masked
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    optimizer = keras.optimizers.SGD(0.1, global_clipnorm=0.01)
    model.compile(optimizer, loss)
    model.fit(*data, verbose=0)
    assert_held(model, mask)
    assert model.optimizer is optimizer and optimizer.__class__ is keras.optimizers.SGD


def test_a_model_that_is_masked_first_and_compiled_then_is_the_same(keras, data):
    states = []
    for late in (True, False):
        model = keras.Sequential(
            [
                keras.layers.Input((8,)),
                keras.layers.Dense(5, kernel_initializer=keras.initializers.GlorotNormal(seed=1), name="a"),
                keras.layers.Dense(3, kernel_initializer=keras.initializers.GlorotNormal(seed=2), name="b"),
            ]
        )
        mask = {"a/kernel": np.eye(8, 5) > 0, "b/kernel": np.eye(5, 3) > 0}
        arguments = {
            "optimizer": keras.optimizers.Adam(0.01, global_clipnorm=0.01),
            "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        }
        if late:
            apply_mask(model, mask)
            model.compile(**arguments)
        else:
            model.compile(**arguments)
            apply_mask(model, mask)
        model.fit(*data, shuffle=False, verbose=0)
        states.append(model.get_weights())
    for one, other in zip(*states):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_copies_and_pickles_hold_the_mask(masked, again, data):
    model, mask = masked
    twin = again(model)
    assert_held(twin, mask)
    twin.compile("adam", model.loss)
    twin.fit(*data, verbose=0)
    assert_held(twin, mask)


def test_files_of_weights_alone_are_plain(make_model, masked, tmp_path):
    model, _ = masked
    model.save_weights(tmp_path / "model.weights.h5")
    plain = make_model(batch_norm=True)
    plain.load_weights(tmp_path / "model.weights.h5")
    for one, other in zip(plain.get_weights(), model.get_weights()):
        np.testing.assert_array_equal(one, other)
    assert not isinstance(plain, holding.HoldsMasks)


def test_configs_still_make_the_model_s_own_class(keras, masked):
    model, _ = masked
    again = keras.Sequential.from_config(model.get_config())
    assert type(again) is keras.Sequential
    assert [layer.name for layer in again.layers] == [layer.name for layer in model.layers]
    assert isinstance(keras.models.clone_model(model), keras.Sequential)


def test_a_callback_may_look_at_the_masks_in_the_middle_of_a_fit(keras, masked, data):
    model, mask = masked
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda batch, logs: seen.append(MaskedModel(model).mask())
    )
    model.fit(*data, verbose=0, callbacks=[look])
    assert len(seen) == 8 and all(np.array_equal(seen[-1][path], array) for path, array in mask.items())


def test_strip_makes_an_ordinary_model_again(keras, masked, tmp_path, data):
    model, mask = masked
    before = model.get_weights()
    assert tf_lottery.strip(model) is model
    assert type(model) is keras.Sequential
    for one, other in zip(before, model.get_weights()):
        np.testing.assert_array_equal(one, other)
    model.save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as file:
        assert "tf_lottery" not in file.read("config.json").decode()
        assert not any("tf_lottery" in name for name in file.namelist())
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(*data, verbose=0)
    kernels = [w for w in model.get_weights() if w.ndim == 2]
    assert any((kernel[~array] != 0).any() for kernel, array in zip(kernels, mask.values()))


def test_strip_keeps_the_user_s_own_constraint(keras):
    constraint = keras.constraints.NonNeg()
    model = keras.Sequential([keras.layers.Input((8,)), keras.layers.Dense(3, kernel_constraint=constraint)])
    apply_mask(model, {path: np.ones(s, bool) for path, s in MaskedModel(model).shapes.items()})
    tf_lottery.strip(model)
    kernel = model.layers[-1].kernel
    assert kernel.constraint is constraint


def test_masks_in_a_file_that_do_not_fit_are_refused(keras, masked, tmp_path):
    model, _ = masked
    path = tmp_path / "model.keras"
    model.save(path)
    spoiled = tmp_path / "spoiled.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(spoiled, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("tf_lottery_masks.safetensors"):
                files.write_tensors(tmp_path / "other", {"fc1/kernel": np.ones((2, 2), bool)}, {})
                content = (tmp_path / "other").read_bytes()
            target.writestr(name, content)
    with pytest.raises(ValueError, match=r"fc1/kernel: shape \(2, 2\), the model has"):
        keras.models.load_model(spoiled)


def test_both_kerases_know_of_it(keras):
    assert flavour.keras_module(keras.__name__).saving.get_registered_object("tf_lottery>HoldsMasks")
