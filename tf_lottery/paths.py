"""Paths of local files, and of files on every filesystem that TensorFlow reads: `gs://bucket/run`."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any

from tf_lottery import names

_PART = 2**20  # bytes
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")
# What a path on another filesystem begins with after pathlib has made one slash of its two.
_MANGLED = re.compile(r"(gs|s3|hdfs|ram|file):/")
_ERRNO = {
    "NotFoundError": errno.ENOENT,
    "AlreadyExistsError": errno.EEXIST,
    "PermissionDeniedError": errno.EACCES,
    "UnauthenticatedError": errno.EACCES,
    "ResourceExhaustedError": errno.ENOSPC,
}


@dataclasses.dataclass(frozen=True, order=True)
class RemotePath(os.PathLike[str]):
    """A path on a filesystem that TensorFlow reads, with what is used here of `pathlib.Path`.

    TensorFlow's errors come out as OSErrors that name the path. Folders are made with those above
    them. An object store has none: there a folder is what objects have in common.

    Attributes:
        scheme: such as `"gs"`.
        parts: what comes after `"gs://"`.
    """

    scheme: str
    parts: pathlib.PurePosixPath

    def __fspath__(self) -> str:
        return f"{self.scheme}://{self.parts}"

    __str__ = __fspath__

    def __truediv__(self, other: str) -> "RemotePath":
        return RemotePath(self.scheme, self.parts / other)

    @property
    def name(self) -> str:
        return self.parts.name

    @property
    def suffix(self) -> str:
        return self.parts.suffix

    @property
    def parent(self) -> "RemotePath":
        return RemotePath(self.scheme, self.parts.parent)

    def with_name(self, name: str) -> "RemotePath":
        return RemotePath(self.scheme, self.parts.with_name(name))

    def expanduser(self) -> "RemotePath":
        return self

    def absolute(self) -> "RemotePath":
        return self

    def exists(self) -> bool:
        return self._call("exists")

    def is_dir(self) -> bool:
        return self._call("isdir")

    def is_file(self) -> bool:
        return self.exists() and not self.is_dir()

    def mkdir(self, *, parents: bool, exist_ok: bool) -> None:
        """Makes the folder; both arguments are as if they were True."""
        # Not by makedirs, which never returns where there is no such bucket (TensorFlow 2.21).
        if not self.is_dir():
            if len(self.parts.parts) > 1:
                self.parent.mkdir(parents=parents, exist_ok=exist_ok)
            with contextlib.suppress(FileExistsError):  # made by another process since
                self._call("mkdir")

    def glob(self, pattern: str) -> Iterator["RemotePath"]:
        """Yields what matches, in order. `*` stands for a part of one name; there is no `**`."""
        # On an object store this is one listing, where a walk through folders takes one for each.
        folder = re.sub(r"([*?\[\]\\])", r"\\\1", str(self))
        with os_errors(self):
            found = _gfile().glob(f"{folder}/{pattern}")
        yield from map(_remote, sorted(found))

    def read_bytes(self) -> bytes:
        with os_errors(self), _gfile().GFile(str(self), "rb") as file:
            # In parts: all at once is as much as a cache says that there is, be it older than the file.
            return b"".join(iter(lambda: file.read(_PART), b""))

    def write_bytes(self, content: bytes) -> None:
        with os_errors(self), _gfile().GFile(str(self), "wb") as file:
            file.write(content)

    def replace(self, target: "RemotePath") -> None:
        self._call("rename", str(target), overwrite=True)

    def unlink(self, missing_ok: bool = False) -> None:
        with contextlib.suppress(*[FileNotFoundError] * missing_ok):
            self._call("remove")

    def _call(self, function: str, *arguments: Any, **named: Any) -> Any:
        with os_errors(self):
            return getattr(_gfile(), function)(str(self), *arguments, **named)


Path = pathlib.Path | RemotePath


def path(path: str | os.PathLike[str]) -> Path:
    """Returns a `pathlib.Path`; of what begins with `scheme://`, a `RemotePath`.

    Only the latter takes TensorFlow. `file://` is local.

    Raises:
        ValueError: TensorFlow does not know the filesystem, or nothing on it is named.

    Example:
        >>> path("runs/digits") / "results.csv"
        PosixPath('runs/digits/results.csv')
        >>> str(path("ram://digits") / "results.csv")
        'ram://digits/results.csv'
        >>> path("gss://bucket/digits")
        Traceback (most recent call last):
            ...
        ValueError: Unknown filesystem 'gss'. Did you mean 'gs'? There are: gs, ram. Received the path \
