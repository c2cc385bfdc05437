"""A model as named arrays: states, fresh draws, optimizers, wrappers."""

import numpy as np
import pytest

from tf_lottery.keras_api import tfmot_wrappers
from tf_lottery.keras_api.masked_model import MaskedModel, apply_mask
from tf_lottery.search.imp import redraw_of


def train(model, data):
    model.fit(*data, epochs=1, batch_size=16, verbose=0)


def test_restoring_a_state_brings_back_every_variable(make_model, data):
    masked = MaskedModel(make_model(batch_norm=True))
    before = masked.state()
    train(masked.model, data)
    after = masked.state()
    assert {"bn1/moving_mean", "fc1/bias", "/optimizer/000"} <= {
        path for path in before if not np.array_equal(before[path], after[path])
    }
    masked.restore(before)
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)


def test_the_learning_rate_is_part_of_the_state(make_model):
    model = make_model()
    masked = MaskedModel(model)
    before = masked.state()
    model.optimizer.learning_rate.assign(0.5)
    masked.restore(before)
    assert float(model.optimizer.learning_rate) == pytest.approx(0.01)


@pytest.mark.parametrize("name", ["ema", "schedule_free"])
def test_a_fresh_draw_has_a_fresh_optimizer_even_where_it_keeps_copies_of_the_weights(
    keras, make_model, data, name
):
    if name == "ema":
        optimizer = keras.optimizers.SGD(0.01, use_ema=True)
    elif hasattr(keras.optimizers, "ScheduleFreeAdamW"):
        optimizer = keras.optimizers.ScheduleFreeAdamW(0.01)
    else:
        pytest.skip("this Keras has no such optimizer")
    model = make_model(optimizer)
    masked = MaskedModel(model)
    train(masked.model, data)
    drawn = redraw_of(masked)(7)
    fresh = make_model(type(optimizer).from_config(optimizer.get_config()))
    fresh_masked = MaskedModel(fresh)
    weights = {path: array for path, array in drawn.items() if not path.startswith("/optimizer/")}
    fresh_masked.set_weights(weights)
    fresh_masked.reset_optimizer()
    for path, array in fresh_masked.state().items():
        np.testing.assert_array_equal(drawn[path], array, err_msg=path)
    copies = [
        path
        for path, array in drawn.items()
        if path.startswith("/optimizer/") and np.array_equal(array, drawn["fc1/kernel"])
    ]
    assert bool(copies) == (name == "schedule_free" or keras.__name__ == "tf_keras")


def test_draws_depend_on_the_seed_alone(make_model, data):
    masked = MaskedModel(make_model())
    redraw = redraw_of(masked)
    first = redraw(1)
    train(masked.model, data)
    again, other = redraw(1), redraw(2)
    for path, array in first.items():
        np.testing.assert_array_equal(again[path], array, err_msg=path)
    assert not np.array_equal(first["fc1/kernel"], other["fc1/kernel"])


def test_a_state_that_does_not_fit_names_every_difference(make_model):
    masked = MaskedModel(make_model())
    state = masked.state()
    del state["fc1/bias"]
    state["fc9/kernel"] = np.zeros(3)
    state["output/bias"] = np.zeros(4)
    with pytest.raises(ValueError) as error:
        masked.restore(state)
    message = str(error.value)
    assert "fc1/bias: nothing, the model has shape (16,)" in message
    assert "fc9/kernel: shape (3,), the model has nothing" in message
    assert "output/bias: shape (4,), the model has shape (3,)" in message


def test_legacy_optimizers_are_refused_by_name(make_model):
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((8,)), tf_keras.layers.Dense(3)])
    model.compile(tf_keras.optimizers.legacy.Adam(), "mse")
    with pytest.raises(ValueError, match="legacy optimizer. Compile the model with tf_keras.optimizers.Adam"):
        MaskedModel(model)


def wrapped_in(keras, optimizer, wrapper):
    if wrapper == "loss scale":
        return keras.mixed_precision.LossScaleOptimizer(optimizer)
    if wrapper == "multi" and not hasattr(keras.optimizers, "MultiOptimizer"):
        pytest.skip("this Keras has no MultiOptimizer")
    if wrapper == "multi":
        return keras.optimizers.MultiOptimizer(keras.optimizers.OptimizerMap(optimizer))
    return optimizer


