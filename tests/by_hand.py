"""A small network written by hand, with `w * m` in its forward pass, to hold masked models against."""

import numpy as np
import tensorflow as tf

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights

STEPS, BATCH = 50, 16


def network(keras, optimizer):
    """Returns a compiled network of 8 inputs, 6 hidden units and 3 classes, always with the same weights."""
    first, second = (keras.initializers.GlorotNormal(seed=seed) for seed in (1, 2))
    hidden = keras.layers.Dense(6, "relu", kernel_initializer=first, name="fc1")
    output = keras.layers.Dense(3, use_bias=False, kernel_initializer=second, name="output")
    model = keras.Sequential([keras.layers.Input((8,)), hidden, output])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def harsh_mask(shapes):
    """Keeps half of the weights, but none of one input and none of one class; no hidden unit is dead."""
    rng = np.random.default_rng(3)
    mask = {path: rng.random(shape) < 0.5 for path, shape in shapes.items()}
    mask["fc1/kernel"][2] = False
    mask["output/kernel"][:, :2] = [True, False]
    return mask


def batches(dtype="float64"):
    """Returns inputs and labels of every step, that the network can learn."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, (STEPS, BATCH)).astype(np.int32)
    x = rng.normal(size=(STEPS, BATCH, 8)) + 1.5 * np.eye(3, 8)[y]
    return x.astype(dtype), y


def masked(keras, optimizer):
    """Returns a masked `network`, and its mask."""
    model = MaskedModel(network(keras, optimizer))
    mask = harsh_mask(model.shapes)
    model.set_mask(mask)
    return model, mask


class Reference:
    """`network` by hand. It starts from a state, and only its `effective` weights count.

    Args:
        keras: the flavour of the optimizer.
        state: path -> array, as `MaskedModel.state` returns it.
        mask: path -> bool array of each kernel.
        optimizer: one of its own.
    """

    def __init__(self, keras, state, mask, optimizer):
        weights = network_weights(state)
        self.variables = {path: _variable(keras, path, array) for path, array in weights.items()}
        ones = {path: np.ones(array.shape) for path, array in weights.items()}
        self.mask = {path: tf.constant(array, weights[path].dtype) for path, array in (ones | mask).items()}
        self.optimizer = optimizer
        optimizer.build(list(self.variables.values()))

    def effective(self):
        return [variable * self.mask[path] for path, variable in self.variables.items()]

    def kept(self):
        return flat(self.mask.values()).numpy().astype(bool)

    def step(self, x, y):
        """Takes one step; returns the gradients."""
        # A variable of Keras 3 has TensorFlow's as its value.
        sources = [v.value if hasattr(v, "path") else v for v in self.variables.values()]
        with tf.GradientTape() as tape:
            kernel, bias, output_kernel = self.effective()
            logits = tf.nn.relu(x @ kernel + bias) @ output_kernel
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, logits))
        gradients = tape.gradient(loss, sources)
        self.optimizer.apply_gradients(zip(gradients, self.variables.values()))
        return gradients

    def trajectory(self, x, y):
        """Returns the effective weights after each step, flat, and each step's gradients."""
        return _trajectory(lambda x, y: (flat(self.step(x, y)), flat(self.effective())), x, y)


def trajectory(model, x, y):
    """Returns the flat trainable weights of a compiled Keras model after each of its train steps."""

    def step(x, y):
        model.train_step((x, y))
        return (flat(model.trainable_variables),)

    model.test_step((tf.constant(x[0]), tf.constant(y[0])))  # Keras makes the variables of its metrics here
    return _trajectory(step, x, y)[0]


def assert_follows(trained, expected, kept, start, atol=1e-6):
    """Asserts of the weights after each step that the pruned are 0 and the others the reference's."""
    assert (trained[:, ~kept] == 0).all(), "pruned weights that are not 0"
    np.testing.assert_allclose(trained, expected, rtol=0, atol=atol)
    assert (np.abs(trained - start).max(0)[kept] > 1e-4).all(), "weights that never moved"


def followed(keras, optimizer, by_hand):
    """Trains a masked model and its reference, each with its own optimizer; asserts that they agree.

    Returns:
        The weights after each step, and the gradients of each step.
    """
    model, mask = masked(keras, optimizer)
    reference = Reference(keras, model.state(), mask, by_hand)
    start = flat(reference.effective()).numpy()
    x, y = batches()
    trained = trajectory(model.model, x, y)
    gradients, expected = reference.trajectory(x, y)
    assert_follows(trained, expected, reference.kept(), start)
    return trained, gradients


def flat(arrays):
    return tf.concat([tf.reshape(tf.convert_to_tensor(array), [-1]) for array in arrays], 0)


def _variable(keras, path, array):
    if keras.__name__ == "tf_keras":
        return tf.Variable(array, name=path.replace("/", "_"))
    # The same path as in the model: by it Muon and MultiOptimizer choose what they do.
    scope, name = path.split("/")
    with keras.name_scope(scope):
        return keras.Variable(array, name=name, dtype=str(array.dtype))


def _trajectory(step, x, y):
    # Tracing is what takes time here, and without autograph it takes half of it.
    x, y = tf.unstack(tf.constant(x)), tf.unstack(tf.constant(y))
    step = tf.function(step, autograph=False).get_concrete_function(x[0], y[0])
    steps = [step(*batch) for batch in zip(x, y)]
    return [np.stack(results) for results in zip(*steps)]
