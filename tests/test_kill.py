"""Real runs that are killed, started again, and compared with undisturbed ones; and a full disk.

As a program, `python tests/test_kill.py FOLDER`, this file fills FOLDER for the tests. It imports TensorFlow
once and forks a process for each start of the driver, which works as long as TensorFlow has no threads yet.
"""

import functools
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

from tf_lottery import cli

FLAVOURS = ("tf_keras", "keras")
DIFFERENT = ("environment.json", "timings.csv")
TINY = {"network.name": "mlp:16", "train.steps": 40, "train.eval_every_steps": 10, "prune.levels": 2}
# What is counted, and the greatest count at which a process is killed; "clock" is in milliseconds.
# All together they are less than a whole run.
MOMENTS = {"fsync": 60, "replace": 30, "unlink": 30, "train": 7, "evaluate": 16, "clock": 6000}


def contents(path):
    """What has to be the same in the end: relative name -> bytes of each file."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.suffix in (".safetensors", ".npz", ".json", ".csv", ".tmp") and file.name not in DIFFERENT
    }


def start(flavour, workdir, moment, count):
    """Forks a process that runs the driver; it is killed at the count-th call of `moment`. Was it?"""
    child = os.fork()
    if child == 0:
        try:
            kill_at(moment, count)
            run_driver(flavour, workdir)
            os._exit(0)
        finally:
            os._exit(1)
    if moment == "clock":
        time.sleep(count / 1000)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if status not in (0, signal.SIGKILL):
        sys.exit(f"the driver ended with status {status}")
    return status == signal.SIGKILL


def run_driver(flavour, workdir):
    from tf_lottery.experiments import driver
    from tf_lottery.experiments.config import ExperimentConfig

    config = ExperimentConfig(flavour=flavour, replicates=2)
    for entry, value in TINY.items():
        section, name = entry.split(".")
        setattr(getattr(config, section), name, value)
    sys.stdout = open(os.devnull, "w")
    driver.run(config, str(workdir))


def kill_at(moment, count):
    from tf_lottery.training import loop

    owner = {"fsync": os, "replace": os, "unlink": pathlib.Path}.get(moment, loop.Loop)
    if not hasattr(owner, moment):
        return
    function, calls = getattr(owner, moment), iter(range(1, count))

    @functools.wraps(function)
    def call(*args, **kwargs):
        if next(calls, None) is None:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    setattr(owner, moment, call)


def main(folder):
    """Makes an undisturbed run of each flavour in FOLDER, and one that is killed again and again."""
    import keras  # noqa: F401
    import sklearn.datasets  # noqa: F401

    from tf_lottery.experiments import driver, workdirs  # noqa: F401
    from tf_lottery.keras_api import tfmot_wrappers  # noqa: F401
    from tf_lottery.training import loop, runs

    workdirs.RunDirectory = functools.partial(runs.RunDirectory, checkpoint_seconds=0)
    loop.prefers_xla = lambda model: False  # for the time that it takes to compile
    for flavour in FLAVOURS:
        draw, killed, inside = random.Random(flavour), [], 0
        start(flavour, folder / flavour / "undisturbed", "nothing", 0)
        workdir = folder / flavour / "killed"
        for moment in draw.sample(sorted(MOMENTS), len(MOMENTS)):
            count = draw.randint(1, MOMENTS[moment])
            if start(flavour, workdir, moment, count):
                killed.append((moment, count))
            inside += any(workdir.rglob("checkpoint.safetensors"))
        start(flavour, workdir, "nothing", 0)
        (folder / flavour / "report").write_text(json.dumps({"killed": killed, "inside": inside}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("kill")
    # Threads of BLAS would be lost in the forks.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, __file__, str(path)], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return path


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_run_that_is_killed_ends_with_the_same_bytes(folder, flavour):
    report = json.loads((folder / flavour / "report").read_text())
    # Else this would show little. The clock may come too late.
    assert len(report["killed"]) >= len(MOMENTS) - 1 and report["inside"] >= 1, report
    undisturbed, killed = contents(folder / flavour / "undisturbed"), contents(folder / flavour / "killed")
    # Two replicates of a level with five files and a snapshot, and of two with two arms; tickets; the rest.
    assert len(undisturbed) == 2 * (6 + 4 * 5 + 3 + 1) + 2
    assert sorted(killed) == sorted(undisturbed)
    assert [name for name, data in undisturbed.items() if killed[name] != data] == [], report


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


def test_a_full_disk(small_disk, tmp_path_factory, capsys):
    words = [f"--config.{entry}={value}" for entry, value in TINY.items()]
    workdir, elsewhere = small_disk / "run", tmp_path_factory.mktemp("elsewhere") / "run"
    assert cli.main(["run", *words, f"--workdir={workdir}"]) == 1
    out, err = capsys.readouterr()
    start, _, rest = err.partition(": No space left on device. ")
    assert start.startswith(f"tf-lottery: '{workdir}/")
    assert rest == "Make room, and the same command goes on from what is done.\n"
    assert "level  0  ticket" in out
    part = contents(workdir)
    assert not [name for name in part if name.endswith(".tmp")]
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    for path in (workdir, elsewhere):
        assert cli.main(["run", *words, f"--workdir={path}"]) == 0
    assert "networks done already" in capsys.readouterr().out
    assert contents(workdir) == contents(elsewhere)
    assert len(part) < len(contents(elsewhere))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
