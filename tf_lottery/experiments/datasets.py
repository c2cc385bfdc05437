"""Image classification data sets by name: as NumPy arrays, or streaming from disk."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from tf_lottery import names
from tf_lottery.experiments import binary_patterns, idx, scalings
from tf_lottery.experiments.image_files import ImageFiles
from tf_lottery.experiments.image_stream import ImageStream
from tf_lottery.experiments.stored import StoredImages
from tf_lottery.tickets import seeds
from tf_lottery.training.streams import Stream

Pair = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A data set in three parts, all arrays or all streams.

    Attributes:
        train: images float32 `(n, height, width, channels)` and labels int32 `(n,)`, from 0 to `classes - 1`;
            or a stream of batches of both.
        validation: the same, held out from the training examples.
        test: the same.
        classes: number of classes.
    """

    train: Pair | Stream
    validation: Pair | Stream
    test: Pair | Stream
    classes: int

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        images, _ = self.train.first if isinstance(self.train, Stream) else self.train
        return images.shape[1:]


def load(
    name: str,
    *,
    data_dir: str | None = None,
    memory_gib: float = 8.0,
    image_size: int = 0,
    random_crops: bool = False,
    input_scaling: str = "unit",
    validation_size: int = 5000,
    batch_size: int = 128,
    seed: int = 0,
) -> Data:
    """Loads a data set.

    Args:
        name: `"digits"`: 1,797 handwritten digits, 8 x 8, which come with scikit-learn. Of each class every
            third image is a test image: 1,201 to train and validate with, 596 to test.
            `"binary_patterns"`: all 4,096 patterns of twelve zeros and ones, in two classes by a rule
            (`binary_patterns.load`): 3,277 to train and validate with, 819 to test.
            `"idx:DIR"`: the four IDX files of MNIST or one of its kin in the folder DIR (`idx.read_folder`).
            Any other: an image classification data set of tensorflow_datasets, such as `"mnist"`, downloaded
            if need be; or what `tf-lottery import-data` stored under that name.
        data_dir: where tensorflow_datasets keeps its data; its own default if None. The others ignore it.
        memory_gib: a data set of tensorflow_datasets that takes more than that, as float32, streams from
            disk (`ImageStream`), and so does one whose images are brought to one size.
        image_size: height and width that the centre of each image is brought to (`crops.central`), 1 or
            more; 0 leaves images as they are, all of one size.
        random_crops: whether training takes random parts instead (`crops.random_resized`); of images that
            are brought to one size.
        input_scaling: a name in `scalings.SCALINGS`: `"unit"` maps the full range of a pixel to [0, 1];
            `"imagenet"` then brings ImageNet's three channels to mean 0 and standard deviation 1,
            `"standardize"` the pixels of the training part, `"l2"` each image to Euclidean norm 1 (an
            all-zero one stays as it is); `"none"` leaves the values alone. What streams can have
            `"unit"`, `"imagenet"` and `"none"`.
        validation_size: how many training examples to hold out, drawn at random.
        batch_size: examples in a batch of a stream.
        seed: what the draw depends on, beside the name.

    Raises:
        ValueError: an argument is unknown or out of range, the data are damaged, unfit or cannot be had.
        FileNotFoundError: the folder of `"idx:DIR"`, or a file in it, is missing.

    Example:
        >>> data = load("digits", validation_size=200)
        >>> data.train[0].shape, data.validation[0].shape, data.test[1].shape, data.classes
        ((1001, 8, 8, 1), (200, 8, 8, 1), (596,), 10)
    """
    names.find(input_scaling, scalings.SCALINGS, "input scaling")
    source, _, folder = name.partition(":")
    # The folder is left out: where the files lie must not change the draw.
    random = seeds.generator(seed, "validation", "idx" if source == "idx" else name)
    if name == "digits":
        raw = _load_digits()
    elif name == "binary_patterns":
        raw = _Raw(*binary_patterns.load(), classes=2, full_scale=1)
    elif source == "idx":
        raw = _load_idx(folder)
    else:
        stored = StoredImages(name, data_dir)
        if image_size or stored.gib > memory_gib:
            held_out = _draw(stored.count("train"), validation_size, random)
            scale = scalings.find(input_scaling, stored.full_scale, None)
            shown = {"scale": scale, "image_size": image_size, "crop": random_crops}
            return _streams(stored, held_out, batch_size=batch_size, **shown)
        raw = _read(stored)
    if image_size:
        raise ValueError(f"The images of {name!r} are of one size and stay so: set image_size to 0.")
    _check_labels(name, raw)
    train, validation = _hold_out(raw.train, validation_size, random)
    scale = scalings.find(input_scaling, raw.full_scale, train[0])
    parts = [(scale(x.astype(np.float32)), y.astype(np.int32)) for x, y in (train, validation, raw.test)]
    return Data(*parts, classes=raw.classes)


