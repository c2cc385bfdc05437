"""Stores images as a data set of tensorflow_datasets: the command `tf-lottery import-data`."""

import contextlib
import io
import os
import pathlib
import re
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import tqdm

from tf_lottery import paths
from tf_lottery.experiments import commands, idx, image_folders
from tf_lottery.experiments.commands import Option, UsageError
from tf_lottery.experiments.image_folders import Folder

COMMAND = "import-data"
_PURPOSE = "store images as a data set that --config.data.name and --config.data.data_dir read, offline"
_OPTIONS = {
    "name": Option("", "of the data set: a to z, 0 to 9 and '_'"),
    "data_dir": Option("", "the folder of data sets that it is put into"),
}
_VERSION = "1.0.0"
_TAKEN = ("digits", "binary_patterns", "idx")


def parse(words: Sequence[str]) -> tuple[str, str, str]:
    """Returns the source, name and data_dir that the words after the command give.

    Raises:
        UsageError: they cannot be followed.
    """
    rest, given = commands.read_flags(COMMAND, _OPTIONS, words)
    if len(rest) != 1 or not all(given.values()):
        raise UsageError(
            "Name a source, a name and a folder: "
            "tf-lottery import-data images:photos --name=my_photos --data_dir=data"
        )
    name = given["name"]
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,99}", name) or name in _TAKEN:
        raise UsageError(
            f"--name is a to z, 0 to 9 and '_', at most 100, with a letter first, and none of "
            f"{', '.join(_TAKEN)}. Received {name!r}."
        )
    return rest[0], name, given["data_dir"]


def help_text() -> str:
    """Returns how the command is called."""
    return "\n".join(
        [
            f"  tf-lottery {COMMAND} SOURCE --name=NAME --data_dir=DIR",
            "",
            f"{_PURPOSE}.",
            "",
            "  SOURCE                    idx:DIR, a folder with the four IDX files of MNIST or its kin; or",
            "                            images:DIR, a folder with train/CLASS/*.png (or .jpg, .jpeg) and",
            "                            test/CLASS/*.png (or validation/, or val/), of any sizes",
            *commands.flag_lines(_OPTIONS),
        ]
    )


def store(source: str, name: str, data_dir: str | os.PathLike[str]) -> str:
    """Stores images by the writer of tensorflow_datasets: whole, or not at all.

    Args:
        source: `"idx:DIR"` or `"images:DIR"`, as the command's help has it.
        name: of the data set.
        data_dir: the folder that it is put into, as `data_dir/name`.

    Returns:
        What was stored, and how to use it.

    Raises:
        ValueError: there is such a data set already, or the source cannot be used.
        OSError: files are missing, or cannot be written.
    """
    root = _local(data_dir)
    if (root / name).exists():
        raise ValueError(
            f"There is {str(root / name)!r} already, and it is not overwritten: give another --name, or "
            "delete that folder."
        )
    kind, _, folder = source.partition(":")
    if kind not in _SOURCES or not folder:
        raise ValueError(f"A source is 'idx:DIR' or 'images:DIR', with the folder DIR. Received {source!r}.")
    found = _SOURCES[kind](_local(folder))
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{name}-", dir=root) as temporary:
        _write(found, source, name, temporary)
        os.rename(pathlib.Path(temporary) / name, root / name)
    return _report(found, name, root)


def _local(folder: str | os.PathLike[str]) -> pathlib.Path:
    found = paths.path(folder).expanduser()
    if isinstance(found, paths.RemotePath):
        raise ValueError(
            f"import-data reads and writes local folders: copy {str(found)!r} from there before, or what it "
            "has stored to there afterwards, where --config.data.data_dir reads it."
        )
    return found


def _idx(folder: pathlib.Path) -> Folder:
    splits = idx.read_folder(folder)
    classes = [str(label) for label in range(int(splits["train"][1].max()) + 1)]
    if (highest := splits["test"][1].max()) >= len(classes):
        raise ValueError(
            f"The training labels in {str(folder)!r} range to {len(classes) - 1}, and the test labels to "
            f"{highest}; take both from the same data set."
        )
    images = {split: images[..., None] for split, (images, _) in splits.items()}
    return Folder(
        {split: (images[split], labels.tolist()) for split, (_, labels) in splits.items()},
        classes,
        images["train"].shape[1:],
    )


_SOURCES = {"idx": _idx, "images": image_folders.find}


def _write(found: Folder, source: str, name: str, folder: str) -> None:
    import tensorflow_datasets as tfds

    class Stored(tfds.dataset_builders.AdhocBuilder, skip_registration=True):
        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(
                builder=self,
                description=self._description,
                features=self._feature_spec,
                supervised_keys=("image", "label"),
            )

    features = {
        "image": tfds.features.Image(shape=found.shape),
        "label": tfds.features.ClassLabel(names=found.classes),
    }
    builder = Stored(
        name=name,
        version=_VERSION,
        features=tfds.features.FeaturesDict(features),
        split_datasets={split: _examples(split, *part) for split, part in found.splits.items()},
        data_dir=folder,
        description=f"Stored from {source} by tf-lottery import-data.",
    )
    tfds.disable_progress_bar()  # that shows long paths, and the way through temporary files
    with contextlib.redirect_stdout(io.StringIO()):  # where it says that it downloads
        # For a name that it knows, it would ask the network.
        offline = tfds.download.DownloadConfig(try_download_gcs=False)
        builder.download_and_prepare(download_config=offline)


def _examples(split: str, images: Sequence[Any], labels: Sequence[int]) -> Iterator[tuple[int, dict]]:
    """Yields what tensorflow_datasets stores, with a number that it draws the order from."""
    with tqdm.tqdm(total=len(labels), desc=split, unit=" images", disable=None) as bar:
        for number, (image, label) in enumerate(zip(images, labels)):
            yield number, {"image": image, "label": label}
            bar.update()
        bar.set_postfix_str("shuffling and writing them")


def _report(found: Folder, name: str, root: pathlib.Path) -> str:
    counts = " and ".join(f"{len(labels):,} {split}" for split, (_, labels) in found.splits.items())
    height, width, channels = found.shape
    size = f"of {height} x {width} pixels" if height else "of many sizes"
    words = f"--config.data.name={name} --config.data.data_dir={root}"
    return (
        f"Stored {counts} images {size}, in {'color' if channels > 1 else 'gray'}, of {len(found.classes)} "
        f"classes in {root / name}. To use them:\n\n"
        f"  tf-lottery run {words}{'' if height else ' --config.data.image_size=224'}"
    )
