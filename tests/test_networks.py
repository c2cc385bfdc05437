import importlib

import numpy as np
import pytest

from tf_lottery.experiments import networks


@pytest.fixture(params=["keras", "tf_keras"])
def keras(request):
    return importlib.import_module(request.param)


def test_lenet_300_100_has_the_papers_size(keras):
    model = networks.build("lenet_300_100", keras, (28, 28, 1), classes=10)
    assert isinstance(model, keras.Model)
    assert model.count_params() == 266_610
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights if len(w.shape) == 2) == 266_200
    dense = [layer for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    assert [layer.name for layer in dense] == ["fc1", "fc2", "output"]
    assert [layer.units for layer in dense] == [300, 100, 10]
    assert model.name == "lenet_300_100"


def test_mlp_computes_relu_layers_and_logits(keras):
    model = networks.build("mlp:7,5,6", keras, (4, 3), classes=3)
    assert [layer.name for layer in model.layers[2:]] == ["fc1", "fc2", "fc3", "output"]
    x = np.random.default_rng(0).normal(size=(50, 4, 3)).astype(np.float32)
    weights = model.get_weights()
    assert [w.shape for w in weights[::2]] == [(12, 7), (7, 5), (5, 6), (6, 3)]
    assert all(np.all(bias == 0) for bias in weights[1::2])
    hidden = x.reshape(50, 12)
    for kernel in weights[:-2:2]:
        hidden = np.maximum(hidden @ kernel, 0)
    logits = hidden @ weights[-2]
    assert logits.min() < 0  # So a ReLU or a softmax at the end would show.
    np.testing.assert_allclose(np.asarray(model(x)), logits, rtol=1e-4, atol=1e-5)


def test_initial_weights_follow_the_global_seed_and_differ_between_layers(keras):
    def kernels(seed):
        keras.utils.set_random_seed(seed)
        return networks.build("mlp:6,6,6", keras, (6,), classes=6).get_weights()[::2]

    first, second, third = kernels(1), kernels(1), kernels(2)
    for a, b, c in zip(first, second, third, strict=True):
        np.testing.assert_array_equal(a, b)
        assert not np.any(a == c)
    assert not np.any(first[1] == first[2]) and not np.any(first[2] == first[3])


def test_the_initializer_reaches_every_kernel(keras):
    for initializer, deviation in (("glorot_normal", np.sqrt(2 / 400)), ("he_normal", np.sqrt(2 / 200))):
        model = networks.build("mlp:200,200", keras, (200,), 200, initializer)
        for kernel in model.get_weights()[::2]:
            assert kernel.std() == pytest.approx(deviation, rel=0.03)


@pytest.mark.parametrize("argument", ["", "0", "64,", "64,-3", "64;32", "64, 32", "1e2", "a"])
def test_wrong_widths(keras, argument):
    message = f"Network 'mlp:{argument}' lacks the widths .* after the colon, as in 'mlp:64,32'"
    with pytest.raises(ValueError, match=message):
        networks.build(f"mlp:{argument}", keras, (4,), 3)


def test_mlp_without_a_colon(keras):
    with pytest.raises(ValueError, match="lacks the widths of its hidden layers: write them"):
        networks.build("mlp", keras, (4,), 3)


def test_lenet_takes_no_argument(keras):
    with pytest.raises(ValueError, match="takes no argument, but got '50'; for other widths write 'mlp:"):
        networks.build("lenet_300_100:50", keras, (4,), 3)


def test_unknown_network(keras):
    with pytest.raises(ValueError, match="Unknown network 'lenet'.*There are: lenet_300_100, mlp"):
        networks.build("lenet", keras, (4,), 3)


@pytest.mark.parametrize("initializer", ["glorot_norm", "GlorotNormal"])
def test_unknown_initializer(keras, initializer):
    message = f"Unknown initializer '{initializer}'. Did you mean 'glorot_normal'.*There are: glorot_normal, "
    with pytest.raises(ValueError, match=message):
        networks.build("mlp:5", keras, (4,), 3, initializer)


def test_every_initializer_that_the_error_names_can_be_used(keras):
    with pytest.raises(ValueError, match="There are: ") as caught:
        networks.build("mlp:5", keras, (4,), 3, "none")
    listed = str(caught.value).partition("There are: ")[2].rstrip(".").split(", ")
    assert len(listed) >= 12
    for initializer in listed:
        networks.build("mlp:5", keras, (4,), 3, initializer)


def test_a_new_network_is_one_function(keras, monkeypatch):
    def linear(keras, inputs, classes, initializer, argument):
        x = keras.layers.Flatten()(inputs)
        return keras.layers.Dense(classes, kernel_initializer=initializer, use_bias=argument == "bias")(x)

    monkeypatch.setitem(networks.NETWORKS, "linear", linear)
    assert networks.build("linear:bias", keras, (2, 2), 3).count_params() == 15
    assert networks.build("linear", keras, (2, 2), 3).count_params() == 12
