"""Files that are whole or not there: written under another name, synced, renamed.

What is read again has a checksum in it, so that damage to a file that was finished is noticed.
"""

import contextlib
import csv
import hashlib
import io
import json
import math
import os
import pathlib
import re
import struct
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np
import safetensors
import safetensors.numpy

from tf_lottery import paths

Path = str | os.PathLike[str]
TEMPORARY = ".*.tf_lottery.tmp"  # what the temporary names match
_DESCRIPTION, _SHA = "tf_lottery", "sha256"
_DEPTH = 50  # of lists and dicts in each other, of which nothing here writes ten
# What NumPy writes before an array of bools or numbers. Its own reader would evaluate what stands here,
# and take the memory that it promises.
_ARRAY = re.compile(
    rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][biufc]\d{1,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,18}, ?)*(?:\d{1,18})?)\), \} *\n",
    re.DOTALL,
)
# The types of safetensors that are written here, and read.
_TYPES = {"BOOL": np.dtype(bool), "BF16": np.dtype(ml_dtypes.bfloat16), "C64": np.dtype(np.complex64)}
_TYPES |= {f"F{8 * n}": np.dtype(f"f{n}") for n in (2, 4, 8)}
_TYPES |= {f"{kind}{8 * n}": np.dtype(f"{kind.lower()}{n}") for kind in "IU" for n in (1, 2, 4, 8)}


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Opens a file that takes the place of `path` when the block ends without an error.

    A local file is on the disk then, and was there in part at no moment. On another filesystem the
    content is kept in memory until the block ends, written under the other name and renamed, which
    is as safe as the filesystem's own renaming: on an object store a copy, whole or not there.

    Raises:
        OSError: it cannot be written; `filename` is `path`.
    """
    path = paths.path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tf_lottery.tmp")
    with _naming(path):
        try:
            make_folder(path.parent)
            if isinstance(path, paths.RemotePath):
                content = io.BytesIO()
                yield content
                temporary.write_bytes(content.getvalue())
                temporary.replace(path)
            else:
                with open(temporary, "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                _sync_folder(path.parent)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: Path, entries: Mapping[str, Any]) -> None:
    """Writes a JSON file: the entries, and last their checksum.

    Raises:
        ValueError: `entries` hold NaN or infinity, which JSON has no words for.
    """
    text = json.dumps(entries, allow_nan=False)
    entries = {**json.loads(text), _SHA: _sha_of_json(json.loads(text))}
    write_text(path, json.dumps(entries, indent=2) + "\n")


def read_json(path: Path) -> dict[str, Any]:
    """Reads what `write_json` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or somebody changed it.
    """
    content = paths.path(path).read_bytes()
    try:
        entries = _parsed(content)
        if not isinstance(entries, dict) or _SHA not in entries:
            raise ValueError("it was not written by tf_lottery")
        _check(entries.pop(_SHA), _sha_of_json(entries))
        return entries
    except ValueError as error:
        raise _unreadable(path, error) from error


def write_csv(path: Path, columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes a CSV file: a header, then a line for each row, column -> value."""
    write_text(path, csv_text(columns, rows))


