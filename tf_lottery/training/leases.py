"""Leases: locks on filesystems that have none. A holder says again and again that it is alive."""

import contextlib
import json
import os
import random
import socket
import threading
import time
import uuid
from collections.abc import Iterator

from tf_lottery import files, paths

_RENEWED = 20.0  # seconds from one sign of life to the next
_LIFE = 120.0  # seconds without one after which a holder is taken for dead
_TRIES = 5  # of processes that come at the same moment


class Lease:
    """A claim on what several processes share: a file among those of others, renewed by a thread.

    Everybody writes a claim first and looks then who else has one; whoever sees another withdraws. So
    two never have the lease at once where a folder lists what was written before, as object stores do.
    A claim of a process that has ended on this machine counts for nothing, and one of another machine
    that was not renewed for two minutes: their clocks must agree to a minute. A process that was suspended
    for longer finds its claim gone, and renews it no more.

    Args:
        folder: of the claims; made where there is none.
    """

    def __init__(self, folder: paths.RemotePath):
        self._folder = folder
        self._claim = folder / f"{uuid.uuid4().hex}.json"
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> str | None:
        """Takes the lease; or returns, for people, who has it."""
        for _ in range(_TRIES):
            self._write(holds=False)
            others = list(self._others())
            if not others:
                self._write(holds=True)
                self._renewing.start()
                return None
            self._claim.unlink(missing_ok=True)
            if any(other["holds"] for other in others):
                break
            time.sleep(random.uniform(0, 1))  # one of those that came together is the first next time
        other = max(others, key=lambda other: other["holds"])
        return (
            f"process {other['pid']} on {other['host']}, heard of {time.time() - other['time']:.0f} seconds "
            f"ago; after {_LIFE:.0f} it is taken for dead"
        )

    def release(self) -> None:
        self._released.set()
        self._renewing.join()
        with contextlib.suppress(OSError):
            self._claim.unlink()

    def _write(self, holds: bool) -> None:
        claim = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "processes": _processes(),
            "time": time.time(),
            "holds": holds,
        }
        files.write_json(self._claim, claim)

    def _others(self) -> Iterator[dict]:
        for path in self._folder.glob("*.json"):
            with contextlib.suppress(FileNotFoundError):  # withdrawn since
                if path != self._claim:
                    claim = json.loads(path.read_bytes())
                    if _is_alive(claim):
                        yield claim
                    else:
                        path.unlink()

    def _renew(self) -> None:
        while not self._released.wait(_RENEWED):
            with contextlib.suppress(OSError):  # a network that is away may come back
                if not self._claim.exists():
                    return
                self._write(holds=True)


def _is_alive(claim: dict) -> bool:
    if (claim["host"], claim["processes"]) == (socket.gethostname(), _processes()):
        try:
            os.kill(claim["pid"], 0)
        except ProcessLookupError:
            return False
        except PermissionError:  # of another user
            pass
    return time.time() - claim["time"] < _LIFE


def _processes() -> str:
    """Returns which processes this one sees: containers on one host may share its name, and not those."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
