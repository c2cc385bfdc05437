"""Locks on what several processes share, on all machines that see the folder; one that dies lets go."""

import contextlib
import json
import os
import pathlib
import random
import socket
import time
from collections.abc import Callable, Iterator

import filelock

from tf_lottery import paths
from tf_lottery.training.leases import Lease

LOCK = ".lock"

_CHANCE = random.SystemRandom()  # the random state of the user's program stays as it is
_PATIENCE = 300.0  # seconds: drawing a run's figures takes some


class InUse(OSError):
    """Another process has the lock.

    Attributes:
        holder: which, for people: `"process 123 on host"`.
    """

    def __init__(self, path: paths.Path, holder: str):
        super().__init__(f"{str(path)!r} is locked by another process ({holder}).")
        self.holder = holder


@contextlib.contextmanager
def held(path: str | os.PathLike[str], *, wait: float = 0) -> Iterator[Callable[[], bool]]:
    """Has a lock for the time of the block. It is not reentrant: a process waits for itself too.

    Args:
        path: the lock's own file, in a folder that there is; on another filesystem, a folder of claims.
        wait: seconds in which the other process may let go of it.

    Yields:
        What tells whether the lock is lost: on a filesystem without locks, to a process that was suspended.

    Raises:
        InUse: another process has it, and had it all the time.
    """
    path = paths.path(path)
    with _lease(path, wait) if isinstance(path, paths.RemotePath) else _file_lock(path, wait) as is_lost:
        yield is_lost


def holder(path: str | os.PathLike[str]) -> str | None:
    """Returns, for people, which process has a lock; None if none has it."""
    path = paths.path(path)
    if isinstance(path, paths.RemotePath):
        return Lease(path).holder()
    if not path.exists():
        return None
    try:
        with held(path):
            return None
    except InUse as error:
        return error.holder


def sign_of_life(path: str | os.PathLike[str]) -> float | None:
    """Returns when the process that has a lock last showed that it lives, in seconds since 1970; else None.

    Who has a file's lock lives now; on a filesystem without locks it says so again and again.
    """
    path = paths.path(path)
    if isinstance(path, paths.RemotePath):
        return Lease(path).sign_of_life()
    return None if holder(path) is None else time.time()


@contextlib.contextmanager
def _lease(path: paths.RemotePath, wait: float) -> Iterator[Callable[[], bool]]:
    lease, until = Lease(path), time.monotonic() + wait
    while holder := lease.take():
        if time.monotonic() >= until:
            raise InUse(path, holder)
        time.sleep(_CHANCE.uniform(0.5, 1))
    try:
        yield lease.is_lost
    finally:
        lease.release()


@contextlib.contextmanager
def _file_lock(path: pathlib.Path, wait: float) -> Iterator[Callable[[], bool]]:
    # Beside the lock, for to try for a lock may empty its file.
    note = path.with_name(f"{path.name}.json")
    try:
        acquired = filelock.FileLock(path).acquire(timeout=wait)
    except filelock.Timeout:
        raise InUse(path, _holder(note)) from None
    with acquired:
        try:
            with contextlib.suppress(OSError):  # a full disk: others will not know who has it
                note.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield lambda: False
        finally:
            with contextlib.suppress(OSError):
                note.unlink()


def alone(workdir: str | os.PathLike[str]) -> contextlib.AbstractContextManager[Callable[[], bool]]:
    """Has for a moment to itself what all processes of a run write in its folder, such as results.csv.

    Raises:
        InUse: another process has had it for minutes.
    """
    return held(paths.path(workdir) / LOCK, wait=_PATIENCE)


def _holder(note: pathlib.Path) -> str:
    try:
        held_by = json.loads(note.read_bytes())
        return f"process {held_by['pid']} on {held_by['host']}"
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return "it does not say which"
