"""Starts real worker processes on this machine, as TF_CONFIG defines them."""

import contextlib
import json
import os
import socket
import subprocess
import sys


def free_ports(count):
    """Returns ports that nobody listens at."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(contextlib.closing(socket.socket())) for _ in range(count)]
        for one in found:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in found]


def start(count, *words, own=lambda index: ([], None), **env):
    """Starts `count` workers of one cluster, each with the same words; returns the processes.

    `own(index)` returns what each has beside: more words, and the folder that it is started in.
    """
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words), *own(index)[0]],
            cwd=own(index)[1],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "TF_CONFIG": config(addresses, index), **env},
        )
        for index in range(count)
    ]


def config(addresses, index):
    """Returns the TF_CONFIG of one worker."""
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


def finish(processes, seconds=240):
    """Waits for all of them; returns each one's exit status, output and errors."""
    ended = []
    try:
        for process in processes:
            output, errors = process.communicate(timeout=seconds)
            ended.append((process.returncode, output, errors))
        return ended
    finally:
        for process in processes:
            process.kill()
