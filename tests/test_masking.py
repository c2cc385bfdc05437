"""What is trained is the subnetwork and nothing else: zeros, gradients, optimizers."""

import numpy as np
import pytest
import tensorflow as tf

from tf_lottery.keras_api.masked_model import MaskedModel

SETTINGS = {
    "sgd": ("SGD", {"learning_rate": 0.1}),
    "momentum": ("SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    "adam": ("Adam", {"learning_rate": 0.01}),
    "adam clipnorm": ("Adam", {"learning_rate": 0.01, "clipnorm": 0.05}),
    "sgd global_clipnorm": ("SGD", {"learning_rate": 0.1, "global_clipnorm": 0.1}),
    "sgd clipvalue": ("SGD", {"learning_rate": 0.1, "clipvalue": 0.01}),
    "adamw": ("AdamW", {"learning_rate": 0.01, "weight_decay": 0.1}),
    "adam ema": ("Adam", {"learning_rate": 0.01, "use_ema": True, "ema_overwrite_frequency": 7}),
    "rmsprop": ("RMSprop", {"learning_rate": 0.01, "momentum": 0.9}),
}


def optimizer_of(keras, setting):
    name, arguments = SETTINGS[setting]
    return getattr(keras.optimizers, name)(**arguments)


class Reference:
    """The network of `make_model` by hand, with `w * m` in its forward pass."""

    def __init__(self, state, mask, optimizer):
        self.weights = {
            path: tf.Variable(array, name=path.replace("/", "_"))
            for path, array in state.items()
            if not path.startswith("/optimizer/")
        }
        self.mask = {path: tf.constant(array.astype(np.float32)) for path, array in mask.items()}
        self.optimizer = optimizer

    def effective(self, path):
        weight = self.weights[path]
        return weight * self.mask[path] if path in self.mask else weight

    def step(self, x, y):
        with tf.GradientTape() as tape:
            hidden = x
            for layer in ("fc1", "fc2"):
                hidden = tf.nn.relu(
                    hidden @ self.effective(f"{layer}/kernel") + self.weights[f"{layer}/bias"]
                )
            logits = hidden @ self.effective("output/kernel") + self.weights["output/bias"]
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        variables = list(self.weights.values())
        self.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))


@pytest.mark.parametrize("setting", SETTINGS)
def test_survivors_follow_the_network_with_the_mask_in_its_forward_pass(
    keras, make_model, data, random_mask, setting
):
    masked = MaskedModel(make_model(optimizer_of(keras, setting)))
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    start = masked.state()
    reference = Reference(start, mask, optimizer_of(keras, setting))
    x, y = data
    step = tf.function(masked.model.train_step)
    for i in range(50):
        rows = np.arange(i * 16, i * 16 + 16) % len(x)
        step((tf.constant(x[rows]), tf.constant(y[rows])))
        state = masked.state()
        for path, array in mask.items():
            assert (state[path][~array] == 0).all(), (path, i)
        reference.step(x[rows], y[rows])
    for path in reference.weights:
        expected = reference.effective(path).numpy()
        # The pruned entries of the reference move with weight decay; what counts is w * m.
        np.testing.assert_allclose(state[path], expected, rtol=0, atol=2e-6, err_msg=path)
        assert not np.array_equal(state[path], start[path]), path


def test_the_user_s_own_fit_keeps_the_zeros(make_model, data, random_mask):
    model = make_model()
    model.fit(*data, epochs=1, verbose=0)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    before = masked.state()
    model.fit(*data, epochs=2, verbose=0)
    after = masked.state()
    for path, array in mask.items():
        assert (after[path][~array] == 0).all()
        assert not np.array_equal(after[path], before[path])


def test_the_user_s_constraint_holds_too(keras, data, random_mask):
    model = keras.Sequential(
        [
            keras.layers.Input((8,)),
            keras.layers.Dense(16, "relu", kernel_constraint=keras.constraints.NonNeg(), name="a"),
            keras.layers.Dense(3),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    masked = MaskedModel(model)
    mask = random_mask(masked.shapes)
    masked.set_mask(mask)
    model.fit(*data, epochs=1, verbose=0)
    kernel = masked.state()["a/kernel"]
    assert (kernel >= 0).all() and (kernel > 0).any() and (kernel[~mask["a/kernel"]] == 0).all()


def test_the_optimizer_stays_what_it_was(keras, make_model):
    optimizer = keras.optimizers.Adam(0.02)
    model = make_model(optimizer)
    MaskedModel(model)
    assert model.optimizer is optimizer
    assert isinstance(optimizer, keras.optimizers.Adam)
    assert float(optimizer.learning_rate) == pytest.approx(0.02)
    assert type(keras.optimizers.Adam(0.02)) is keras.optimizers.Adam


def test_masking_twice_changes_nothing(make_model, random_mask):
    model = make_model()
    first = MaskedModel(model)
    mask = random_mask(first.shapes)
    first.set_mask(mask)
    second = MaskedModel(model)
    assert all(np.array_equal(second.mask()[path], mask[path]) for path in mask)
