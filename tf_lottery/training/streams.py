"""Data that come batch by batch: a `tf.data.Dataset`, or Keras's `PyDataset` or `Sequence`."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
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
        what: the word for these data in errors, such as `"training"`.
        dataset: a batched `tf.data.Dataset`, a `keras.utils.PyDataset` or a
            `tf_keras.utils.Sequence`, of `x`, `(x, y)` or `(x, y, sample_weight)`.
        class_weight: class -> weight of its examples.

    Attributes:
        share: which of how many equal, contiguous parts of each batch an order gives: (0, 1) is all of it.
    """

    share = (0, 1)

    def __init__(self, what: str, dataset: Any, class_weight: Mapping[int, float] | None = None):
        self.what = what
        self._dataset = dataset
        self._class_weight = class_weight

    @staticmethod
    def takes(x: Any) -> bool:
        """Whether `x` is such a data set."""
        return isinstance(x, tf.data.Dataset) or (hasattr(x, "__getitem__") and hasattr(x, "on_epoch_end"))

    @property
    def endless(self) -> bool:
        """Whether it says of itself that a pass over it has no end."""
        return self._known() == tf.data.INFINITE_CARDINALITY

    @functools.cached_property
    def first(self) -> Examples:
        """The first batch.

        Raises:
            ValueError: there is none.
        """
        if self._known() == 0 or (batch := next(self._raw(), None)) is None:
            raise ValueError(f"The {self.what} data set is empty. Expected one batch of examples at least.")
        return self._examples(batch)

    def __iter__(self) -> Iterator[Examples]:
        """One pass over the data."""
        getattr(self._dataset, "on_epoch_begin", _nothing)()  # of Keras 3 alone
        yield from map(self._examples, self._raw())
        getattr(self._dataset, "on_epoch_end", _nothing)()

    def take(self, examples: int) -> list[Examples]:
        """Returns the first so many examples of a pass, in batches; all where there are fewer."""
        batches: list[Examples] = []
        for batch in self:
            batches.append(data.take(batch, slice(examples)))
            examples -= data.count(batch)
            if examples <= 0:
                break
        return batches

    def order(self, *key: int | str) -> "StreamOrder":
        """Returns which batches each step takes; here those of the data set, whatever the key."""
        return StreamOrder(lambda step: itertools.islice(_passes(self), step, None))

    def count(self, limit: int | None = None) -> int | None:
        """Returns the number of batches in a pass, None where it never ends.

        Args:
            limit: where batches have to be counted one by one, at most so many are.
        """
        known = self._known()
        if known == tf.data.UNKNOWN_CARDINALITY:
            return sum(1 for _ in itertools.islice(self._raw(), limit))
        return None if known == tf.data.INFINITE_CARDINALITY else known

    def describe(self) -> str:
        """Returns what tells one such data set from another, as far as can be seen from outside."""
        first = tf.nest.map_structure(lambda leaf: f"{leaf.dtype}{leaf.shape}", self.first)
        weights = "" if self._class_weight is None else f", class_weight {dict(self._class_weight)}"
        return f"{self._known()} batches like {first}{weights}"

    def _known(self) -> int:
        """Returns the number of batches, or one of TensorFlow's two words for what is no number."""
        if isinstance(self._dataset, tf.data.Dataset):
            return int(self._dataset.cardinality())
        known = self._dataset.num_batches if hasattr(self._dataset, "num_batches") else len(self._dataset)
        return tf.data.INFINITE_CARDINALITY if known is None else known

    def _raw(self) -> Iterator[Any]:
        if isinstance(self._dataset, tf.data.Dataset):
            return iter(self._dataset)
        total = self.count()
        return (self._dataset[index] for index in (itertools.count() if total is None else range(total)))

    def _examples(self, batch: Any) -> Examples:
        # A list is to Keras what a tuple is.
        parts = tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)
        if not 1 <= len(parts) <= 3:
            raise ValueError(
                f"A batch of the {self.what} data set must be x, (x, y) or (x, y, sample_weight). "
                f"Received {len(parts)} parts."
            )
        shapes = [tuple(getattr(leaf, "shape", ())) for leaf in tf.nest.flatten(parts) if leaf is not None]
        if len({shape[:1] for shape in shapes} - {()}) != 1 or () in shapes:
            raise ValueError(
                f"The {self.what} data set must give batches: arrays with as many examples each on their "
                f"first axis. Received shapes {', '.join(map(str, shapes))}. Batch it: dataset.batch(32)."
            )
        examples = data.as_examples(self.what, *parts)
        return examples if self._class_weight is None else data.weigh_classes(examples, self._class_weight)


class HostArrays(Stream):
    """Arrays that are too large for the device: what is trained from them is the same.

    Args:
        examples: the arrays.
        batch_size: examples in a batch; the last one of a pass may have fewer.
    """

    def __init__(self, examples: Examples, batch_size: int):
        super().__init__("array", None)
        self._arrays = examples
        self._batch_size = batch_size

    @property
    def first(self) -> Examples:
        return next(iter(self))

    def __iter__(self) -> Iterator[Examples]:
        for start in range(0, data.count(self._arrays), self._batch_size):
            yield data.take(self._arrays, slice(start, start + self._batch_size))

    def order(self, *key: int | str) -> "HostArraysOrder":
        """Returns the batches of `data.DataOrder`."""
        return HostArraysOrder(self._arrays, data.DataOrder(data.count(self._arrays), self._batch_size, *key))


@dataclasses.dataclass(frozen=True)
class HostArraysOrder:
    """The batches of each step, gathered from arrays."""

    examples: Examples
    rows: data.DataOrder

    def batches(self, step: int, count: int) -> list[Examples]:
        """Returns the batches of `count` steps from `step` on, stacked."""
        return [data.take(self.examples, self.rows.batches(step, count))]


class StreamOrder:
    """The batches of each step, read one after the other.

    Args:
        read_from: from a step to the batches of this step and all after it.
    """

    def __init__(self, read_from: Callable[[int], Iterator[Examples]]):
        self._read_from = read_from
        self._step = 0
        self._batches: Iterator[Examples] = iter(())

    def batches(self, step: int, count: int) -> list[Examples]:
        """Returns the batches of `count` steps from `step` on, stacked as `stacked` does.

        Raises:
            ValueError: the data set is empty.
        """
        if step != self._step or step == 0:
            self._batches = self._read_from(step)
        self._step = step + count
        return stacked(itertools.islice(self._batches, count))


def stacked(batches: Iterator[Examples]) -> list[Examples]:
    """Returns batches in their order, each run of equal shapes as one with the batches as first axis."""
    runs = itertools.groupby(batches, key=lambda batch: tf.nest.map_structure(np.shape, batch))
    return [tf.nest.map_structure(lambda *leaves: np.stack(leaves), *run) for _, run in runs]


def _passes(stream: Stream) -> Iterator[Examples]:
    # No method of StreamOrder: in a circle with it, TensorFlow's iterator would be left to the
    # garbage collector, and its end holds up for seconds what runs then.
    for passes in itertools.count(1):
        batch = None
        for batch in stream:
            yield batch
        if batch is None:
            raise ValueError(
                f"The {stream.what} data set gave no batch in its pass {passes}. It needs to give some, "
                "and to start anew for each pass."
            )


def _nothing() -> None:
    pass
