"""Images that stream from disk, in an order that is a function of the step and a key alone."""

from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tf_lottery.experiments import crops
from tf_lottery.experiments.image_files import ImageFiles
from tf_lottery.experiments.scalings import Scale
from tf_lottery.experiments.stored import StoredImages
from tf_lottery.tickets import seeds
from tf_lottery.training.data import Examples
from tf_lottery.training.streams import Stream, StreamOrder

_READY = 2  # batches that wait to be asked for


class ImageStream(Stream):
    """Batches of images and labels from disk, `(x, y)`, float32 and int32.

    A pass over it has every example once, in the order of the data set. `order` is that of training:
    every epoch is an order of all examples, drawn from the key and the epoch's number, and batches
    are cut from the epochs laid end to end, so each holds exactly `batch_size` examples and none is
    left out. How an image is cropped then depends on the key and on how many came before it. To go on
    at a step is to read past what came before it in its epoch, without decoding any.

    Args:
        what: the word for these data in errors, such as `"training"`.
        stored: the data set.
        files: its records.
        scale: what is done to the pixels.
        image_size: height and width that images are brought to; 0 leaves them as they are.
        crop: whether training takes a random part of each image (`crops.random_resized`), where it is
            the central one otherwise.
        batch_size: examples in a batch.

    Attributes:
        share: `(index, of)`: an order gives rows `[index * batch_size / of, (index + 1) * batch_size / of)`
            of each batch, and decodes no others. Each of several workers sets its own. Passes are whole.
    """

    def __init__(
        self,
        what: str,
        stored: StoredImages,
        files: ImageFiles,
        *,
        scale: Scale,
        image_size: int = 0,
        crop: bool = False,
        batch_size: int,
    ):
        self.share = (0, 1)
        self._stored, self._files, self._scale = stored, files, scale
        self._image_size, self._crop, self._batch_size = image_size, crop, batch_size
        plain = files.in_order().map(self._centre, tf.data.AUTOTUNE).batch(batch_size)
        count = tf.data.experimental.assert_cardinality(-(-len(files) // batch_size))
        super().__init__(what, _repeatable(plain.apply(count)))

    def order(self, *key: int | str) -> StreamOrder:
        """Returns which images each step takes, or this worker's share of them; see the class.

        Raises:
            ValueError: a batch cannot be shared evenly.
        """
        index, of = self.share
        if self._batch_size % of:
            raise ValueError(
                f"A batch of {self._batch_size} examples cannot be shared by {of} workers: "
                f"give a batch size that is a multiple of {of}."
            )
        rows = self._batch_size // of
        return StreamOrder(lambda step: map(self._examples, self._read(self._from(step, index, rows, key))))

    def _from(self, step: int, index: int, rows: int, key: tuple[int | str, ...]) -> tf.data.Dataset:
        """Returns the batches from a step on, of each the rows of one share."""
        epoch, past = divmod(step * self._batch_size, len(self._files))
        records = self._files.shuffled(epoch, seeds.seed(*key, "data order"))
        numbered = records.enumerate(epoch * len(self._files)).skip(past)
        if rows < self._batch_size:
            numbered = numbered.filter(lambda number, _: number % self._batch_size // rows == index)
        drawn = seeds.seed(*key, "crops")
        if self._crop:
            images = numbered.map(
                lambda number, record: self._part(record, (drawn, number)), tf.data.AUTOTUNE
            )
        else:
            images = numbered.map(lambda _, record: self._centre(record), tf.data.AUTOTUNE)
        return _repeatable(images.batch(rows, drop_remainder=True))

    def _centre(self, record: tf.Tensor) -> Examples:
        image, label = self._stored.decode(record)
        return self._scaled(crops.central(image, self._image_size) if self._image_size else image), label

    def _part(self, record: tf.Tensor, seed: tuple[Any, Any]) -> Examples:
        image, label = self._stored.decode(record)
        return self._scaled(crops.random_resized(image, self._image_size, seed)), label

    def _scaled(self, image: tf.Tensor) -> tf.Tensor:
        return self._scale(tf.cast(image, tf.float32))

    def _raw(self) -> Iterator[Any]:
        return self._read(self._dataset)

    def _read(self, dataset: tf.data.Dataset) -> Iterator[Any]:
        try:
            yield from dataset
        except tf.errors.OpError as error:
            raise ValueError(self._stored.unreadable(f"the {self.what} data", error)) from error


def _repeatable(batches: tf.data.Dataset) -> tf.data.Dataset:
    options = tf.data.Options()
    options.deterministic = True
    return batches.prefetch(_READY).with_options(options)
