"""Data that come batch by batch: a `tf.data.Dataset`, or Keras's `PyDataset` or `Sequence`."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from tf_lottery.training import data
from tf_lottery.training.data import Examples


class Stream:
    """Batches of examples, from the first one on each time that it is iterated.

    The order is that of the data set itself. What is trained from it can be repeated
    bit for bit where the data set gives the same batches in each pass.

    Args:
        dataset: a batched `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            `tf_keras.utils.Sequence`, of `x`, `(x, y)` or `(x, y, sample_weight)`.
        class_weight: class -> weight of its examples.
    """

    def __init__(self, dataset: Any, class_weight: Mapping[int, float] | None = None):
        self._dataset = dataset
        self._class_weight = class_weight

    @staticmethod
    def takes(x: Any) -> bool:
        """Whether `x` is such a data set."""
        return isinstance(x, tf.data.Dataset) or (hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end"))

    def __iter__(self) -> Iterator[Examples]:
        """One pass over the data."""
        batches = iter(self._dataset) if isinstance(self._dataset, tf.data.Dataset) else self._items()
        for batch in batches:
            batch = batch if isinstance(batch, tuple) else (batch,)
            batch = tf.nest.map_structure(np.asarray, tuple(part for part in batch if part is not None))
            yield batch if self._class_weight is None else data.weigh_classes(batch, self._class_weight)

    def count(self) -> int | None:
        """Returns the number of batches in a pass, None where it never ends."""
        if not isinstance(self._dataset, tf.data.Dataset):
            return getattr(self._dataset, "num_batches", None) or len(self._dataset)
        known = int(self._dataset.cardinality())
        if known == tf.data.INFINITE_CARDINALITY:
            return None
        return sum(1 for _ in self._dataset) if known == tf.data.UNKNOWN_CARDINALITY else known

    def describe(self) -> str:
        """Returns what tells one such data set from another, as far as can be seen from outside."""
        first = next(iter(self), ())
        return str(tf.nest.map_structure(lambda leaf: f"{leaf.dtype}{leaf.shape}", first))

    def _items(self) -> Iterator[Any]:
        total = self.count()
        for index in itertools.count() if total is None else range(total):
            yield self._dataset[index]
        self._dataset.on_epoch_end()


class StreamOrder:
    """The batches of each step: the stream's passes laid end to end."""

    def __init__(self, stream: Stream):
        self._stream = stream
        self._step = 0
        self._batches: Iterator[Examples] = iter(())

    def batches(self, step: int, count: int) -> list[Examples]:
        """Returns the batches of `count` steps from `step` on, stacked as `stacked` does.

        Raises:
            ValueError: the data set is empty.
        """
        if step != self._step or step == 0:
            self._batches = itertools.islice(self._endless(), step, None)
        self._step = step + count
        return stacked(itertools.islice(self._batches, count))

    def _endless(self) -> Iterator[Examples]:
        for passes in itertools.count():
            batch = None
            for batch in self._stream:
                yield batch
            if batch is None:
                raise ValueError(
                    f"The training data set gave no batch in its pass {passes + 1}. It needs to give some, "
                    "and to start anew for each pass."
                )


def stacked(batches: Iterator[Examples]) -> list[Examples]:
    """Returns batches in their order, each run of equal shapes as one with the batches as first axis."""
    runs = itertools.groupby(batches, key=lambda batch: tf.nest.map_structure(np.shape, batch))
    return [tf.nest.map_structure(lambda *leaves: np.stack(leaves), *run) for _, run in runs]
