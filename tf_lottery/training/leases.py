"""Leases: locks on filesystems that have none. A holder says again and again that it is alive."""

import contextlib
import dataclasses
import os
import random
import socket
import threading
import time
import urllib.parse
import uuid

from tf_lottery import paths

_CHANCE = random.SystemRandom()  # the random state of the user's program stays as it is
_RENEWED = 20.0  # seconds from one sign of life to the next
_LIFE = 120.0  # seconds without one after which a holder is taken for dead
_TRIES = 5  # of processes that come at the same moment
_ASKS, _HOLDS = "asks", "holds"


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a process says of itself: the name of an empty file.

    A name is never half-written, nor out of date in a cache, as what is in a file can be.

    Attributes:
        state: `"asks"` or `"holds"`.
        said: when, in seconds since 1970.
        pid: of the process.
        processes: which processes there are to it, where that can be told: containers on one host may
            share its name, and not those.
        host: its name.
        lease: what tells apart several of one process.
    """

    state: str
    said: float
    pid: int
    processes: str
    host: str
    lease: str

    @classmethod
    def here(cls, state: str, lease: str) -> "Claim":
        """Returns what this process says now."""
        try:
            processes = str(os.stat("/proc/self/ns/pid").st_ino)
        except OSError:
            processes = ""
        return cls(state, round(time.time(), 3), os.getpid(), processes, socket.gethostname(), lease)

    @classmethod
    def read(cls, name: str) -> "Claim":
        """Returns what a name says.

        Raises:
            ValueError: it is not that of a claim.
        """
        fields = (urllib.parse.unquote(part) for part in name.split("&"))
        kinds = {field.name: field.type for field in dataclasses.fields(cls)}
        claim = cls(*(kind(part) for kind, part in zip(kinds.values(), fields, strict=True)))
        if not 0 < claim.pid < 2**31:
            raise ValueError(f"There is no process {claim.pid}.")
        return claim

    def name(self) -> str:
        return "&".join(urllib.parse.quote(str(part), safe="") for part in dataclasses.astuple(self))

    def is_alive(self) -> bool:
        here = Claim.here(_ASKS, "")
        if (self.host, self.processes) == (here.host, here.processes):
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                return False
            except PermissionError:  # of another user
                pass
        return here.said - self.said < _LIFE

    def __str__(self) -> str:
        ago, dead = time.time() - self.said, f"taken for dead after {_LIFE:.0f} s"
        return f"process {self.pid} on {self.host}, alive {ago:.0f} s ago; {dead}"


class Lease:
    """A claim on what several processes share, beside those of others, renewed by a thread.

    Everybody makes a claim first and looks then who else has one; whoever sees another withdraws. So
    two never have the lease at once where a folder lists what was written before, as object stores do.
    A claim of a process that has ended on this machine counts for nothing, nor does one of another machine
    that was not renewed for two minutes: their clocks must agree to a minute. A process that was suspended
    for longer finds its claim gone, and renews it no more.

    Args:
        folder: of the claims; made where there is none.
    """

    def __init__(self, folder: paths.RemotePath):
        self._folder = folder
        self._name = uuid.uuid4().hex
        self._file: paths.RemotePath | None = None
        self._said = 0.0
        self._gone = False
        self._released = threading.Event()
        self._renewing = threading.Thread(target=self._renew, daemon=True)

    def take(self) -> str | None:
        """Takes the lease; or returns, for people, who has it."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(_TRIES):
            others = self._others()
            if not _is_held(others):
                self._say(_ASKS)
                others = self._others()
                if not others:
                    self._say(_HOLDS)
                    self._renewing.start()
                    return None
                self._file.unlink(missing_ok=True)
            if _is_held(others):
                break
            time.sleep(_CHANCE.uniform(0, 1))  # one of those that came together is the first next time
        return _told(others)

    def holder(self) -> str | None:
        """Returns, for people, who has the lease or is about to take it; None if nobody."""
        others = self._others()
        return _told(others) if others else None

    def is_lost(self) -> bool:
        """Whether others may take this lease, once taken, for that of a dead process."""
        return self._gone or time.time() - self._said >= _LIFE

    def sign_of_life(self) -> float | None:
        """Returns when who has the lease last said that it lives; None if nobody has it."""
        return max((claim.said for claim in self._others()), default=None)

    def release(self) -> None:
        self._released.set()
        self._renewing.join()
        with contextlib.suppress(OSError):
            self._file.unlink()

    def _say(self, state: str) -> None:
        claim = Claim.here(state, self._name)
        file = self._folder / claim.name()
        file.write_bytes(b"")
        before, self._file, self._said = self._file, file, claim.said
        if before:
            before.unlink(missing_ok=True)

    def _others(self) -> list[Claim]:
        """Returns the claims of others that are alive; removes those that are not."""
        found = []
        for file in self._folder.glob("*&*"):
            try:
                claim = Claim.read(file.name)
            except ValueError:  # nothing that a lease wrote
                continue
            if claim.lease == self._name:
                continue
            if claim.is_alive():
                found.append(claim)
            else:
                file.unlink(missing_ok=True)
        return found

    def _renew(self) -> None:
        while not self._released.wait(_RENEWED):
            with contextlib.suppress(OSError):  # a network that is away may come back
                if not self._file.exists():
                    self._gone = True
                    return
                self._say(_HOLDS)
                if _is_held(self._others()):  # another took it over meanwhile
                    self._gone = True
                    self._file.unlink(missing_ok=True)
                    return


def _is_held(claims: list[Claim]) -> bool:
    return any(claim.state == _HOLDS for claim in claims)


def _told(claims: list[Claim]) -> str:
    return str(max(claims, key=lambda claim: claim.state))