'gss://bucket/digits'. Expected a local one, or one such as 'gs://bucket/run'.
    """
    if isinstance(path, RemotePath):
        return path
    local = pathlib.Path(path)
    text = os.fspath(path)
    scheme, given, rest = text.partition("://")
    if not given or not _SCHEME.fullmatch(scheme):
        if isinstance(path, pathlib.PurePath) and _MANGLED.match(text):
            raise ValueError(
                f"pathlib has made one slash of two in {text!r}. Give the path as a string: "
                f"{text.replace(':/', '://', 1)!r}."
            )
        return local
    if scheme == "file":
        return pathlib.Path(rest)
    # Those of others, such as tensorflow-io, are known from the time when they are imported.
    schemes = sorted(set(_gfile().get_registered_schemes()) - {"", "file"})
    expected = f"Received the path {text!r}. Expected a local one, or one such as 'gs://bucket/run'."
    if scheme not in schemes:
        raise ValueError(f"{names.unknown(scheme, schemes, 'filesystem')} {expected}")
    if not rest.strip("/"):
        raise ValueError(f"Nothing on the filesystem {scheme!r} is named. {expected}")
    return _remote(text)


def relative(path: Path, to: Path | None = None) -> str:
    """Returns a path for people: from the current folder, or from `to`; whole, where it is a remote one."""
    if isinstance(path, RemotePath):
        return str(path) if to is None else os.path.relpath(path.parts, to.parts)
    return os.path.relpath(path) if to is None else os.path.relpath(path, to)


def common(paths: Iterable[str | os.PathLike[str]]) -> Path:
    """Returns the folder that all lie in; of a single one, itself.

    Raises:
        ValueError: they are on several filesystems, or in several buckets.
    """
    found = [path(each).expanduser() for each in paths]
    remote = [each for each in found if isinstance(each, RemotePath)]
    if not remote:
        return pathlib.Path(os.path.commonpath([each.absolute() for each in found]))
    if len(remote) == len(found) and len({(each.scheme, each.parts.parts[0]) for each in found}) == 1:
        return dataclasses.replace(
            found[0], parts=pathlib.PurePosixPath(os.path.commonpath([each.parts for each in found]))
        )
    raise ValueError(
        f"{', '.join(map(str, found))} have no folder in common, in which what is found of all could be "
        "written. Name folders of one filesystem, and of one bucket."
    )


def remove_tree(path: Path) -> None:
    """Removes a folder and all in it, as far as that can be."""
    if isinstance(path, RemotePath):
        with contextlib.suppress(OSError):
            path._call("rmtree")
    else:
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def os_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raises TensorFlow's errors in the block as OSErrors whose `filename` is `path`."""
    import tensorflow as tf

    try:
        yield
    except tf.errors.OpError as error:
        number = _ERRNO.get(type(error).__name__, errno.EIO)
        # The answer of a server has many lines.
        message = textwrap.shorten(error.message, 400) or os.strerror(number)
        raise OSError(number, message, os.fspath(path)) from error


def _remote(text: str) -> RemotePath:
    scheme, _, rest = text.partition("://")
    return RemotePath(scheme, pathlib.PurePosixPath(rest))


def _gfile() -> Any:
    import tensorflow as tf

    return tf.io.gfile
