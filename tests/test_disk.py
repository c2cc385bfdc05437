"""A disk that is full, may not be written, or is taken away: one line, nothing lost, and the run goes on."""

import errno
import os
import resource
import shutil
import subprocess
import sys

import pytest
from test_kill import contents

from tf_lottery import cli
from tf_lottery.training import recorded
from tf_lottery.training.runs import ReplicateStore
from tf_lottery.training.verification import verify

pytestmark = pytest.mark.usefixtures("no_xla")
TINY = [
    "--config.network.name=mlp:16",
    "--config.train.steps=40",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=2",
]
GOES_ON = "and the same command goes on from what is done."


def run(workdir, *more):
    return cli.main(["run", *TINY, f"--workdir={workdir}", *more])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        assert run(workdir) == 0
    return contents(workdir)


@pytest.fixture
def small_disk(tmp_path):
    """A folder that holds 160 kB."""
    words = ["mount", "-t", "tmpfs", "-o", "size=160k", "tmpfs", str(tmp_path)]
    try:
        mounted = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError:
        pytest.skip("a small disk needs the command mount")
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted: {mounted.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def assert_one_line(err, workdir, reason):
    start, _, rest = err.partition(f": {reason}. ")
    assert start.startswith(f"tf-lottery: '{workdir}"), err
    assert rest.endswith(GOES_ON + "\n") and rest.count("\n") == 1, err
    return rest.removesuffix(f", {GOES_ON}\n")


def test_a_full_disk(small_disk, whole, capsys):
    workdir = small_disk / "run"
    assert run(workdir) == 1
    out, err = capsys.readouterr()
    assert assert_one_line(err, workdir, "No space left on device") == "Make room"
    assert "level  0  ticket" in out
    part = contents(workdir)
    assert not [name for name in part if name.endswith(".tmp")]
    assert verify(workdir) > 5 and len(recorded.results(workdir)) >= 1
    remount(small_disk, "size=16m")
    assert run(workdir) == 0
    assert "networks done already" in capsys.readouterr().out
    assert contents(workdir) == whole and len(part) < len(whole)


def test_a_disk_that_may_not_be_written(small_disk, whole, capsys):
    workdir = small_disk / "run"
    remount(small_disk, "size=16m")
    assert run(workdir, "--config.prune.levels=1") == 0
    remount(small_disk, "ro")
    for path in (workdir, small_disk / "other"):
        capsys.readouterr()
        assert run(path) == 1
        err = capsys.readouterr().err
        assert assert_one_line(err, path, "Read-only file system") == "Make it writable"
    assert verify(workdir) > 5
    remount(small_disk, "rw")
    assert run(workdir) == 0
    assert contents(workdir) == whole


def test_files_that_may_not_grow(tmp_path, whole):
    """A limit on the size of files, as batch systems set it."""
    words = [sys.executable, "-m", "tf_lottery", "run", *TINY, f"--workdir={tmp_path / 'run'}"]
    limit = max(map(len, whole.values())) - 1
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY)),
    )
    assert done.returncode == 1, done
    assert assert_one_line(done.stderr, tmp_path / "run", "File too large")
    assert not list((tmp_path / "run").rglob("*.tmp"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.EDQUOT, "Make room, or have the quota raised"),
        (errno.EACCES, "Mend its permissions"),
        (errno.EIO, "See to the disk"),
        (errno.ESTALE, "See to the disk"),
    ],
)
def test_what_is_said_of_other_faults(tmp_path, capsys, monkeypatch, number, remedy):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("os.fsync", fail)
    assert run(tmp_path / "run") == 1
    assert assert_one_line(capsys.readouterr().err, tmp_path / "run", os.strerror(number)) == remedy


def test_a_run_directory_that_is_removed_meanwhile(tmp_path, whole, capsys, monkeypatch):
    workdir, save = tmp_path / "run", ReplicateStore.save

    def saved(store, trained):
        save(store, trained)
        if trained.start.level == 1:
            shutil.rmtree(workdir)

    with monkeypatch.context() as patch:
        patch.setattr(ReplicateStore, "save", saved)
        assert run(workdir) == 1
    err = capsys.readouterr().err
    assert err == (
        f"tf-lottery: The run directory {str(workdir)!r} was removed while it was worked in. Bring it "
        "back, or start the same command again: it makes it anew.\n"
    )
    assert run(workdir) == 0
    assert contents(workdir) == whole
