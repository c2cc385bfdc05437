"""Event files, which TensorBoard reads."""

import math
import pathlib
import shutil
import time
from collections.abc import Mapping, Sequence
from types import ModuleType

import numpy as np
import tensorflow as tf
from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.histogram import metadata as histogram_metadata
from tensorboard.plugins.image import metadata as image_metadata
from tensorboard.plugins.text import summary_v2 as text_summary
from tensorboard.util import tensor_util

_BINS = 30


class Events:
    """Writes the events of one run of TensorBoard, which sees each at once.

    What was in the run's folder is replaced.

    Args:
        folder: the run's own; TensorBoard calls the run by its path.
    """

    def __init__(self, folder: pathlib.Path):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        # A name that was not there before, lest a TensorBoard that looks on take the file for the old one.
        path = folder / f"events.out.tfevents.{time.time_ns()}.v2"
        # As cheap as a line of text; tf.summary takes half a training step for each evaluation.
        self._file = tf.io.TFRecordWriter(str(path))
        self._write(Event(file_version="brain.Event:2"))

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds a point to each curve: tag -> value. What is not finite is left out."""
        points = [Summary.Value(tag=t, simple_value=v) for t, v in values.items() if math.isfinite(v)]
        self.raw(Summary(value=points), step)

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Adds a text for people. Its tables, paragraphs of several lines, keep their columns."""
        paragraphs = text.strip("\n").split("\n\n")
        markdown = [f"```\n{part}\n```" if "\n" in part else part for part in paragraphs]
        self.raw(text_summary.text_pb(tag, "\n\n".join(markdown)), step)

    def image(self, tag: str, pixels: np.ndarray, step: int = 0) -> None:
        """Adds an image of shape (height, width, 1, 3 or 4), uint8, or floats in [0, 1]."""
        self.raw(image_summary(tag, pixels), step)

    def histogram(self, tag: str, values: np.ndarray, step: int = 0) -> None:
        """Adds the distribution of the values, in 30 bins. What is not finite is left out."""
        # Not by TensorBoard's own function, which takes thirty times the values' memory.
        values = np.asarray(values, np.float32)
        counts, edges = np.histogram(values[np.isfinite(values)], _BINS)
        bins = np.stack([edges[:-1], edges[1:], counts], axis=1).astype(np.float64)
        self.raw(_summary(tag, bins, histogram_metadata), step)

    def raw(self, summary: Summary, step: int = 0) -> None:
        """Adds a Summary proto that a plugin of TensorBoard has made."""
        # TensorFlow has the same proto in a class of its own, which an Event does not take.
        summary = Summary.FromString(summary.SerializeToString())
        self._write(Event(step=step, summary=summary))

    def close(self) -> None:
        self._file.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self._file.write(event.SerializeToString())
        self._file.flush()


def image_summary(tag: str, pixels: np.ndarray) -> Summary:
    """Returns the proto of an image, as `Events.image` takes it, for `Events.raw`."""
    height, width = pixels.shape[:2]
    png = tf.io.encode_png(tf.image.convert_image_dtype(pixels, tf.uint8, saturate=True)).numpy()
    return _summary(tag, [b"%d" % width, b"%d" % height, png], image_metadata)


def _summary(tag: str, tensor: np.ndarray | Sequence[bytes], plugin: ModuleType) -> Summary:
    metadata = plugin.create_summary_metadata(display_name=None, description=None)
    proto = tensor_util.make_tensor_proto(tensor)
    return Summary(value=[Summary.Value(tag=tag, metadata=metadata, tensor=proto)])
