"""Image classification data sets that tensorflow_datasets has prepared, or prepares, on disk."""

import contextlib
import difflib
import functools
import http.client
import math
import os
import re
import threading
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

import numpy as np

from tf_lottery import names

_GIB = 2**30


class StoredImages:
    """An image classification data set on disk.

    Args:
        name: of tensorflow_datasets, such as `"mnist"`, or of what `tf-lottery import-data` stored;
            downloaded if need be.
        data_dir: where tensorflow_datasets keeps its data; its own default if None.

    Attributes:
        builder: the builder of tensorflow_datasets, whose data are there.
        test: the name of the split to test with.

    Raises:
        ValueError: an unknown name, or no such data set; or it cannot be had.
    """

    def __init__(self, name: str, data_dir: str | None):
        self.name = name
        self.builder = _open_builder(name, data_dir)
        features, keys = self.builder.info.features, self.builder.info.supervised_keys
        self._keys = _check_supervised(name, features, keys)
        self._image, self._label = (features[key] for key in self._keys)
        if not self.builder.is_prepared():
            _prepare(name, self.builder)
        splits = self.builder.info.splits
        held_out = next((split for split in ("test", "validation") if split in splits), None)
        if "train" not in splits or held_out is None:
            raise ValueError(
                f"Data set {name!r} needs a split 'train' and one 'test' or 'validation', but has "
                f"{', '.join(splits)}; use another data set."
            )
        self.test = held_out

    @functools.cached_property
    def _features(self) -> Any:
        """The image and the label alone: an example may have more, to be decoded for nothing."""
        import tensorflow_datasets as tfds

        return tfds.features.FeaturesDict({key: self.builder.info.features[key] for key in self._keys})

    @property
    def shape(self) -> tuple[int | None, int | None, int]:
        """Height, width and channels of an image; None where they vary."""
        return self._image.shape

    @property
    def classes(self) -> int | None:
        """The number of classes; None where the data set does not tell."""
        return getattr(self._label, "num_classes", None)

    @property
    def full_scale(self) -> float:
        """The value of a pixel at its brightest."""
        dtype = self._image.np_dtype
        return np.iinfo(dtype).max if np.issubdtype(dtype, np.integer) else 1

    @property
    def gib(self) -> float:
        """What all images together take as float32, in GiB; infinity where their sizes vary."""
        if None in self.shape:
            return math.inf
        return sum(map(self.count, ("train", self.test))) * math.prod(self.shape) * 4 / _GIB

    def count(self, split: str) -> int:
        """Returns the number of examples of a split."""
        return self.builder.info.splits[split].num_examples

    def read(self, split: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns all images of one size and all labels of a split.

        Raises:
            ValueError: the files are damaged.
        """
        import tensorflow as tf
        import tensorflow_datasets as tfds

        try:
            return tfds.as_numpy(self.builder.as_dataset(split=split, batch_size=-1, as_supervised=True))
        except (tf.errors.OpError, OSError, ValueError) as error:
            raise ValueError(self.unreadable(f"split {split!r}", error)) from error

    def records(self, path: Any) -> Any:
        """Returns the records of one of the files, a `tf.data.Dataset` of strings."""
        from tensorflow_datasets.core import file_adapters

        return file_adapters.ADAPTER_FOR_FORMAT[self.builder.info.file_format].make_tf_data(path)

    def decode(self, record: Any) -> tuple[Any, Any]:
        """Returns the image in a record, (height, width, channels) as it is stored, and its label, int32."""
        import tensorflow as tf

        example = self._features.deserialize_example(record)
        return example[self._keys[0]], tf.cast(example[self._keys[1]], tf.int32)

    def unreadable(self, what: str, error: Exception) -> str:
        """Returns the message for files that cannot be read."""
        return (
            f"Cannot read {what} in {str(self.builder.data_path)!r}: {_first_line(error)} Delete that "
            "folder and prepare the data set again."
        )


def _open_builder(name: str, data_dir: str | None) -> Any:
    """Returns the builder, which knows about the data set but need not have its data."""
    import tensorflow_datasets as tfds

    # A namespace, as in "huggingface:mnist", is refused: tfds would ask the network for it.
    plain = re.fullmatch(r"(\w+)(/[\w\-][\w.\-]*)?(:\d+\.\d+\.\d+)?", name)
    data_dir = data_dir and os.path.expanduser(data_dir)
    try:
        if plain is None:
            raise tfds.core.DatasetNotFoundError(name)
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
        if not builder.data_path.exists():
            # Of a data set that it knows, tfds looks for no version but the one that it would make.
            with contextlib.suppress(tfds.core.DatasetNotFoundError):
                return tfds.core.read_only_builder.builder_from_files(name, data_dir=data_dir)
        return builder
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
        is_image = isinstance(image, tfds.features.Image) and image.shape[-1] is not None
        if is_image and label.shape == () and np.issubdtype(label.np_dtype, np.integer):
            return keys
    raise ValueError(
        f"Data set {name!r} is not one of images with integer labels: its (input, target) is "
        f"{keys} of {' '.join(str(features).split())}; use another data set."
    )


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
