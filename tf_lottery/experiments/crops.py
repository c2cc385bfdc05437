"""Which part of a photograph a network sees, brought to one size."""

from typing import Any

import tensorflow as tf

# Of the shorter side: 224 of 256 pixels, as ImageNet's networks are tested (1512.03385, section 3.4).
_CENTRE = 224 / 256


def central(image: tf.Tensor, size: int) -> tf.Tensor:
    """Returns the central square whose side is 7/8 of the shorter side, float32 (size, size, channels).

    That is the image with a shorter side of 8/7 `size`, cropped at its centre.

    Args:
        image: (height, width, channels), of any type.
        size: in pixels.
    """
    height, width = tf.unstack(tf.shape(image)[:2])
    side = tf.cast(tf.round(_CENTRE * tf.cast(tf.minimum(height, width), tf.float32)), tf.int32)
    side = tf.maximum(side, 1)
    return _resized(image, ((height - side) // 2, (width - side) // 2, side, side), size)


def random_resized(image: tf.Tensor, size: int, seed: Any) -> tf.Tensor:
    """Returns a random part, flipped left to right or not, float32 (size, size, channels) (1409.4842).

    The part has 8 to 100 % of the image's area and sides in a ratio of 3/4 to 4/3; where ten tries
    find none that fits, it is the whole image.

    Args:
        image: (height, width, channels), of any type.
        size: in pixels.
        seed: two integers; what is drawn depends on them alone.
    """
    seeds = tf.random.experimental.stateless_split(tf.cast(seed, tf.int64), 2, alg="philox")
    begin, window, _ = tf.image.stateless_sample_distorted_bounding_box(
        tf.shape(image),
        tf.zeros((1, 0, 4)),
        seeds[0],
        min_object_covered=0.0,
        aspect_ratio_range=(3 / 4, 4 / 3),
        area_range=(0.08, 1.0),
        max_attempts=10,
        use_image_if_no_bounding_boxes=True,
    )
    part = _resized(image, (begin[0], begin[1], window[0], window[1]), size)
    flips = tf.random.stateless_uniform((), seeds[1], alg="philox") < 0.5
    return tf.cond(flips, lambda: tf.reverse(part, [1]), lambda: part)


def _resized(image: tf.Tensor, window: tuple[Any, Any, Any, Any], size: int) -> tf.Tensor:
    top, left, height, width = window
    return tf.image.resize(image[top : top + height, left : left + width], (size, size))
