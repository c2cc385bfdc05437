"""Waiting for the other workers of a training, before TensorFlow does, which nothing can interrupt."""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence

_PAUSE = 0.2


def wait_for(
    addresses: Sequence[str],
    own: str,
    seconds: float,
    waiting: Callable[[list[str]], None] = lambda missing: None,
) -> None:
    """Returns as soon as every worker can be reached.

    Args:
        addresses: `"host:port"` of all workers.
        own: that of this one. Its port is open meanwhile, for the others to see.
        seconds: how long to wait at most.
        waiting: is told once who is missing, after a few seconds.

    Raises:
        ConnectionError: the own port is in use, or a worker did not come in time.

    Example:
        >>> wait_for(["localhost:28731"], "localhost:28731", seconds=1)
    """
    began, told = time.monotonic(), False
    with contextlib.closing(_listening(own)):
        missing = [address for address in addresses if address != own]
        while missing := [address for address in missing if not _answers(address)]:
            waited = time.monotonic() - began
            if waited > seconds:
                raise ConnectionError(
                    f"No answer from the workers {', '.join(missing)} in {seconds:g} seconds. Start a "
                    "process for each address in TF_CONFIG, and see that they reach one another."
                )
            if waited > 5 and not told:
                told = True
                waiting(missing)
            time.sleep(_PAUSE)


def _listening(address: str) -> socket.socket:
    _, port = _parts(address)
    try:
        return socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise ConnectionError(
            f"The port of this worker, {address}, cannot be opened: {error.strerror}. Name another in "
            "TF_CONFIG, in every process."
        ) from error


def _answers(address: str) -> bool:
    try:
        socket.create_connection(_parts(address), timeout=2).close()
    except OSError:
        return False
    return True


def _parts(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
