"""Leases, between threads and between lives of a process."""

import dataclasses
import os
import re
import socket
import subprocess
import sys
import threading
import time

import pytest

from tf_lottery import paths
from tf_lottery.training import leases, locks
from tf_lottery.training.claims import Claims
from tf_lottery.training.history import History
from tf_lottery.training.leases import Claim
from tf_lottery.training.progress import Progress
from tf_lottery.training.recorded import RunDirectoryError
from tf_lottery.training.runs import RunDirectory

ME = f"process {os.getpid()} on {socket.gethostname()}"


@pytest.fixture
def lock(tmp_path):
    return paths.path(f"ram:/{tmp_path}/.lock")


def files(lock):
    return list(lock.glob("*"))


def claims(lock):
    return [Claim.read(file.name) for file in files(lock)]


def leave(lock, **changes):
    """Leaves the claim of a process that holds the lease, with changes; returns its name."""
    name = dataclasses.replace(Claim.here("holds", "other"), **changes).name()
    (lock / name).write_bytes(b"")
    return name


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
        threading.Timer(0.5, lambda: [file.unlink() for file in files(lock)]).start()
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
        ({"processes": "1", "pid": 0}, True),  # of another container
        ({"pid": 1}, True),  # of another user, perhaps
        ({"pid": None}, False),
        ({"pid": None, "host": "elsewhere"}, True),
        ({"host": "elsewhere", "said": -115}, True),
        ({"host": "else & where", "said": -121}, False),
        ({"said": -121}, False),
        ({"host": "elsewhere", "state": "asks"}, True),
    ],
    ids=str,
)
def test_whom_a_claim_holds_off(lock, monkeypatch, changes, is_alive):
    monkeypatch.setattr(leases.random, "uniform", lambda low, high: 0)
    if "pid" in changes:
        changes = {**changes, "pid": changes["pid"] or ended()}
    if "said" in changes:
        changes = {**changes, "said": time.time() + changes["said"]}
    name = leave(lock, **changes)
    if is_alive:
        told = f"process {changes.get('pid', os.getpid())} on {changes.get('host', socket.gethostname())}, "
        assert locks.holder(lock).startswith(told)
        with pytest.raises(locks.InUse, match=re.escape(told)), locks.held(lock):
            pytest.fail("two hold it")
        assert [file.name for file in files(lock)] == [name]
    else:
        assert locks.holder(lock) is None
        with locks.held(lock):
            assert name not in [file.name for file in files(lock)]


def test_a_holder_shows_that_it_is_alive(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    with locks.held(lock):
        before = after = claims(lock)[0]
        until = time.monotonic() + 60
        while after == before and time.monotonic() < until:
            time.sleep(0.01)
            after = max(claims(lock), key=lambda claim: claim.said)
        assert after.said > before.said
        assert dataclasses.replace(after, said=before.said) == before
    assert files(lock) == []


def test_a_holder_that_was_taken_for_dead_does_not_come_back(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    with locks.held(lock) as is_lost:
        assert not is_lost()
        files(lock)[0].unlink()
        with locks.held(lock) as others_is_lost:
            time.sleep(0.3)
            assert len(claims(lock)) == 1
            assert is_lost() and not others_is_lost()


def test_a_holder_that_was_suspended_writes_no_more(lock, monkeypatch):
    store = RunDirectory(lock.parent, {"seed": 0}).open().replicate(1)
    with store.claimed():
        monkeypatch.setattr(leases, "_LIFE", 0)
        with pytest.raises(RunDirectoryError, match="was not heard of for minutes, and others may have"):
            store.save_progress(None, Progress({}, History()))
    assert [file.name for file in files(store.path)] == [locks.LOCK]


def test_two_that_hold_it_both_let_go(lock, monkeypatch):
    """One had been taken for dead, and said that it lives as the other took over."""
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    with locks.held(lock) as is_lost:
        name = leave(lock, host="elsewhere")
        until = time.monotonic() + 60
        while not is_lost() and time.monotonic() < until:
            time.sleep(0.01)
        assert is_lost()
        assert [file.name for file in files(lock)] == [name]


@pytest.mark.parametrize("remote", [True, False])
def test_a_sign_of_life(lock, tmp_path, monkeypatch, remote):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    lock = lock if remote else tmp_path / ".lock"
    assert locks.sign_of_life(lock) is None
    with locks.held(lock):
        first, until = locks.sign_of_life(lock), time.monotonic() + 60
        assert abs(time.time() - first) < 60
        while locks.sign_of_life(lock) == first and time.monotonic() < until:
            time.sleep(0.01)
        assert locks.sign_of_life(lock) > first
    assert locks.sign_of_life(lock) is None


def test_what_a_process_elsewhere_left_is_taken_over_in_the_end(lock, monkeypatch):
    monkeypatch.setattr(leases, "_LIFE", 3)
    directory = RunDirectory(lock.parent, {"seed": 0})
    leave(directory.replicate(1).path / locks.LOCK, host="elsewhere")
    claimed = Claims(directory, [1, 2, 3], [(0, "ticket")]).claimed(finished=True)
    monkeypatch.setattr(leases, "_RENEWED", 0.2)
    with directory.replicate(3).claimed():  # by another that lives
        assert [store.replicate for store in claimed] == [2, 1]


def test_a_network_that_is_away_for_a_moment(lock, monkeypatch):
    monkeypatch.setattr(leases, "_RENEWED", 0.05)
    tried, write = threading.Event(), paths.RemotePath.write_bytes

    def fail_once(path, content):
        if not tried.is_set():
            tried.set()
            raise OSError("the network is away")
        write(path, content)

    with locks.held(lock):
        before = claims(lock)
        monkeypatch.setattr(paths.RemotePath, "write_bytes", fail_once)
        until = time.monotonic() + 60
        while claims(lock) == before and time.monotonic() < until:
            time.sleep(0.01)
        assert tried.is_set() and max(claim.said for claim in claims(lock)) > before[0].said