def mask_without(masked, rows=(), columns=()):
    """Keeps all but some rows and columns of `fc2/kernel`, and one weight of each kernel."""
    mask = {path: np.ones(shape, bool) for path, shape in masked.shapes.items()}
    for array in mask.values():
        array[0, 0] = False
    mask["fc2/kernel"][list(rows)], mask["fc2/kernel"][:, list(columns)] = False, False
    return mask


@pytest.mark.parametrize("wrapper", [None, "loss scale", "multi"])
@pytest.mark.parametrize("pruned", [{"rows": [3]}, {"columns": [5]}, {"rows": [3], "columns": [5]}])
def test_adafactor_is_refused_where_it_divides_0_by_0(keras, make_model, wrapper, pruned):
    masked = MaskedModel(make_model(wrapped_in(keras, keras.optimizers.Adafactor(0.01), wrapper)))
    before = masked.state()
    message = "Adafactor with epsilon_1=1e-30 cannot train 'fc2/kernel'.*Adafactor.epsilon_1=1e-16"
    with pytest.raises(ValueError, match=message):
        masked.set_mask(mask_without(masked, **pruned))
    for path, array in masked.state().items():
        np.testing.assert_array_equal(array, before[path], err_msg=path)


@pytest.mark.parametrize("epsilon, pruned", [(1e-30, {}), (1e-16, {"rows": [3], "columns": [5]})])
def test_adafactor_trains_the_rest(keras, make_model, data, epsilon, pruned):
    masked = MaskedModel(make_model(keras.optimizers.Adafactor(0.01, epsilon_1=epsilon)))
    mask = mask_without(masked, **pruned)
    masked.set_mask(mask)
    before = masked.kernels()
    train(masked.model, data)
    for path, kernel in masked.kernels().items():
        assert np.isfinite(kernel).all() and (kernel[~mask[path]] == 0).all()
        assert not np.array_equal(kernel, before[path])


def test_adafactor_trains_filters_of_one_channel(keras, data):
    convolution = keras.layers.Conv1D(4, 3, name="conv")
    layers = [keras.layers.Input((8, 1)), convolution, keras.layers.Flatten(), keras.layers.Dense(3)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adafactor(0.01), loss)
    masked = MaskedModel(model)
    mask = {path: np.ones(shape, bool) for path, shape in masked.shapes.items()}
    mask["conv/kernel"][0, 0, 2], mask["conv/kernel"][1] = False, False
    masked.set_mask(mask)
    train(model, data)
    kernel = masked.kernels()["conv/kernel"]
    assert np.isfinite(kernel).all()
    np.testing.assert_array_equal(kernel != 0, mask["conv/kernel"])


@pytest.mark.parametrize("wrapper", ["loss scale", "multi"])
def test_wrapped_optimizers_start_anew_too(keras, make_model, data, wrapper):
    masked = MaskedModel(make_model(wrapped_in(keras, keras.optimizers.Adam(0.01), wrapper)))
    before = masked.state()
    train(masked.model, data)
    trained = masked.state()
    assert any(not np.array_equal(trained[path], before[path]) for path in before if path.startswith("/opt"))
    masked.reset_optimizer()
    for path, array in masked.state().items():
        expected = before if path.startswith("/optimizer/") else trained
        np.testing.assert_array_equal(array, expected[path], err_msg=path)


def test_mixed_precision_kernels_are_masked(keras, data, random_mask):
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, dtype="mixed_bfloat16", name="a"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    train(model, data)
    kernel = masked.state()["a/kernel"]
    assert kernel.dtype == np.float32
    assert (kernel[~mask["a/kernel"]] == 0).all() and (kernel[mask["a/kernel"]] != 0).all()


def tf_keras_model():
    import tf_keras

    model = tf_keras.Sequential(
        [tf_keras.layers.Input((8,)), tf_keras.layers.Dense(4, name="a"), tf_keras.layers.Dense(3, name="b")]
    )
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def wrapped_model():
    model = tf_keras_model()
    wrapped = tfmot_wrappers.wrap(model)
    wrapped.compile(**model._get_compile_args())
    return model, wrapped


