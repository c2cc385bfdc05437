"""Locks between real processes."""

import os
import socket
import subprocess
import sys
import time

import pytest

from tf_lottery.training import locks

HOLDER = """
import sys, time
from tf_lottery.training import locks
with locks.held(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / ".lock"


@pytest.fixture
def holder(path):
    """Another process that has the lock."""
    words = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        yield process
        process.kill()


def test_who_has_a_lock_is_told(path, holder):
    with pytest.raises(locks.InUse) as caught, locks.held(path):
        pytest.fail("two have the lock")
    assert caught.value.holder == f"process {holder.pid} on {socket.gethostname()}"
    (path.parent / ".lock.json").write_text("[]")
    with pytest.raises(locks.InUse, match="it does not say which"), locks.held(path):
        pytest.fail("two have the lock")


def test_a_process_that_is_killed_lets_go(path, holder):
    holder.kill()
    holder.wait()
    with locks.held(path):
        assert str(os.getpid()) in (path.parent / ".lock.json").read_text()


def test_one_waits_for_the_other(path, holder):
    began = time.monotonic()
    with pytest.raises(locks.InUse), locks.held(path, wait=0.2):
        pytest.fail("two have the lock")
    assert time.monotonic() - began >= 0.2
    holder.stdin.close()
    with locks.held(path, wait=60):
        pass


def test_an_error_in_the_block_frees_the_lock(path):
    with pytest.raises(ZeroDivisionError), locks.held(path):
        raise ZeroDivisionError
    with locks.held(path), pytest.raises(locks.InUse), locks.held(path):
        pytest.fail("a process has the lock twice")
    assert not (path.parent / ".lock.json").exists()
