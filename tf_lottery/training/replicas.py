"""How a batch is shared out over the replicas of a model's `tf.distribute` strategy."""

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.client import device_lib
from tensorflow.python.eager import context

MEMORY_SHARE = 0.25  # of a device's memory, which a data set may take to lie there whole
_UNSAID = 8 * 2**30  # bytes of memory of a TPU core on another machine: the least that any has


class Replicas:
    """The replicas of a model, all of which hold the same weights.

    Each takes an equal, contiguous part of every batch, so what is trained is what one
    device would have trained on the whole batch (but for batch statistics, which each
    replica takes of its own part, and for the order in which numbers are added up).

    Args:
        strategy: that of the model: `model.distribute_strategy`.

    Attributes:
        strategy: the same.
        count: how many there are, on all machines together.
        equal: whether all parts need one shape, as on TPUs, where one program serves all.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        self.strategy = strategy
        self.count = strategy.num_replicas_in_sync
        self.equal = isinstance(strategy, tf.distribute.TPUStrategy)

    def check(self, batch_size: int) -> None:
        """Refuses batches that cannot be cut into equal parts.

        Raises:
            ValueError: says which sizes can.
        """
        if batch_size % self.count:
            below = batch_size - batch_size % self.count
            sizes = " or ".join(str(size) for size in (below, below + self.count) if size)
            raise ValueError(
                f"A batch of {batch_size} examples cannot be cut into equal parts for {self.count} replicas: "
                f"take batches of {sizes}. The last batch of a data set is left out by "
                "dataset.batch(size, drop_remainder=True)."
            )

    def shared(self, examples: int) -> int:
        """Returns how many of so many examples are any replica's.

        Where parts must be equal, the last ones, fewer than there are replicas, are nobody's.
        """
        return examples - examples % self.count if self.equal else examples

    def part(self, examples: int, replica: int) -> slice:
        """Returns the examples of a replica: as many for each, or one more for the first ones."""
        size, more = divmod(self.shared(examples), self.count)
        first = replica * size + min(replica, more)
        return slice(first, first + size + (replica < more))

    def place(self, value_of: Callable[[int], Any]) -> Any:
        """Returns a nest of values, on each replica's device what `value_of(replica)` gives."""

        def placed(context: tf.distribute.experimental.ValueContext) -> Any:
            replica = context.replica_id_in_sync_group
            with self._device(replica):
                return on_device(value_of(replica))

        return self.strategy.experimental_distribute_values_from_function(placed)

    def share_out(self, examples: Any, axis: int = 0, share: tuple[int, int] = (0, 1)) -> Any:
        """Returns a nest of arrays, on each replica's device its part along an axis.

        Args:
            examples: the nest.
            axis: that of the examples.
            share: which of how many equal, contiguous shares of the batch this is: (0, 1) is all of it.
        """
        index, of = share

        def part_of(replica: int) -> Any:
            def cut(array: np.ndarray) -> np.ndarray:
                length = array.shape[axis]
                rows = self.part(length * of, replica)
                skipped = index * length
                return array[(slice(None),) * axis + (slice(rows.start - skipped, rows.stop - skipped),)]

            return tf.nest.map_structure(cut, examples)

        return self.place(part_of)

    def run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Calls the function on each replica, with its own parts of what was placed."""
        return self.strategy.run(function, args=arguments)

    def mean(self, logs: Any, examples: Any) -> Any:
        """Returns the mean over replicas of scalars by name, each weighed with its number of examples."""
        if self.count == 1:
            return logs
        total = self.strategy.reduce("SUM", examples, axis=None)
        weighed = self.strategy.run(
            lambda logs, examples: {name: value * examples for name, value in logs.items()}, (logs, examples)
        )
        return {
            name: self.strategy.reduce("SUM", value, axis=None) / total for name, value in weighed.items()
        }

    def fit(self, examples: Any) -> bool:
        """Whether arrays are small enough to lie on each device whole, by `MEMORY_SHARE`.

        The answer is the same on all machines, whatever memory each has.
        """
        size = sum(array.nbytes for array in tf.nest.flatten(examples))
        fits = size <= MEMORY_SHARE * _device_memory()
        if self.count == 1:
            return fits
        votes = tf.function(self.strategy.reduce)("SUM", self.place(lambda _: float(fits)), axis=None)
        return int(votes) == self.count

    def bytes_per_example(self, data: Any) -> int:
        """Returns how much memory one example takes of what was placed."""
        local = [self.strategy.experimental_local_results(leaf)[0] for leaf in tf.nest.flatten(data)]
        return max(1, sum(int(np.prod(t.shape[1:])) * t.dtype.size for t in local))

    def _device(self, replica: int) -> contextlib.AbstractContextManager[Any]:
        try:
            devices = self.strategy.extended.worker_devices  # of several machines, those of this one
        except RuntimeError:  # of TensorFlow's default strategy
            return contextlib.nullcontext()
        return tf.device(devices[replica % len(devices)])


@contextlib.contextmanager
def explaining_lost_workers() -> Iterator[None]:
    """Says what it means that TensorFlow could not exchange numbers between machines.

    Raises:
        ConnectionError: one of the other workers has stopped.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "Collective ops is aborted" not in str(error.message):
            raise
        raise ConnectionError(
            "Another worker of this training has stopped or does not answer, so this one stops too. See what "
            "it said, and start all of them again: they go on from what is done. In TensorFlow's words: "
            + error.message.partition("Collective ops is aborted by: ")[2].partition("\n")[0]
        ) from error


@functools.cache
def _device_memory() -> float:
    """Returns the bytes of memory of the smallest accelerator; without one, that of a CPU device."""
    if not tf.config.list_logical_devices("GPU") + tf.config.list_logical_devices("TPU"):
        whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return whole / len(tf.config.list_logical_devices("CPU"))
    devices = device_lib.list_local_devices(context.context().config)
    said = [device.memory_limit for device in devices if device.device_type in ("GPU", "TPU")]
    return min(filter(None, said), default=_UNSAID)


def on_device(arrays: Any) -> Any:
    """Returns a nest of tensors; float32 for float64, whose other half a model of float32 has no use for."""
    return tf.nest.map_structure(_as_fit_has_it, arrays)


def _as_fit_has_it(array: Any) -> tf.Tensor:
    tensor = tf.constant(array)
    return tf.cast(tensor, tf.float32) if tensor.dtype == tf.float64 else tensor
