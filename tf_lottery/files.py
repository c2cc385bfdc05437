"""Files that are whole or not there: written under another name, synced, renamed."""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np
import safetensors
import safetensors.numpy

Path = str | os.PathLike[str]
TEMPORARY = ".*.tmp"  # what the temporary names match
_DESCRIPTION = "tf_lottery"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends without an error."""
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], description: Any) -> None:
    """Writes a safetensors file; the same tensors and description give the same bytes.

    Args:
        path: the file.
        tensors: name -> array.
        description: what JSON can hold. It is one entry of the file's metadata, for
            safetensors writes several in no fixed order.
    """
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(tensors, {_DESCRIPTION: json.dumps(description)}))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Reads what `write_tensors` wrote: the tensors by name, and the description.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was not written here.
    """
    if not pathlib.Path(path).is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(path)!r}.")
    try:
        with safetensors.safe_open(os.fspath(path), framework="numpy") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}
            return tensors, json.loads((file.metadata() or {})[_DESCRIPTION])
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"Cannot read {os.fspath(path)!r}: {error}.") from error


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a NumPy npz file."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    with replacing(path) as file:
        file.write(buffer.getvalue())


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
