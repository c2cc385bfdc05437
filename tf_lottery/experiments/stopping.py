"""How the command ends when it is told to stop: at once, or once what is half made is removed."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator

_STOPPED = "\ntf-lottery: stopped. What is done is kept, and the same command goes on from there.\n"


@contextlib.contextmanager
def at_once() -> Iterator[None]:
    """Ends the process at SIGINT or SIGTERM.

    A KeyboardInterrupt would wait until TensorFlow returns to Python, which may take minutes,
    and could be caught on its way. A run directory bears an end at any moment.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def watch() -> None:
        with open(reader, "rb", buffering=0) as received:
            while number := received.read(1):
                if number[0] in (signal.SIGINT, signal.SIGTERM):
                    os.write(2, _STOPPED.encode())
                    os._exit(128 + number[0])

    # A shell has commands in the background ignore Ctrl-C.
    heard = [s for s in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN]
    before = {s: signal.signal(s, lambda *_: None) for s in heard}
    wakeup_before = signal.set_wakeup_fd(writer)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(writer)


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
