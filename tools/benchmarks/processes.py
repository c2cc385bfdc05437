"""Contenders in processes of their own, that wait while another one is at work."""

import contextlib
import dataclasses
import multiprocessing
import os
import re
import time
from collections.abc import Iterator, Sequence
from multiprocessing.connection import Connection
from typing import Any

from benchmarks import contenders


@dataclasses.dataclass
class Contender:
    """A contender that is ready.

    Attributes:
        build_seconds: until its model was made and its data were in memory, imports included.
        first_seconds: of its first turn, tracing and compiling included.
    """

    build_seconds: float
    first_seconds: float
    _steps: int
    _connection: Connection

    def turn(self) -> float:
        """Takes a turn; returns milliseconds per step."""
        return _asked(self._connection, "turn") / self._steps * 1e3

    def peak_mib(self) -> float:
        """Returns the most memory that its process has had, in MiB."""
        return _asked(self._connection, "memory")


@contextlib.contextmanager
def started(
    names: Sequence[str], work: str, steps: int
) -> Iterator[tuple[dict[str, Contender], dict[str, str]]]:
    """Starts contenders one after another; yields those that take part, and why others do not."""
    context, ready, out, processes = multiprocessing.get_context("spawn"), {}, {}, []
    try:
        for name in names:
            connection, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, name, work, steps), daemon=True)
            process.start()
            theirs.close()
            processes.append(process)
            try:
                ready[name] = Contender(*_received(connection), steps, connection)
            except _Failed as error:
                out[name] = str(error)
        yield ready, out
    finally:
        for process in processes:
            process.kill()
            process.join()


class _Failed(Exception):
    """What a contender says that it cannot do."""


def _asked(connection: Connection, word: str) -> Any:
    connection.send(word)
    return _received(connection)


def _received(connection: Connection) -> Any:
    try:
        kind, value = connection.recv()
    except EOFError:
        raise _Failed("its process died") from None
    if kind == "failed":
        raise _Failed(value)
    return value


def _serve(connection: Connection, name: str, work: str, steps: int) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say of themselves
    try:
        began = time.perf_counter()
        run = contenders.CONTENDERS[name](work)
        built = time.perf_counter()
        run(steps)
        connection.send(("ready", (built - began, time.perf_counter() - built)))
        while word := connection.recv():
            connection.send((word, run(steps) if word == "turn" else _peak_mib()))
    except EOFError:
        pass
    except Exception as error:  # of any library: it is told why, and the others go on
        connection.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))


def _peak_mib() -> float:
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024
