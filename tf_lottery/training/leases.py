"""Leases: locks on filesystems that have none. A holder says again and again that it is alive."""

import contextlib
import os
import random
import socket
import threading
import time
import uuid

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
            others = self._others()
            if not _is_held(others):
                self._write(holds=False)
                others = self._others()
                if not others:
                    self._write(holds=True)
                    self._renewing.start()
                    return None
                self._claim.unlink(missing_ok=True)
            if _is_held(others):
                break
            time.sleep(random.uniform(0, 1))  # one of those that came together is the first next time
        return _told(others)

    def holder(self) -> str | None:
        """Returns, for people, who has the lease or is about to take it; None if nobody."""
        others = self._others()
        return _told(others) if others else None

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

    def _others(self) -> list[dict]:
        """Returns the claims of others that are alive; removes those of others that are not."""
        found = []
        for path in self._folder.glob("*.json"):
            if path == self._claim:
                continue
            with contextlib.suppress(FileNotFoundError):  # withdrawn since
                claim = files.read_json(path)
                if _is_alive(claim):
                    found.append(claim)
                else:
                    path.unlink()
        return found

    def _renew(self) -> None:
        while not self._released.wait(_RENEWED):
            with contextlib.suppress(OSError):  # a network that is away may come back
                if not self._claim.exists():
                    return
                self._write(holds=True)


def _is_held(claims: list[dict]) -> bool:
    return any(claim["holds"] for claim in claims)


def _told(claims: list[dict]) -> str:
    claim = max(claims, key=lambda claim: claim["holds"])
    ago, dead = time.time() - claim["time"], f"taken for dead after {_LIFE:.0f} s"
    return f"process {claim['pid']} on {claim['host']}, alive {ago:.0f} s ago; {dead}"


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
