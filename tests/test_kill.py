"""Real runs that are killed or told to stop, started again, and compared with undisturbed ones.

As a program, `python tests/test_kill.py FLAVOUR FOLDER`, this file fills FOLDER for the tests. It imports
TensorFlow once and forks a process for each start of the driver, which works as long as TensorFlow has no
threads yet.
"""

import functools
import io
import json
import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import pytest

FLAVOURS = ("tf_keras", "keras")
DIFFERENT = ("environment.json", "timings.csv")
# A network takes four chunks: at steps 100, 120 (which is evaluated), 140.
TINY = {"network.name": "mlp:16", "train.steps": 140, "train.eval_every_steps": 120, "prune.levels": 2}
KILLS, IN_A_ROW = 30, 6
# Where a process is killed, how often of fifteen times, and the greatest count there; "clock" is in
# milliseconds. A system call is any of those by which files are written, before it or after.
MOMENTS = {"system call": (10, None), "train": (2, 12), "evaluate": (2, 8), "clock": (1, 4000)}
SIGNALS = {signal.SIGTERM: 75, signal.SIGINT: 130}


def contents(path):
    """What has to be the same in the end: relative name -> bytes of each file."""
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.suffix in (".safetensors", ".npz", ".json", ".csv", ".tmp") and file.name not in DIFFERENT
    }


def start(flavour, workdir, moment="", count=0, number=signal.SIGKILL):
    """Forks a process that runs the driver, and gets a signal at the count-th `moment`; returns its end."""
    child = os.fork()
    if child == 0:
        try:
            at_moment(moment, count, lambda: os.kill(os.getpid(), number))
            run_driver(flavour, workdir)
            os._exit(0)
        except SystemExit as end:
            os._exit(end.code)
        finally:
            os._exit(1)
    if moment == "clock":
        time.sleep(count / 1000)
        os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run_driver(flavour, workdir):
    from tf_lottery.experiments import driver, stopping
    from tf_lottery.experiments.config import ExperimentConfig

    config = ExperimentConfig(flavour=flavour, replicates=2)
    for entry, value in TINY.items():
        section, name = entry.split(".")
        setattr(getattr(config, section), name, value)
    sys.stdout = open(os.devnull, "w")
    with stopping.once_saved():
        driver.run(config, str(workdir))


def at_moment(moment, count, act):
    from tf_lottery.training import loop

    calls = iter(range(1, count))

    def counted():
        if next(calls, None) is None:
            act()

    if moment == "system call":
        sys.setprofile(lambda frame, event, called: makes_system_call(event, called) and counted())
    elif moment in ("train", "evaluate"):
        function = getattr(loop.Loop, moment)

        @functools.wraps(function)
        def call(*args, **kwargs):
            counted()
            return function(*args, **kwargs)

        setattr(loop.Loop, moment, call)


NAMES = (
    "open",
    "mkdir",
    "write",
    "flush",
    "fsync",
    "close",
    "replace",
    "rename",
    "unlink",
    "remove",
    "rmdir",
)


def makes_system_call(event, called):
    """Whether a profiler is told of one that changes files, before it is made or after."""
    if event not in ("c_call", "c_return") or getattr(called, "__name__", "") not in NAMES:
        return False
    return getattr(called, "__module__", "") in ("posix", "_io") or isinstance(called.__self__, io.IOBase)


def count_system_calls(flavour, workdir):
    """Makes an undisturbed run; returns how many there are."""
    child = os.fork()
    if child == 0:
        calls = []
        sys.setprofile(lambda frame, event, called: makes_system_call(event, called) and calls.append(1))
        try:
            run_driver(flavour, workdir)
            sys.setprofile(None)
            workdir.with_name("calls").write_text(str(len(calls)))
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        sys.exit("the driver ended with an error")
    return int(workdir.with_name("calls").read_text())


