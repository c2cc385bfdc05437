"""Event files, which TensorBoard reads."""

import math
import pathlib
import shutil
from collections.abc import Mapping

import numpy as np
import tensorflow as tf
from tensorboard.plugins.text import summary_v2 as text_summary


class Events:
    """Writes the events of one run of TensorBoard; what was in its folder is replaced.

    Args:
        folder: the run's own; TensorBoard calls the run by its path.
    """

    def __init__(self, folder: pathlib.Path):
        shutil.rmtree(folder, ignore_errors=True)
        self._writer = tf.summary.create_file_writer(str(folder))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve: tag -> value. What is not finite is left out."""
        summary = tf.compat.v1.Summary()
        for tag, value in values.items():
            if math.isfinite(value):
                summary.value.add(tag=tag, simple_value=value)
        self.raw(summary, step)

    def text(self, tag: str, markdown: str, step: int = 0) -> None:
        """Adds a text."""
        self.raw(text_summary.text_pb(tag, markdown), step)

    def image(self, tag: str, pixels: np.ndarray, step: int = 0) -> None:
        """Adds an image of shape (height, width, 1, 3 or 4), uint8, or floats in [0, 1]."""
        with self._writer.as_default(step):
            tf.summary.image(tag, pixels[np.newaxis])

    def histogram(self, tag: str, values: np.ndarray, step: int = 0) -> None:
        """Adds the distribution of the values."""
        with self._writer.as_default(step):
            tf.summary.histogram(tag, values)

    def raw(self, summary: object, step: int = 0) -> None:
        """Adds a Summary proto that a plugin of TensorBoard has made."""
        # One operation for all its values: an eager one for each would cost more than a training step.
        with self._writer.as_default(step):
            tf.summary.experimental.write_raw_pb(summary.SerializeToString())

    def flush(self) -> None:
        """Lets TensorBoard see what was written."""
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()
