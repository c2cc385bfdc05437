"""Image classification data sets by name, as NumPy arrays."""

import contextlib
import dataclasses
import difflib
import http.client
import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from tf_lottery import names
from tf_lottery.experiments import binary_patterns, idx
from tf_lottery.tickets import seeds

Pair = tuple[np.ndarray, np.ndarray]


@dataclasses.dataclass(frozen=True, eq=False)
class Data:
    """A data set in three parts.

    Attributes:
        train: images float32 `(n, height, width, channels)` and labels int32 `(n,)`, from 0 to `classes - 1`.
        validation: the same, held out from the training examples.
        test: the same.
        classes: number of classes.
    """

    train: Pair
    validation: Pair
    test: Pair
    classes: int


def load(
    name: str,
    *,
    data_dir: str | None = None,
    input_scaling: str = "unit",
    validation_size: int = 5000,
    seed: int = 0,
) -> Data:
    """Loads a data set.

    Args:
        name: `"digits"`: 1,797 handwritten digits, 8 x 8, which come with scikit-learn. Of each class every
            third image is a test image: 1,201 to train and validate with, 596 to test.
            `"binary_patterns"`: all 4,096 patterns of twelve zeros and ones, in two classes by a rule
            (`binary_patterns.load`): 3,277 to train and validate with, 819 to test.
            `"idx:DIR"`: the four IDX files of MNIST or one of its kin in the folder DIR (`idx.read_folder`).
            Any other: an image classification data set of tensorflow_datasets, such as `"mnist"`; downloaded
            if need be.
        data_dir: where tensorflow_datasets keeps its data; its own default if None. The others ignore it.
        input_scaling: a name in `SCALINGS`: `"unit"` maps the full range of a pixel to [0, 1],
            `"standardize"` the pixels of the training part to mean 0 and standard deviation 1, `"l2"` each
            image to Euclidean norm 1 (an all-zero one stays as it is), `"none"` leaves the values alone.
        validation_size: how many training examples to hold out, drawn at random.
        seed: what the draw depends on, beside the name.

    Raises:
        ValueError: an argument is unknown or out of range, the data are damaged, unfit or cannot be had.
        FileNotFoundError: the folder of `"idx:DIR"`, or a file in it, is missing.

    Example:
        >>> data = load("digits", validation_size=200)
        >>> data.train[0].shape, data.validation[0].shape, data.test[1].shape, data.classes
        ((1001, 8, 8, 1), (200, 8, 8, 1), (596,), 10)
    """
    scaling = names.find(input_scaling, SCALINGS, "input scaling")
    source, _, folder = name.partition(":")
    if name == "digits":
        raw = _load_digits()
    elif name == "binary_patterns":
        raw = _Raw(*binary_patterns.load(), classes=2, full_scale=1)
    elif source == "idx":
        raw = _load_idx(folder)
    else:
        raw = _load_tfds(name, data_dir)
    _check_labels(name, raw)
    # The folder is left out: where the files lie must not change the draw.
    random = seeds.generator(seed, "validation", "idx" if source == "idx" else name)
    train, validation = _hold_out(raw.train, validation_size, random)
    scale = scaling(train[0], raw.full_scale)
    parts = [(scale(x), y.astype(np.int32)) for x, y in (train, validation, raw.test)]
    return Data(*parts, classes=raw.classes)


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
    if not 1 <= size < len(x):
        raise ValueError(
            f"validation_size must be in 1..{len(x) - 1}, for it is held out from {len(x)} training examples."
            f" Received {size}."
        )
    held_out = np.zeros(len(x), bool)
    held_out[random.choice(len(x), size, replace=False)] = True
    return (x[~held_out], y[~held_out]), (x[held_out], y[held_out])


Scale = Callable[[np.ndarray], np.ndarray]


def _none(train: np.ndarray, full_scale: float) -> Scale:
    return lambda x: x.astype(np.float32)


def _unit(train: np.ndarray, full_scale: float) -> Scale:
    return lambda x: x.astype(np.float32) / np.float32(full_scale)


def _standardize(train: np.ndarray, full_scale: float) -> Scale:
    # Dividing by the full scale first would cancel out.
    mean, deviation = np.mean(train, dtype=np.float64), np.std(train, dtype=np.float64)
    if deviation == 0:
        raise ValueError(f"Cannot standardize: every training pixel is {mean:g}; use another input scaling.")
    return lambda x: (x.astype(np.float32) - np.float32(mean)) / np.float32(deviation)


def _l2(train: np.ndarray, full_scale: float) -> Scale:
    def scale(x: np.ndarray) -> np.ndarray:
        x = x.astype(np.float32)
        norm = np.sqrt(np.sum(np.square(x), axis=(1, 2, 3), keepdims=True))
        return x / np.where(norm == 0, np.float32(1), norm)

    return scale


# From the training part's images and the full scale to what is done to any images.
SCALINGS: dict[str, Callable[[np.ndarray, float], Scale]] = {
    "unit": _unit,
    "standardize": _standardize,
    "l2": _l2,
    "none": _none,
}


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


