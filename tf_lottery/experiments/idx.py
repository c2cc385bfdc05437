"""Reads the IDX files of the MNIST family: http://yann.lecun.com/exdb/mnist describes the format."""

import gzip
import math
import os
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

_UNSIGNED_BYTE = 0x08
_CHUNK_BYTES = 1 << 20
_MOST_BYTES = 4 << 30  # eight times EMNIST
_GZIP_RATIO = 1032  # gzip makes nothing smaller than that
_SPLITS = {"train": "train", "test": "t10k"}


def read_folder(folder: str | os.PathLike) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Reads the four files of a data set, such as MNIST as it is distributed.

    The files are `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, `t10k-images-idx3-ubyte` and
    `t10k-labels-idx1-ubyte`, or with a dot before `idx`; each as it is or with `.gz` at the end.

    Args:
        folder: where they are; relative to the working directory, and `~` is the home directory.

    Returns:
        `{"train": (images, labels), "test": (images, labels)}`; images uint8 `(n, height, width)`,
        labels uint8 `(n,)`.

    Raises:
        FileNotFoundError: the folder, or a file in it, is missing.
        ValueError: a file is damaged or holds something else, or two files do not belong together.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {str(folder)!r}; give one with the four IDX files.")
    paths = _find_files(folder)
    splits = {}
    for split in _SPLITS:
        images, labels = read(paths[split, "images"], rank=3), read(paths[split, "labels"], rank=1)
        if len(images) != len(labels):
            raise ValueError(
                f"{paths[split, 'images']} holds {len(images)} images, but {paths[split, 'labels']} holds "
                f"{len(labels)} labels; take both from the same data set."
            )
        splits[split] = images, labels
    shapes = {split: images.shape[1:] for split, (images, _) in splits.items()}
    if shapes["train"] != shapes["test"]:
        raise ValueError(
            f"The training images in {str(folder)!r} have shape {shapes['train']}, but the test images "
            f"{shapes['test']}; take both from the same data set."
        )
    return splits


def read(path: str | os.PathLike, rank: int) -> np.ndarray:
    """Reads one IDX file of unsigned bytes, gzipped or not (its first bytes tell, not its name).

    No more is read than the header promises, and a header that promises more than the file can hold, or
    than 4 GiB, is refused at once.

    Args:
        path: the file.
        rank: how many dimensions it must have.

    Returns:
        uint8 array of `rank` dimensions.

    Raises:
        ValueError: the file is not such a file, or is cut short, too long, empty or damaged.
    """
    with open(path, "rb") as file:
        gzipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        try:
            there = os.fstat(file.fileno()).st_size * (_GZIP_RATIO if gzipped else 1)
            return _parse(gzip.GzipFile(fileobj=file) if gzipped else file, path, rank, there)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is a damaged gzip file ({error}); download it again.") from error


def _find_files(folder: Path) -> dict[tuple[str, str], Path]:
    """Returns the path for each (split, "images" or "labels"); an unpacked file goes before a gzipped one."""
    found, missing = {}, []
    for split, prefix in _SPLITS.items():
        for what, suffix in (("images", "idx3-ubyte"), ("labels", "idx1-ubyte")):
            stems = [f"{prefix}-{what}{separator}{suffix}" for separator in "-."]
            candidates = [folder / (stem + end) for end in ("", ".gz") for stem in stems]
            existing = [path for path in candidates if path.is_file()]
            if existing:
                found[split, what] = existing[0]
            else:
                missing.append(stems[0])
    if missing:
        raise FileNotFoundError(
            f"{str(folder)!r} lacks {', '.join(missing)}; put each there, as it is or with '.gz' at the end."
        )
    return found


def _parse(file: BinaryIO, path: str | os.PathLike, rank: int, there: int) -> np.ndarray:
    header = _read_at_most(file, 4 + 4 * rank)
    if len(header) < 4:
        raise ValueError(f"{path} is cut short: it has only {len(header)} bytes; get it again.")
    zeros, dtype, found_rank = struct.unpack(">HBB", header[:4])
    if zeros != 0:
        raise ValueError(f"{path} is not an IDX file: it starts with {header[:4].hex()}, not with 0000.")
    if dtype != _UNSIGNED_BYTE:
        raise ValueError(f"{path} holds values of type 0x{dtype:02x}; it must be 0x08, unsigned bytes.")
    if found_rank != rank:
        raise ValueError(
            f"{path} holds an array of {found_rank} dimensions, but must hold one of {rank}; are images and "
            "labels swapped?"
        )
    if len(header) < 4 + 4 * rank:
        raise ValueError(f"{path} is cut short within its header; get it again.")
    shape = struct.unpack(f">{rank}I", header[4:])
    promised = math.prod(shape)
    if promised == 0:
        raise ValueError(f"{path} holds no examples: its header gives the shape {shape}.")
    # One byte more than promised: it shows that a file is too long, and makes gzip verify its checksum.
    values = _read_at_most(file, promised + 1) if promised <= min(there, _MOST_BYTES) else b""
    if there >= promised > _MOST_BYTES:
        raise ValueError(f"{path} promises {promised:,} bytes of data, and {_MOST_BYTES:,} are the most.")
    if len(values) != promised:
        fault = "cut short: it has fewer" if len(values) < promised else "too long: it has more"
        raise ValueError(f"{path} is {fault} bytes of data than its header's {promised}; get it again.")
    return np.frombuffer(values, np.uint8).reshape(shape)


def _read_at_most(file: BinaryIO, size: int) -> bytes:
    """Reads in pieces, for `file.read(size)` takes `size` bytes of memory before it knows what there is."""
    pieces = []
    while size > 0 and (piece := file.read(min(size, _CHUNK_BYTES))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)