def csv_text(columns: Iterable[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """Returns what `write_csv` writes."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(columns), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def append_csv(path: Path, columns: Iterable[str], row: Iterable[Any]) -> None:
    """Adds a row to a CSV file; begins it with the columns where there is none.

    An object store's files cannot grow: there it is written anew, and of two processes that do so
    at once one row is lost.
    """
    path = paths.path(path)
    before = path.read_bytes().decode() if path.exists() else ""
    text = io.StringIO()
    text.write("\n" * (not before.endswith("\n") and bool(before)))  # a row was not written whole
    csv.writer(text, lineterminator="\n").writerows([row] if before else [columns, row])
    if isinstance(path, paths.RemotePath):
        write_text(path, before + text.getvalue())
    else:
        with _naming(path), open(path, "a", newline="") as file:
            file.write(text.getvalue())


def write_tensors(path: Path, tensors: Mapping[str, np.ndarray], description: Any) -> None:
    """Writes a safetensors file; the same tensors and description give the same bytes.

    Args:
        path: the file.
        tensors: name -> array.
        description: what JSON can hold. It is one entry of the file's metadata, for
            safetensors writes several in no fixed order.

    Raises:
        ValueError: an array is of a type that could not be read again, such as objects.
    """
    tensors = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    for name, array in tensors.items():
        if array.dtype.newbyteorder("=") not in _TYPES.values():
            raise ValueError(
                f"Cannot write {name!r}, of type {array.dtype.name}. Expected bool, integers, bfloat16, "
                "float16 to float64, or complex64: convert it with array.astype(...)."
            )
    described = json.loads(json.dumps(description))
    metadata = {"description": described, _SHA: sha_of_tensors(tensors, described)}
    with replacing(path) as file:
        file.write(safetensors.numpy.save(tensors, {_DESCRIPTION: json.dumps(metadata)}))


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], Any]:
    """Reads what `write_tensors` wrote: the tensors by name, and the description.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or was not written here.
    """
    if not paths.path(path).is_file():
        raise FileNotFoundError(f"There is no file {os.fspath(path)!r}.")
    content = paths.path(path).read_bytes()
    try:
        # They come in any order.
        tensors = {name: _tensor(**parts) for name, parts in sorted(safetensors.deserialize(content))}
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        written = _parsed((header.get("__metadata__") or {}).get(_DESCRIPTION, "null"))
        if not isinstance(written, dict) or written.keys() != {"description", _SHA}:
            raise ValueError("it was not written by tf_lottery")
        _check(written[_SHA], sha_of_tensors(tensors, written["description"]))
        return tensors, written["description"]
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise _unreadable(path, error) from error


def _tensor(dtype: str, shape: list[int], data: bytearray) -> np.ndarray:
    if dtype not in _TYPES:
        raise ValueError(f"it holds an array of type {dtype}, which is not written by tf_lottery")
    return np.frombuffer(data, _TYPES[dtype]).reshape(shape)


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes a NumPy npz file."""
    with replacing(path) as file:
        np.savez(file, **arrays)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Reads what `write_arrays` wrote: bools and numbers. Nothing is unpickled.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or not such a file.
    """
    content = paths.path(path).read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as file:
            members = file.infolist()
            stored = all(m.compress_type == zipfile.ZIP_STORED and not m.flag_bits & 1 for m in members)
            if not stored or sum(m.file_size for m in members) > len(content):
                raise ValueError("it holds other things than plain arrays")
            return {m.filename.removesuffix(".npy"): _array(file.read(m)) for m in members}
    # What zipfile raises of bytes that are no zip file; that it cannot decode one is a RuntimeError.
    except (ValueError, TypeError, zipfile.BadZipFile, EOFError, struct.error, RuntimeError) as error:
        raise _unreadable(path, error) from error


def _array(content: bytes) -> np.ndarray:
    header = _ARRAY.match(content)
    if header is None:
        raise ValueError("it holds other things than arrays of bools and numbers")
    values = np.frombuffer(content, header[1].decode(), offset=header.end())
    shape = tuple(map(int, header[3].replace(b",", b" ").split()))
    if math.prod(shape) != values.size:
        raise ValueError(f"an array of shape {shape} has only {values.size} values")
    return values.reshape(shape, order="F" if header[2] == b"True" else "C").copy()


def sha_of_tensors(tensors: Mapping[str, np.ndarray], description: Any) -> str:
    """Returns the SHA-256 of names, types, shapes and values, and of what JSON holds beside them."""
    sha = hashlib.sha256(_sha_of_json(description).encode())
    for name in sorted(tensors):
        array = np.asarray(tensors[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        sha.update(json.dumps([name, array.dtype.name, array.shape]).encode())
        sha.update(array.tobytes())
    return sha.hexdigest()


def _parsed(text: str | bytes) -> Any:
    """Returns what JSON has, if it is not nested so deep that whoever looks at it would stumble."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    level = [value]
    for _ in range(_DEPTH):
        inner = [list(part.values()) if isinstance(part, dict) else part for part in level]
        level = [part for parts in inner if isinstance(parts, list) for part in parts]
    if level:
        raise ValueError("it is nested too deep")
    return value


def _sha_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _check(written: Any, found: str) -> None:
    if written != found:
        raise ValueError("it is damaged, or somebody changed it: its checksum is not that of its content")


def _unreadable(path: Path, error: Exception) -> ValueError:
    return ValueError(f"Cannot read {os.fspath(path)!r}: {str(error).rstrip('.')}.")


def make_folder(folder: Path) -> None:
    """Makes a folder, and those that it lies in, unless it is there; local ones are on the disk then."""
    folder = paths.path(folder)
    local = not isinstance(folder, paths.RemotePath)
    made = [part for part in (folder, *folder.parents) if not part.exists()] if local else []
    with _naming(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for part in made:
            _sync_folder(part.parent)


@contextlib.contextmanager
def _naming(path: paths.Path) -> Iterator[None]:
    """Makes an error of the system tell the file that was asked for; it may tell none, or a temporary one."""
    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename, error.filename2 = os.fspath(path), None
        raise


def _sync_folder(folder: pathlib.Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