def _load_tfds(name: str, data_dir: str | None) -> _Raw:
    builder = _open_builder(name, data_dir)
    features, keys = builder.info.features, builder.info.supervised_keys
    image, label = (features[key] for key in _check_supervised(name, features, keys))
    if not builder.is_prepared():
        _prepare(name, builder)
    splits = builder.info.splits
    held_out = next((split for split in ("test", "validation") if split in splits), None)
    if "train" not in splits or held_out is None:
        raise ValueError(
            f"Data set {name!r} needs a split 'train' and one 'test' or 'validation', but has "
            f"{', '.join(splits)}; use another data set."
        )
    train, test = _read_split(builder, "train"), _read_split(builder, held_out)
    classes = getattr(label, "num_classes", None) or int(train[1].max()) + 1
    full_scale = np.iinfo(image.np_dtype).max if np.issubdtype(image.np_dtype, np.integer) else 1
    return _Raw(train, test, classes, full_scale)


def _open_builder(name: str, data_dir: str | None) -> Any:
    """Returns the builder, which knows about the data set but need not have its data."""
    import tensorflow_datasets as tfds

    # A namespace, as in "huggingface:mnist", is refused: tfds would ask the network for it.
    plain = re.fullmatch(r"(\w+)(/[\w.\-]+)?(:\d+\.\d+\.\d+)?", name)
    try:
        if plain is None:
            raise tfds.core.DatasetNotFoundError(name)
        return tfds.builder(name, data_dir=data_dir and os.path.expanduser(data_dir), try_gcs=False)
    except tfds.core.DatasetNotFoundError as error:
        listed = ["digits", "binary_patterns", "idx:DIR", *tfds.list_builders(with_community_datasets=False)]
        near = [
            "digits",
            "idx:DIR",
            "mnist",
            "binary_patterns",
            *difflib.get_close_matches(name, listed, n=3),
        ]
        near.append("and the other image classification data sets of tensorflow_datasets")
        raise ValueError(names.unknown(name, dict.fromkeys(near), "data set")) from error
    except Exception as error:  # Each builder runs code of its own, and there are hundreds.
        raise ValueError(f"tensorflow_datasets cannot open {name!r}: {_first_line(error)}") from error


def _check_supervised(name: str, features: Any, keys: Any) -> tuple[str, str]:
    """Returns the names of the image and of the label in an example."""
    import tensorflow_datasets as tfds

    if isinstance(keys, tuple) and len(keys) == 2 and all(isinstance(key, str) for key in keys):
        image, label = (features[key] for key in keys)
        is_image = isinstance(image, tfds.features.Image) and None not in image.shape
        if is_image and label.shape == () and np.issubdtype(label.np_dtype, np.integer):
            return keys
    raise ValueError(
        f"Data set {name!r} is not one of images of one size with integer labels: its (input, target) is "
        f"{keys} of {' '.join(str(features).split())}; use another data set."
    )


def _read_split(builder: Any, split: str) -> Pair:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    try:
        return tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1, as_supervised=True))
    except (tf.errors.OpError, OSError, ValueError) as error:
        raise ValueError(
            f"Cannot read split {split!r} in {str(builder.data_path)!r}: {_first_line(error)} Delete that "
            "folder and prepare the data set again."
        ) from error


def _prepare(name: str, builder: Any) -> None:
    """Downloads a data set, or where there is no network says so at once (tfds would retry for minutes)."""
    import tensorflow_datasets as tfds

    url = next(iter(builder.url_infos or ()), "https://storage.googleapis.com")
    reason = f"{urllib.parse.urlsplit(url).hostname} cannot be reached from here"
    if _answers(url):
        try:
            builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))
            return
        except Exception as error:  # Downloading and parsing fail in many ways, each with a type of its own.
            reason = f"preparing it failed ({_first_line(error)})"
    root = str(builder.data_dir_root)
    raise ValueError(
        f"Data set {name!r} is not prepared in {root!r}, and {reason}. Where there is a network, run "
        f"""`python -c "import tensorflow_datasets as tfds; tfds.builder('{name}', data_dir='DIR')"""
        f""".download_and_prepare()"` and copy the folder DIR/{builder.name} into {root!r}. Or use """
        "'idx:DIR', a folder with the IDX files of MNIST or its kin, or 'digits', which needs no download."
    )


def _first_line(error: Exception) -> str:
    """Returns the first line of a message: those of TensorFlow go on with a stack of operations."""
    return str(error).strip().partition("\n")[0]


def _answers(url: str, seconds: float = 3) -> bool:
    """Tells whether the host of `url` answers in that time, through the environment's proxy if any."""
    answers = []

    def ask() -> None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            try:
                request = urllib.request.Request(url, method="HEAD")
                urllib.request.urlopen(request, timeout=seconds).close()
            except urllib.error.HTTPError:
                pass  # An error page is an answer too.
            answers.append(True)

    # A thread, because looking up a host's name knows no timeout.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return bool(answers)
