"""Small data sets on disk, as tensorflow_datasets has them."""

import io

import numpy as np
import PIL.Image
import tensorflow_datasets as tfds


class Stored(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
    def _info(self):
        features, keys = self._feature_spec, ("image", "label")
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=keys)


def store(data_dir, name, image_of, shape, shards=5, sizes=(90, 14), label=None):
    def examples(first, count):
        for number in range(first, first + count):
            yield number, {"image": image_of(number), "label": number % 3, "number": number}

    features = {
        "image": tfds.features.Image(shape=shape),
        "label": label or tfds.features.ClassLabel(num_classes=3),
        "number": tfds.features.Scalar(np.int64),  # not asked for
    }
    builder = Stored(
        name=name,
        version="1.0.0",
        features=tfds.features.FeaturesDict(features),
        split_datasets={"train": examples(0, sizes[0]), "test": examples(sizes[0], sizes[1])},
        data_dir=data_dir,
    )
    config = tfds.download.DownloadConfig(try_download_gcs=False, num_shards=shards)
    builder.download_and_prepare(download_config=config)


def numbered(number):
    return np.full((4, 5, 3), number % 256, np.uint8)


def photograph(number):
    """A JPEG of a size of its own."""
    random = np.random.default_rng(number)
    height, width = random.integers(20, 60, 2)
    pixels = np.kron(random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)), np.ones((8, 8, 1)))
    file = io.BytesIO()
    PIL.Image.fromarray(pixels[:height, :width].astype(np.uint8)).save(file, "JPEG")
    return file.getvalue()
