"""Leases, between threads and between lives of a process."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from tf_lottery import files, paths
from tf_lottery.training import leases, locks

ME = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture
def lock(tmp_path):
    return paths.path(f"ram:/{tmp_path}/.lock")


def claims(lock):
    return list(lock.glob("*.json"))


def leave(lock, **changes):
    """Leaves the claim of a process that holds the lease, with changes."""
    with locks.held(lock):
        claim = files.read_json(claims(lock)[0])
    files.write_json(lock / "other.json", {**claim, **changes})


def ended():
    """The id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_only_one_holds_it_and_it_is_told_who(lock):
    with locks.held(lock):
        with pytest.raises(locks.InUse) as caught, locks.held(lock):
            pytest.fail("two hold it")
        assert caught.value.holder.startswith(f"{ME}, alive 0 s ago; taken for dead after 120 s")
        assert locks.holder(lock) == caught.value.holder
        assert len(claims(lock)) == 1
    assert claims(lock) == []
    assert locks.holder(lock) is None
    with locks.held(lock):
        pass


def test_it_is_let_go_of_after_an_error(lock):
    with pytest.raises(ZeroDivisionError), locks.held(lock):
        raise ZeroDivisionError
    assert claims(lock) == []


def test_one_waits_for_the_other(lock):
    with locks.held(lock):
        with pytest.raises(locks.InUse), locks.held(lock, wait=0.2):
            pytest.fail("two hold it")
        threading.Timer(0.5, lambda: [claim.unlink() for claim in claims(lock)]).start()
        with locks.held(lock, wait=60):
            pass


def test_of_many_that_come_at_once_one_at_a_time_holds_it(lock):
    inside, most, entered = [], [], []

    def enter():
        with locks.held(lock, wait=60):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
        entered.append(1)

    threads = [threading.Thread(target=enter) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(entered) == 6 and max(most) == 1
    assert claims(lock) == []


@pytest.mark.parametrize(
    ("changes", "is_alive"),
    [
        ({}, True),
        ({"host": "elsewhere"}, True),
        ({"processes": "pid:[1]", "pid": 0}, True),  # of another container
        ({"pid": 1}, True),  # of another user, perhaps
        ({"pid": None}, False),
        ({"pid": None, "host": "elsewhere"}, True),
        ({"host": "elsewhere", "time": -119}, True),
        ({"host": "elsewhere", "time": -121}, False),
        ({"time": -121}, False),
        ({"host": "elsewhere", "holds": False}, True),
    ],
    ids=str,
)
def test_whom_a_claim_holds_off(lock, monkeypatch, changes, is_alive):
    monkeypatch.setattr(leases.random, "uniform", lambda low, high: 0)
    if "pid" in changes:
        changes = {**changes, "pid": changes["pid"] or ended()}
    if "time" in changes:
        changes = {**changes, "time": time.time() + changes["time"]}
    leave(lock, **changes)
    if is_alive:
        with pytest.raises(locks.InUse, match=changes.get("host", socket.gethostname())), locks.held(lock):
            pytest.fail("two hold it")
        assert [claim.name for claim in claims(lock)] == ["other.json"]
    else:
        with locks.held(lock):
            assert "other.json" not in [claim.name for claim in claims(lock)]


def test_a_holder_shows_that_it_is_alive(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    with locks.held(lock):
        (claim,) = claims(lock)
        before, until = files.read_json(claim), time.monotonic() + 60
        while files.read_json(claim) == before and time.monotonic() < until:
            time.sleep(0.01)
        after = files.read_json(claim)
        assert after["time"] > before["time"] and after["holds"]
        assert {**after, "time": 0} == {**before, "time": 0}


def test_a_holder_that_was_taken_for_dead_does_not_come_back(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    with locks.held(lock):
        claims(lock)[0].unlink()
        with locks.held(lock):
            time.sleep(0.3)
            assert len(claims(lock)) == 1


def test_a_network_that_is_away_for_a_moment(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    tried, write = threading.Event(), leases.Lease._write

    def fail_once(lease, holds):
        if not tried.is_set():
            tried.set()
            raise OSError("the network is away")
        write(lease, holds)

    with locks.held(lock):
        (claim,) = claims(lock)
        before = claim.read_bytes()
        monkeypatch.setattr(leases.Lease, "_write", fail_once)
        until = time.monotonic() + 60
        while claim.read_bytes() == before and time.monotonic() < until:
            time.sleep(0.01)
        assert tried.is_set() and json.loads(claim.read_bytes())["holds"]
