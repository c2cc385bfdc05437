import importlib

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.experiments import networks
from tf_lottery.keras_api import prunable
from tf_lottery.keras_api.flavour import FLAVOURS, keras_module, precision


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


def test_tanh_computes_tanh_layers_and_logits(keras):
    model = networks.build("tanh:10,7,5,4,3", keras, (12, 1, 1), classes=2)
    weights, hidden = model.get_weights(), np.random.default_rng(0).normal(size=(9, 12)).astype(np.float32)
    assert [w.shape for w in weights[::2]] == [(12, 10), (10, 7), (7, 5), (5, 4), (4, 3), (3, 2)]
    x = hidden.reshape(9, 12, 1, 1)
    for kernel in weights[:-2:2]:
        hidden = np.tanh(hidden @ kernel)
    np.testing.assert_allclose(np.asarray(model(x)), hidden @ weights[-2], rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="Network 'tanh:5,' lacks the widths .* as in 'tanh:64,32'"):
        networks.build("tanh:5,", keras, (12,), 2)


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
    with pytest.raises(ValueError, match="takes no argument, but got '50'; .* other widths write 'mlp:"):
        networks.build("lenet_300_100:50", keras, (4,), 3)


def test_unknown_network(keras):
    with pytest.raises(ValueError, match="Unknown network 'lenet'.*There are: lenet_300_100, mlp"):
        networks.build("lenet", keras, (4,), 3)


@pytest.mark.parametrize("initializer", ["glorot_norm", "GlorotNormal"])
def test_unknown_initializer(keras, initializer):
    message = f"Unknown initializer '{initializer}'. Did you mean 'glorot_normal'.*There are: constant, "
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
    def linear(make, inputs, classes):
        return make.dense(make.keras.layers.Flatten()(inputs), classes, "output")

    def narrow(make, inputs, classes, argument):
        return linear(make, make.conv(inputs, int(argument), "conv1", 1), classes)

    monkeypatch.setitem(networks.NETWORKS, "linear", linear)
    monkeypatch.setitem(networks.NETWORKS, "narrow", narrow)
    assert networks.build("linear", keras, (2, 2, 1), 3).count_params() == 15
    assert networks.build("narrow:2", keras, (2, 2, 1), 3).count_params() == 4 + 27
    with pytest.raises(ValueError, match="Network 'linear' takes no argument, but got 'bias'"):
        networks.build("linear:bias", keras, (2, 2, 1), 3)


def count(arrays):
    return sum(int(np.prod(array.shape)) for array in arrays)


# Of 1803.03635 the kernels (4.3 and 2.4 million there; for Conv-6 it prints 1.7); of OpenLTH all parameters.
@pytest.mark.parametrize(
    ("name", "trainable", "kernels"),
    [
        ("conv_2", None, 4_300_992),
        ("conv_4", None, 2_425_024),
        ("conv_6", None, 2_261_184),
        ("resnet_20", 272_474, None),
        ("vgg_11", 9_231_114, None),
        ("vgg_13", 9_416_010, None),
        ("vgg_16", 14_728_266, None),
        ("vgg_19", 20_040_522, None),
    ],
)
def test_sizes_of_the_networks_for_cifar(keras, name, trainable, kernels):
    model = networks.build(name, keras, (32, 32, 3), 10, "zeros")
    weights = model.trainable_weights
    assert trainable in (None, count(weights))
    assert kernels in (None, count([w for w in weights if len(w.shape) > 1]))
    assert model.output_shape == (None, 10) and model.name == name


def test_a_resnet_is_as_deep_as_its_name_says():
    model = networks.build("resnet_110", keras_module("keras"), (32, 32, 3), 10, "zeros")
    assert count(model.trainable_weights) == 1_730_714


# The parameters of PyTorch's, which has no biases in its convolutions either.
@pytest.mark.parametrize(
    ("name", "trainable"), [("resnet_50", 25_557_032), ("resnet_101", 44_549_160), ("resnet_152", 60_192_808)]
)
def test_sizes_of_the_networks_for_imagenet(name, trainable):
    model = networks.build(name, keras_module("keras"), (224, 224, 3), 1000, "zeros")
    assert count(model.trainable_weights) == trainable
    assert model.output_shape == (None, 1000)


def test_convolutions_of_resnet_50(keras):
    found = convolutions_of("resnet_50", keras)
    shortcuts = [found.pop(f"shortcut{stage}") for stage in (1, 2, 3, 4)]
    assert shortcuts == [(256, 8), (512, 4), (1024, 2), (2048, 1)]  # of an image of 32 x 32
    assert set(found) == {f"conv{n}" for n in range(1, 50)}
    assert found["conv1"] == (64, 16)
    # The first block of the second stage: the stride is that of the 3 x 3 convolution.
    assert [found[f"conv{n}"] for n in (11, 12, 13)] == [(128, 8), (128, 4), (512, 4)]
    assert [found[f"conv{n}"] for n in (47, 48, 49)] == [(512, 1), (512, 1), (2048, 1)]


def test_the_logits_are_float32_in_any_precision(keras):
    for name in ("lenet_300_100", "resnet_8", "vgg_11"):
        with precision(keras, "mixed_bfloat16"):
            model = networks.build(name, keras, (32, 32, 3), 10)
        assert model.output.dtype == "float32"
        assert "bfloat16" in str(model.layers[-2].output.dtype)


def convolutions_of(name, keras):
    model = networks.build(name, keras, (32, 32, 3), 10, "zeros")
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    return {layer.name: (layer.filters, layer.output.shape[1]) for layer in layers}


