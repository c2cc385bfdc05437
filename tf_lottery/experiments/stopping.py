"""How the command ends when it is told to stop: once what is done is saved, or what is half made removed."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator

TERMINATED = 75  # exit status at SIGTERM, as a cluster sends it: what was stopped is to be tried again
_PATIENCE = 8.0  # seconds: clusters kill ten seconds after SIGTERM, or later
_SAVING = "\ntf-lottery: saving what is done. Ctrl-C stops it at once.\n"
_STOPPED = "\ntf-lottery: stopped. What is done is kept, and the same command goes on from there.\n"

_told: list[int] = []  # the signal that was heard, if any
_savers: list[Callable[[], None]] = []


@contextlib.contextmanager
def once_saved() -> Iterator[None]:
    """Ends the process at SIGINT or SIGTERM: at once, or where something is `saving`, once that has.

    A KeyboardInterrupt would wait until TensorFlow returns to Python, which may take minutes,
    and could be caught on its way. A run directory bears an end at any moment.

    Raises:
        SystemExit: what was to be saved is, and the block raised KeyboardInterrupt.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    timers = threading.Timer(1.0, _say, [_SAVING]), threading.Timer(_PATIENCE, _end)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as received:
            while number := received.read(1):
                if number[0] not in (signal.SIGINT, signal.SIGTERM):
                    continue
                again = bool(_told)
                _told.append(number[0])
                # SIGTERM may come twice: to a group of processes, and from the one that started this one.
                if not _savers or again and number[0] == signal.SIGINT:
                    _end()
                if again:
                    continue
                for timer in timers:
                    timer.start()
                for tell in list(_savers):
                    tell()

    # A shell has commands in the background ignore Ctrl-C.
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    wakeup_before = signal.set_wakeup_fd(writer)
    before = {s: signal.signal(s, lambda *_: None) for s in heard}
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    except KeyboardInterrupt:
        _say(_STOPPED)
        sys.exit(_status())
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)
        for timer in timers:
            timer.cancel()
        watching.join()
        _told.clear()


def told() -> bool:
    """Whether the process was told to stop."""
    return bool(_told)


@contextlib.contextmanager
def saving(tell: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Has a block go on when the process is told to stop, for some seconds in which to save what it does.

    It is to look whether that was `told`, and to end then with KeyboardInterrupt.

    Args:
        tell: is called then too, in another thread.
    """
    _savers.append(tell)
    try:
        yield
    finally:
        _savers.remove(tell)


def _end() -> None:
    _say(_STOPPED)
    os._exit(_status())


def _say(text: str) -> None:
    os.write(2, text.encode())


def _status() -> int:
    return TERMINATED if _told[0] == signal.SIGTERM else 128 + _told[0]


@contextlib.contextmanager
def once_tidied_up() -> Iterator[None]:
    """Ends the process at SIGINT or SIGTERM, once what is half made is removed."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        sys.exit("\ntf-lottery: stopped. Nothing is stored.")
    finally:
        signal.signal(signal.SIGTERM, before)