def main(flavour, folder):
    """Makes an undisturbed run in FOLDER, some that are killed again and again, one that is told to stop."""
    import keras  # noqa: F401
    import sklearn.datasets  # noqa: F401

    from tf_lottery.experiments import driver, workdirs  # noqa: F401
    from tf_lottery.keras_api import tfmot_wrappers  # noqa: F401
    from tf_lottery.training import loop, runs

    workdirs.RunDirectory = functools.partial(runs.RunDirectory, checkpoint_seconds=0)
    loop.prefers_xla = lambda model: False  # for the time that it takes to compile
    calls = count_system_calls(flavour, folder / "undisturbed")
    report = {"kills": kill(flavour, folder, calls), "calls": calls, "told": tell(flavour, folder / "told")}
    (folder / "report").write_text(json.dumps(report))


def kill(flavour, folder, calls):
    draw, kills = random.Random(flavour), []
    moments = [moment for moment, (share, _) in MOMENTS.items() for _ in range(2 * share)]
    draw.shuffle(moments)
    while moments:
        workdir = folder / f"killed_{len(kills)}"
        for _ in range(IN_A_ROW):
            moment = moments.pop()
            count = draw.randint(1, MOMENTS[moment][1] or calls // IN_A_ROW)
            status = start(flavour, workdir, moment, count)
            kills.append([workdir.name, moment, count, status])
            if status == 0 or not moments:
                break
        if start(flavour, workdir):
            sys.exit(f"the driver did not go on after {kills}")
    return kills


def tell(flavour, workdir):
    """Tells the run to stop again and again, as a chunk begins; returns what it had saved each time."""
    told = []
    for number in [*SIGNALS] * 3:
        began = time.monotonic()
        status = start(flavour, workdir, "train", 2, number)
        since = [in_the_middle(path) for path in workdir.rglob("checkpoint.safetensors")]
        told.append([number, status, since, time.monotonic() - began])
    if start(flavour, workdir):
        sys.exit(f"the driver did not go on after {told}")
    return told


def in_the_middle(checkpoint):
    from tf_lottery import files

    return files.read_tensors(checkpoint)[1]["since"]


@pytest.fixture(scope="module", params=FLAVOURS)
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("kill")
    # Threads of BLAS would be lost in the forks.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, __file__, request.param, str(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return path


def assert_same(folder, undisturbed):
    found = contents(folder)
    assert sorted(found) == sorted(undisturbed)
    assert [name for name, data in undisturbed.items() if found[name] != data] == []


@pytest.mark.timeout(1200)
def test_a_run_that_is_killed_ends_with_the_same_bytes(folder):
    report = json.loads((folder / "report").read_text())
    killed = [moment for _, moment, _, status in report["kills"] if status == -signal.SIGKILL]
    assert {status for *_, status in report["kills"]} <= {0, -signal.SIGKILL}, report
    # Else this would show little. Counts, and the clock, may come too late for a run that is nearly done.
    assert len(killed) >= 25 and killed.count("system call") >= 15, report
    undisturbed = contents(folder / "undisturbed")
    # Two replicates of a level with five files and a snapshot, and of two with two arms; tickets; the rest.
    assert len(undisturbed) == 2 * (6 + 4 * 5 + 3 + 1) + 2
    for name in {name for name, *_ in report["kills"]}:
        assert_same(folder / name, undisturbed)


@pytest.mark.timeout(1200)
def test_a_run_that_is_told_to_stop_saves_what_it_does(folder):
    told = json.loads((folder / "report").read_text())["told"]
    assert [status for _, status, _, _ in told] == [SIGNALS[number] for number, *_ in told], told
    assert max(took for *_, took in told) < 10, told  # of which the most is the start
    # Within a chunk the second call of `train` is the one before the evaluation, or the one after it.
    assert all(len(since) == 1 for _, _, since, _ in told) and {s for _, _, (s,), _ in told} >= {100}, told
    assert_same(folder / "told", contents(folder / "undisturbed"))


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