def test_convolutions_of_conv_n(keras):
    assert convolutions_of("conv_2", keras) == {"conv1": (64, 32), "conv2": (64, 32)}
    assert list(convolutions_of("conv_6", keras).values()) == [
        *[(64, 32)] * 2,
        *[(128, 16)] * 2,
        *[(256, 8)] * 2,
    ]
    model = networks.build("conv_4", keras, (32, 32, 3), 10, "zeros")
    assert model.get_layer("fc1").kernel.shape[0] == 8 * 8 * 128
    assert [layer.units for layer in model.layers if isinstance(layer, keras.layers.Dense)] == [256, 256, 10]


def test_convolutions_of_a_resnet(keras):
    found = convolutions_of("resnet_14", keras)
    shortcuts = {name: found.pop(name) for name in ("shortcut1", "shortcut2")}
    assert shortcuts == {"shortcut1": (32, 16), "shortcut2": (64, 8)}
    assert set(found) == {f"conv{n}" for n in range(1, 14)}
    assert [found[f"conv{n}"] for n in (1, 5, 6, 9, 10, 13)] == [
        (16, 32),
        (16, 32),
        (32, 16),
        (32, 16),
        (64, 8),
        (64, 8),
    ]


def test_convolutions_of_a_vgg(keras):
    found = convolutions_of("vgg_16", keras)
    assert list(found) == [f"conv{n}" for n in range(1, 14)]
    assert [found[f"conv{n}"] for n in (2, 4, 7, 10, 13)] == [
        (64, 32),
        (128, 16),
        (256, 8),
        (512, 4),
        (512, 2),
    ]


def test_a_residual_block_adds_its_input(keras):
    """With its own convolutions at zero, a block that keeps the shape hands on what it gets."""
    model = networks.build("resnet_8", keras, (8, 8, 3), classes=10)
    for name in ("conv3", "conv5", "conv7"):
        kernel = model.get_layer(name).kernel
        kernel.assign(np.zeros(kernel.shape))
    layers = model.layers
    first = layers[[layer.name for layer in layers].index("bn1") + 1]
    add = next(layer for layer in layers if isinstance(layer, keras.layers.Add))
    inner = keras.Model(model.input, [first.output, add.output])
    before, after = inner(np.random.default_rng(0).normal(size=(2, 8, 8, 3)).astype(np.float32))
    np.testing.assert_array_equal(np.asarray(before), np.asarray(after))
    assert np.asarray(after).std() > 0.1


@pytest.mark.parametrize("name", ["conv_2", "resnet_8", "vgg_11"])
def test_both_kerases_have_the_same_paths_and_the_output_is_last(name):
    found = []
    for flavour in FLAVOURS:
        model = networks.build(name, keras_module(flavour), (16, 16, 3), 10, "zeros")
        found.append({path: tuple(slot.variable.shape) for path, slot in prunable.slots(model).items()})
        kernels = list(prunable.prunable_slots(model))
        assert kernels[0] == "conv1/kernel" and kernels[-1] == "output/kernel"
    assert list(found[0].items()) == list(found[1].items())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet_21", "There is no 'resnet_21': .* 6n \\+ 2 layers, such as 'resnet_20' or 'resnet_26'"),
        ("resnet_2", "There is no 'resnet_2': .* such as 'resnet_8' or 'resnet_14'"),
        (
            "resnet_0",
            "There is no 'resnet_0': .* those for ImageNet are 'resnet_50', 'resnet_101' and 'resnet_152'",
        ),
        ("resnet_x", "Unknown network 'resnet_x'. Did you mean 'resnet_50'"),
        ("resnet_20:3", "Network 'resnet_20' takes no argument, but got '3'"),
        ("vgg_12", "Unknown network 'vgg_12'. Did you mean 'vgg_1"),
        ("conv_2:", "Network 'conv_2' takes no argument, but got ''"),
    ],
)
def test_what_is_no_network(keras, name, message):
    with pytest.raises(ValueError, match=message):
        networks.build(name, keras, (32, 32, 3), 10)


def test_weight_decay_adds_each_kernel_to_its_gradient_and_no_bias(keras):
    model = networks.build("mlp:4,3", keras, (5,), 2, weight_decay=0.3)
    plain = networks.build("mlp:4,3", keras, (5,), 2)
    assert not plain.losses and len(model.losses) == 3
    with tf.GradientTape() as tape:
        penalty = tf.add_n(model.losses)
    weights = [tf.convert_to_tensor(w) for w in model.trainable_weights]
    variables = [getattr(w, "value", w) if keras.__name__ == "keras" else w for w in model.trainable_weights]
    for weight, gradient in zip(weights, tape.gradient(penalty, variables)):
        if len(weight.shape) == 1:
            assert gradient is None
        else:
            np.testing.assert_allclose(gradient, 0.3 * weight.numpy(), rtol=1e-5)


@pytest.mark.parametrize("name", ["conv_2", "resnet_8", "vgg_11", "lenet_300_100"])
def test_initializer_and_weight_decay_reach_every_kernel(keras, name):
    model = networks.build(name, keras, (16, 16, 1), 10, "constant:value=0.25", 0.1)
    kernels = [slot.variable for slot in prunable.prunable_slots(model).values()]
    assert all(np.all(np.asarray(kernel) == 0.25) for kernel in kernels)
    expected = sum(0.05 * 0.25**2 * np.prod(kernel.shape) for kernel in kernels)
    assert len(model.losses) == len(kernels)
    np.testing.assert_allclose(sum(float(loss) for loss in model.losses), expected, rtol=1e-4)
