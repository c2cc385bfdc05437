"""Finds the images of a folder with `SPLIT/CLASS/IMAGE`, and what they have in common."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import tqdm

_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_SUFFIXES = (".png", ".jpg", ".jpeg")
_GRAY = ("1", "L", "LA", "I", "I;16")  # modes of PIL


class Folder(NamedTuple):
    """What there is in a folder.

    Attributes:
        splits: split -> paths of its images, and their labels: the numbers of their classes.
        classes: the names of the classes, sorted.
        shape: height, width and channels of an image; None where they vary. Gray is one channel.
    """

    splits: dict[str, tuple[list[pathlib.Path], list[int]]]
    classes: list[str]
    shape: tuple[int | None, int | None, int]


def find(folder: pathlib.Path) -> Folder:
    """Finds PNG and JPEG files, and reads the head of each. Files of other kinds are passed over.

    Args:
        folder: with folders `train` and `test` (or `validation`, or `val`), in each a folder for
            each class.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: it has another form, or a file is no image.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}; give one with train/CLASS/*.png.")
    there = [name for name in _SPLITS if (folder / name).is_dir()]
    if {"validation", "val"} <= set(there):
        raise ValueError(
            f"{str(folder)!r} has both 'validation' and 'val', which are one: remove one of them."
        )
    parts = {_SPLITS[name]: folder / name for name in there}
    if "train" not in parts or len(parts) < 2:
        found = _listed(path.name for path in _children(folder))
        raise ValueError(
            f"{str(folder)!r} must have a folder 'train' and one 'test' or 'validation', in each a folder "
            f"for each class, as in train/cat/1.png. It has {found}."
        )
    classes = [path.name for path in _children(parts["train"]) if path.is_dir()]
    splits = {split: _examples(path, classes) for split, path in parts.items()}
    return Folder(splits, classes, _shape([path for paths, _ in splits.values() for path in paths]))


def _examples(folder: pathlib.Path, classes: Sequence[str]) -> tuple[list[pathlib.Path], list[int]]:
    paths, labels = [], []
    for child in _children(folder):
        if not child.is_dir():
            continue
        if child.name not in classes:
            raise ValueError(
                f"{str(child)!r} is of a class that the training images have none of; remove it."
            )
        images = [path for path in _children(child) if path.suffix.lower() in _SUFFIXES]
        paths += images
        labels += [classes.index(child.name)] * len(images)
    if not paths:
        raise ValueError(
            f"There are no {', '.join(_SUFFIXES)} files in {str(folder)!r}. They lie in a folder for each "
            f"class, as in {folder.name}/cat/1.png."
        )
    return paths, labels


def _shape(paths: Sequence[pathlib.Path]) -> tuple[int | None, int | None, int]:
    import PIL.Image

    sizes, gray = set(), True
    for path in tqdm.tqdm(paths, "looking at images", unit="", disable=None, leave=False):
        try:
            with PIL.Image.open(path) as image:
                sizes.add(image.size)
                gray = gray and image.mode in _GRAY
        except PIL.UnidentifiedImageError as error:
            raise ValueError(f"{str(path)!r} is no image that can be read; remove it.") from error
    widths, heights = (set(side) for side in zip(*sizes))
    one_size = len(sizes) == 1
    return (heights.pop(), widths.pop(), 1 if gray else 3) if one_size else (None, None, 1 if gray else 3)


def _children(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def _listed(found: Iterator[str]) -> str:
    found = list(found)
    return ", ".join(found[:5]) + (", ..." if len(found) > 5 else "") or "nothing"