def test_a_tf_keras_model_trains_in_tfmot_wrappers_that_can_be_stripped(data, random_mask):
    from tensorflow_model_optimization.sparsity import keras as sparsity

    model, wrapped = wrapped_model()
    masked = MaskedModel(wrapped)
    wrappers = masked.model.layers
    assert all(isinstance(layer, tfmot_wrappers.RewindablePruning) for layer in wrappers)
    assert wrappers[0].layer is model.layers[0]
    masked.set_mask(random_mask(masked.shapes))
    train(masked.model, data)
    stripped = sparsity.strip_pruning(masked.model)
    assert [type(layer).__name__ for layer in stripped.layers] == ["Dense", "Dense"]
    np.testing.assert_array_equal(stripped.predict(data[0], verbose=0), model.predict(data[0], verbose=0))


def test_a_wrapper_rewinds_to_its_snapshot_under_its_mask(data, random_mask):
    model, wrapped = wrapped_model()
    first = [layer.get_weights() for layer in model.layers]
    masked = MaskedModel(wrapped)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    train(masked.model, data)
    for wrapper, (kernel, bias), path in zip(masked.model.layers, first, mask):
        assert not np.array_equal(wrapper.layer.get_weights()[1], bias)
        wrapper.rewind()
        np.testing.assert_array_equal(wrapper.layer.get_weights()[0], np.where(mask[path], kernel, 0))
        np.testing.assert_array_equal(wrapper.layer.get_weights()[1], bias)


def test_frozen_weights_keep_their_value_until_the_mask_is_set_without(make_model, random_mask):
    masked = MaskedModel(make_model())
    before, mask = masked.kernels(), random_mask(masked.shapes)
    masked.set_mask(mask, frozen=True)
    for path, kernel in masked.kernels().items():
        np.testing.assert_array_equal(kernel, before[path])
        np.testing.assert_array_equal(masked.mask()[path], mask[path])
    masked.set_mask(mask)
    for path, kernel in masked.kernels().items():
        np.testing.assert_array_equal(kernel, np.where(mask[path], before[path], 0))


def test_each_freezing_takes_the_values_of_the_time(make_model, data, random_mask):
    masked = MaskedModel(make_model())
    for seed in range(2):
        mask, before = random_mask(masked.shapes, seed=seed), masked.kernels()
        masked.set_mask(mask, frozen=True)
        train(masked.model, data)
        for path, kernel in masked.kernels().items():
            np.testing.assert_array_equal(kernel[~mask[path]], before[path][~mask[path]])
            assert not np.array_equal(kernel[mask[path]], before[path][mask[path]])


def test_frozen_weights_of_mixed_precision_are_not_rounded(keras, data, random_mask):
    hidden = keras.layers.Dense(16, dtype="mixed_bfloat16", name="a")
    model = keras.Sequential([keras.layers.Input((8,)), hidden, keras.layers.Dense(3)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(0.1), loss)
    masked = MaskedModel(model)
    mask, before = random_mask(masked.shapes), masked.kernels()
    masked.set_mask(mask, frozen=True)
    train(model, data)
    for path, kernel in masked.kernels().items():
        assert kernel.dtype == np.float32
        np.testing.assert_array_equal(kernel[~mask[path]], before[path][~mask[path]])
        assert (kernel[mask[path]] != before[path][mask[path]]).all()


def test_a_wrapper_holds_frozen_weights(data, random_mask):
    model, wrapped = wrapped_model()
    masked = MaskedModel(wrapped)
    mask, before = random_mask(masked.shapes), masked.kernels()
    masked.set_mask(mask, frozen=True)
    train(wrapped, data)
    for (path, kernel), layer in zip(masked.kernels().items(), model.layers):
        np.testing.assert_array_equal(kernel[~mask[path]], before[path][~mask[path]])
        np.testing.assert_array_equal(layer.get_weights()[0], kernel)


def test_wrapping_after_masking_keeps_the_mask(random_mask):
    model = tf_keras_model()
    mask = random_mask(MaskedModel(model).shapes)
    apply_mask(model, mask)
    wrapped = tfmot_wrappers.wrap(model)
    for wrapper, array in zip(wrapped.layers, mask.values()):
        np.testing.assert_array_equal(wrapper.pruning_vars[0][1].numpy(), array)


def test_wrapping_a_keras_3_model_is_refused_with_a_word(make_model, keras):
    if keras.__name__ == "tf_keras":
        assert tfmot_wrappers.wrap(make_model()).layers
        return
    with pytest.raises(TypeError, match="is a Keras 3 model, and TF-MOT wraps tf_keras models"):
        tfmot_wrappers.wrap(make_model())
