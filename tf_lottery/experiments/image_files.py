"""The records of a data set on disk, in the order of the data set or in one that is drawn."""

from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tf_lottery.experiments.stored import StoredImages

_SHUFFLED_BYTES = 2**29
_FILES, _BLOCK = 16, 16  # read side by side, so many records of each in turn, as tensorflow_datasets does
_EVER = 2**62
_WINDOWS = 2**31  # more than an epoch has


class ImageFiles:
    """Some of the records of a split, each a string that holds an encoded image and its label.

    Args:
        stored: the data set.
        split: the name of its split.
        taken: which examples, bools in the order in which `StoredImages.read` has them.
    """

    def __init__(self, stored: StoredImages, split: str, taken: np.ndarray):
        info = stored.builder.info
        files = info.splits[split].file_instructions
        self._read = stored.records
        self._paths = tf.constant([str(file.filename) for file in files])
        ends = np.cumsum([file.examples_in_shard for file in files])
        self._starts = tf.constant(np.concatenate([[0], ends[:-1]]), tf.int64)
        self._files = 1 if info.disable_shuffling else _FILES
        # From the order in which the files are read to the order in which they lie.
        parts = tf.data.Dataset.from_tensor_slices((self._starts, tf.constant(ends, tf.int64)))
        numbers = self._side_by_side(parts, tf.data.Dataset.range).batch(len(taken)).get_single_element()
        self._taken = np.empty(len(taken), bool)
        self._taken[numbers] = taken
        bytes_per_record = max(1, info.splits[split].num_bytes // len(taken))
        self._window = max(1, _SHUFFLED_BYTES // bytes_per_record)

    def __len__(self) -> int:
        return int(np.count_nonzero(self._taken))

    def in_order(self) -> tf.data.Dataset:
        """Returns the records as `StoredImages.read` has the examples."""
        return self._records(tf.range(len(self._paths)))

    def shuffled(self, epoch: int, seed: int) -> tf.data.Dataset:
        """Returns the records of all epochs from one on, each in an order that the epoch and seed determine.

        The files come in random order, 16 side by side, and what they give is shuffled in windows
        of half a GiB, of which up to three are in memory.
        """
        return tf.data.Dataset.range(epoch, _EVER).flat_map(lambda epoch: self._epoch(epoch, seed))

    def _epoch(self, epoch: tf.Tensor, seed: int) -> tf.data.Dataset:
        def shuffled(number: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
            return tf.gather(window, _permutation(tf.size(window), seed, epoch * _WINDOWS + number + 1))

        files = _permutation(len(self._paths), seed, epoch * _WINDOWS)
        windows = self._records(files).batch(self._window)
        return windows.enumerate().map(shuffled).prefetch(1).unbatch()

    def _records(self, files: tf.Tensor) -> tf.data.Dataset:
        def numbered(path: tf.Tensor, start: tf.Tensor) -> tf.data.Dataset:
            return tf.data.Dataset.zip(tf.data.Dataset.range(start, _EVER), self._read(path))

        chosen = tf.gather(self._paths, files), tf.gather(self._starts, files)
        records = self._side_by_side(tf.data.Dataset.from_tensor_slices(chosen), numbered)
        taken = tf.constant(self._taken)
        return records.filter(lambda number, _: taken[number]).map(lambda _, record: record)

    def _side_by_side(self, parts: tf.data.Dataset, read: Callable[..., tf.data.Dataset]) -> tf.data.Dataset:
        return parts.interleave(read, self._files, _BLOCK, tf.data.AUTOTUNE, deterministic=True)


def _permutation(size: int | tf.Tensor, seed: int, number: tf.Tensor) -> tf.Tensor:
    # tf.data's own shuffle follows the global seed too.
    return tf.random.experimental.stateless_shuffle(tf.range(size), (seed, number), alg="philox")
