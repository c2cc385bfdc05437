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
        peak_mib: the most memory that its process has had until the end of its last turn, in MiB.
    """

    build_seconds: float
    first_seconds: float
    peak_mib: float
    _steps: int
    _connection: Connection

    def turn(self) -> float:
        """Takes a turn; returns milliseconds per step.

        Raises:
            Failed: it cannot, or its process died.
        """
        with contextlib.suppress(ConnectionError):  # one that died may have said why
            self._connection.send(self._steps)
        seconds, self.peak_mib = _received(self._connection)
        return seconds / self._steps * 1e3


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
            except Failed as error:
                out[name] = str(error)
        yield ready, out
    finally:
        for process in processes:
            process.kill()
            process.join()


class Failed(Exception):
    """Why a contender takes no part, or no longer."""


def _received(connection: Connection) -> Any:
    try:
        kind, value = connection.recv()
    except (EOFError, ConnectionError):
        raise Failed("its process died") from None
    if kind == "failed":
        raise Failed(value)
    return value


def _serve(connection: Connection, name: str, work: str, steps: int) -> None:
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what libraries say of themselves
    try:
        began = time.perf_counter()
        run = contenders.CONTENDERS[name](work)
        built = time.perf_counter()
        run(steps)
        connection.send(("ready", (built - began, time.perf_counter() - built, _peak_mib())))
        while True:
            connection.send(("turn", (run(connection.recv()), _peak_mib())))
    except EOFError:
        pass
    except Exception as error:  # of any library: it is told why, and the others go on
        connection.send(("failed", f"{type(error).__name__}: {error}".splitlines()[0]))


def _peak_mib() -> float:
    with open("/proc/self/status") as status:
        return int(re.search(r"VmHWM:\s+(\d+)", status.read())[1]) / 1024
