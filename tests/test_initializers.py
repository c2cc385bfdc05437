"""Initializers by name with arguments, and the signed constant, on both flavours."""

import numpy as np
import pytest

import tf_lottery
from tf_lottery.experiments import initializers, networks
from tf_lottery.keras_api.masked_model import MaskedModel


def draw(spec, keras, shape=(40, 60)):
    return np.asarray(initializers.make(spec, keras)(shape, "float32"))


@pytest.mark.parametrize(
    ("spec", "deviation"),
    [
        ("random_normal", 0.05),
        ("random_normal:stddev=0.2", 0.2),
        ("random_normal: stddev = 2e-1, mean=0.0", 0.2),
        ("glorot_normal", np.sqrt(2 / 500)),
        ("he_normal", np.sqrt(2 / 200)),
        ("lecun_normal", np.sqrt(1 / 200)),
        ("variance_scaling:scale=2.0,mode=fan_in", np.sqrt(2 / 200)),
        ("variance_scaling:scale=2,mode=fan_out,distribution=untruncated_normal", np.sqrt(2 / 300)),
        ("orthogonal", np.sqrt(1 / 300)),
        ("orthogonal:gain=3", 3 * np.sqrt(1 / 300)),
        ("signed_constant", np.sqrt(2 / 500)),
        ("signed_constant:scale=0.5", 0.5 * np.sqrt(2 / 500)),
    ],
)
def test_width_of_what_is_drawn(keras, spec, deviation):
    values = draw(spec, keras, (200, 300))
    assert values.std() == pytest.approx(deviation, rel=0.02)
    assert abs(values.mean()) < 0.02 * deviation


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("he_normale", "Unknown initializer 'he_normale'. Did you mean 'he_normal'"),
        ("signed_const", "Unknown initializer 'signed_const'. Did you mean 'signed_constant'"),
        (
            "random_normal:std=0.1",
            "Unknown argument of initializer 'random_normal': 'std'. Did you mean 'stddev'",
        ),
        ("random_normal:", "Unknown argument of initializer 'random_normal': ''. There are: mean, stddev"),
        ("random_normal:seed=3", "Unknown argument of initializer 'random_normal': 'seed'"),
        ("he_normal:scale=2", "Initializer 'he_normal' takes no arguments. Received 'he_normal:scale=2'"),
        (
            "random_normal:stddev=wide",
            "Expected a number in place of 'wide' in initializer 'random_normal:std",
        ),
        ("random_normal:stddev=nan", "Expected a number in place of 'nan'"),
        ("random_normal:stddev", "Expected a number in place of ''"),
        ("orthogonal:gain=1+1", "Expected a number in place of '1\\+1'"),
        ("variance_scaling:mode=fan_up", "Initializer 'variance_scaling:mode=fan_up': .*fan_up"),
        ("variance_scaling:scale=-1", "Initializer 'variance_scaling:scale=-1': .*-1"),
    ],
)
def test_what_is_refused(keras, spec, message):
    with pytest.raises(ValueError, match=message) as caught:
        networks.build("mlp:5", keras, (4,), 3, spec)
    assert "\n" not in str(caught.value)


def test_a_signed_constant_is_one_value_with_either_sign(keras):
    for shape in ((300, 100), (3, 3, 16, 32)):
        values = draw("signed_constant", keras, shape)
        receptive = np.prod(shape[:-2])
        constant = np.sqrt(2 / (receptive * (shape[-2] + shape[-1])))
        np.testing.assert_allclose(np.abs(values), constant, rtol=1e-6)
        assert 0.45 < (values > 0).mean() < 0.55
        # The standard deviation of what it stands in for.
        assert constant == pytest.approx(draw("glorot_normal", keras, shape).std(), rel=0.03)


def test_signs_follow_the_seed(keras):
    cls = initializers.signed_constant(keras)

    def signs(initializer):
        return np.asarray(initializer((20, 20), "float32")) > 0

    np.testing.assert_array_equal(signs(cls(seed=1)), signs(cls(seed=1)))
    assert 100 < np.count_nonzero(signs(cls(seed=1)) != signs(cls(seed=2))) < 300
    again = cls.from_config(cls(scale=3.0, seed=1).get_config())
    assert again.scale == 3.0
    np.testing.assert_array_equal(signs(again), signs(cls(seed=1)))
    keras.utils.set_random_seed(5)
    first = signs(cls())
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(first, signs(cls()))


def test_it_is_redrawn_by_seed_inside_the_wrappers_and_after_a_clone(keras):
    model = networks.build("mlp:30,20", keras, (10,), 3, "signed_constant:scale=2")
    if keras.__name__ == "tf_keras":
        model = tf_lottery.wrap(model)
    masked = [MaskedModel(keras.models.clone_model(model)), MaskedModel(model)]
    one, two = (each.draw_initial(lambda path: len(path)) for each in masked)
    other = masked[0].draw_initial(lambda path: len(path) + 1)
    for path in masked[1].shapes:
        fan_in, fan_out = one[path].shape
        np.testing.assert_allclose(np.abs(one[path]), 2 * np.sqrt(2 / (fan_in + fan_out)), rtol=1e-6)
        np.testing.assert_array_equal(one[path], two[path])
        assert not np.array_equal(one[path], other[path])


def test_it_survives_saving(keras, tmp_path):
    model = networks.build("mlp:7", keras, (4,), 3, "signed_constant:scale=2")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    initializer = loaded.get_layer("fc1").kernel_initializer
    assert isinstance(initializer, initializers.signed_constant(keras)) and initializer.scale == 2.0
