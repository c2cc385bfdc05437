"""Augmentation as a layer at the front of a network: what it draws is part of the network's state."""

import functools
from types import ModuleType
from typing import Any

from tf_lottery.keras_api.prunable import SEED

# On the way from disk: see `crops`.
RANDOM_CROPS = "random_resized_crop"
AUGMENTATIONS = ("none", "crop_flip", RANDOM_CROPS)
_PAD = 4


@functools.cache
def crop_flip(keras: ModuleType) -> type:
    """Returns the class `CropFlip` for `keras`, known to its files."""

    class CropFlip(keras.layers.Layer):
        """Pads each image by 4 zeros, crops it at random, and flips it left to right or not (1512.03385).

        Only in training, and each image by itself. Images are `(n, height, width, channels)`, before and
        after. What is drawn depends on the seed and on how many batches were drawn before: both are in
        the variable `seed_generator_state`, so a snapshot or checkpoint brings the same images back.

        Args:
            seed: an integer in [0, 2**31).
        """

        def __init__(self, seed: int = 0, **kwargs: Any):
            super().__init__(**kwargs)
            self.seed = seed

        def build(self, input_shape: Any) -> None:
            import tensorflow as tf

            def first(shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
                return tf.constant([self.seed, 0], dtype)

            # The seed, and the batches so far. Each replica counts for itself: Keras 3 would take a mean.
            apart = {} if keras.__name__ == "tf_keras" else {"aggregation": "none"}
            self.state = self.add_weight(
                name=SEED, shape=(2,), dtype="int64", initializer=first, trainable=False, **apart
            )
            super().build(input_shape)

        def call(self, images: Any, training: Any = None) -> Any:
            import tensorflow as tf

            if tf.is_tensor(training):  # as tf_keras has it while it builds a functional model
                return tf.cond(tf.cast(training, tf.bool), lambda: self._moved(images), lambda: images)
            return self._moved(images) if training else images

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

        def get_config(self) -> dict[str, Any]:
            return {**super().get_config(), "seed": self.seed}

        def _moved(self, images: Any) -> Any:
            import tensorflow as tf

            number, (height, width) = tf.shape(images)[0], images.shape[1:3]
            seed = tf.convert_to_tensor(self.state)
            top, left, flip = tf.unstack(_drawn(seed, number))
            self.state.assign(seed + [0, 1])
            rows = tf.range(height) + tf.cast(top * (2 * _PAD + 1), tf.int32)
            columns = tf.where(flip < 0.5, tf.range(width)[::-1], tf.range(width))
            columns += tf.cast(left * (2 * _PAD + 1), tf.int32)
            padded = tf.pad(images, [[0, 0], [_PAD, _PAD], [_PAD, _PAD], [0, 0]])
            return tf.gather(tf.gather(padded, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)

    return keras.saving.register_keras_serializable("tf_lottery")(CropFlip)


def _drawn(seed: Any, number: Any) -> Any:
    """Returns numbers in [0, 1) of shape (3, number, 1), for the images of this replica's part of a batch."""
    import tensorflow as tf

    # Each replica draws for the whole batch, and takes what is for its part.
    replicas = tf.distribute.get_strategy().num_replicas_in_sync
    # One algorithm by name: left to itself, TensorFlow draws otherwise on each kind of device. And bits,
    # for fractions come in another order where XLA draws them.
    shape, bits = (3, number * replicas, 1), tf.uint32
    drawn = tf.random.stateless_uniform(shape, seed, None, None, bits, alg="philox")
    drawn = tf.cast(tf.bitwise.right_shift(drawn, tf.constant(8, bits)), tf.float32) * 2.0**-24
    if replicas == 1:
        return drawn
    first = number * tf.distribute.get_replica_context().replica_id_in_sync_group
    return tf.slice(drawn, [0, first, 0], [3, number, 1])