def _streams(stored: StoredImages, held_out: np.ndarray, **shown: Any) -> Data:
    """Returns the parts of a data set that stays on disk; `held_out` has a bool for each training example."""
    if None in stored.shape and not shown["image_size"]:
        raise ValueError(
            f"The images of {stored.name!r} are of many sizes, and a network takes one: set image_size, "
            "such as config.data.image_size=224."
        )
    if stored.classes is None:
        raise ValueError(
            f"The labels of {stored.name!r} are plain integers, and while it streams from disk nothing tells "
            "how many classes they are of; use a data set whose label is a ClassLabel."
        )
    parts = {
        "training": ("train", ~held_out),
        "validation": ("train", held_out),
        "test": (stored.test, np.ones(stored.count(stored.test), bool)),
    }
    streams = [
        ImageStream(what, stored, ImageFiles(stored, split, taken), **shown)
        for what, (split, taken) in parts.items()
    ]
    return Data(*streams, classes=stored.classes)


class _Raw(NamedTuple):
    """What a source yields: images as they are stored, and the value of a pixel at its brightest."""

    train: Pair
    test: Pair
    classes: int
    full_scale: float


def _check_labels(name: str, raw: _Raw) -> None:
    for part, (_, labels) in (("training", raw.train), ("test", raw.test)):
        low, high = labels.min(), labels.max()
        if low < 0 or high >= raw.classes:
            raise ValueError(
                f"Data set {name!r} has labels from 0 to {raw.classes - 1}, but in its {part} examples they "
                f"range from {low} to {high}; use one whose training and test examples have the same classes."
            )


def _hold_out(train: Pair, size: int, random: np.random.Generator) -> tuple[Pair, Pair]:
    """Splits off `size` examples drawn at random; both parts stay in their original order."""
    x, y = train
    held_out = _draw(len(x), size, random)
    return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])


def _draw(examples: int, size: int, random: np.random.Generator) -> np.ndarray:
    """Returns which examples to hold out, as bools."""
    if not 1 <= size < examples:
        raise ValueError(
            f"validation_size must be in 1..{examples - 1}, for it is held out from {examples} training "
            f"examples. Received {size}."
        )
    held_out = np.zeros(examples, bool)
    held_out[random.choice(examples, size, replace=False)] = True
    return held_out


def _load_digits() -> _Raw:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    x, y = bunch.images[..., np.newaxis], bunch.target
    rank_in_class = np.zeros(len(y), int)
    for label in range(10):
        rank_in_class[y == label] = np.arange(np.count_nonzero(y == label))
    is_test = rank_in_class % 3 == 2
    return _Raw((x[~is_test], y[~is_test]), (x[is_test], y[is_test]), classes=10, full_scale=16)


def _load_idx(folder: str) -> _Raw:
    if not folder:
        raise ValueError("The folder is missing: write it after the colon, as in 'idx:data/mnist'.")
    splits = idx.read_folder(folder)
    train, test = ((x[..., np.newaxis], y) for x, y in (splits["train"], splits["test"]))
    return _Raw(train, test, classes=int(train[1].max()) + 1, full_scale=255)


def _read(stored: StoredImages) -> _Raw:
    train, test = stored.read("train"), stored.read(stored.test)
    classes = stored.classes or int(train[1].max()) + 1
    return _Raw(train, test, classes, stored.full_scale)
