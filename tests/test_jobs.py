"""`tf-lottery run --jobs`: what several processes of one command train, say, and end with."""

import functools
import json
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import time

import pytest
from test_kill import contents

from tf_lottery import cli
from tf_lottery.experiments import driver, flags, jobs
from tf_lottery.training import recorded

# Without XLA, which takes seconds to compile. In this process a test needs `no_xla` too, which undoes it.
CONFIG = """
from tf_lottery.experiments import noise
from tf_lottery.experiments.config import ExperimentConfig

with noise.dropped():
    from tf_lottery.training import loop
loop.prefers_xla = lambda model: False

def get_config():
    config = ExperimentConfig(replicates=3)
    config.network.name = "mlp:8"
    config.train.steps, config.train.eval_every_steps = 200, 10
    config.prune.levels = 1
    return config
"""
LINE = re.compile(
    r"replicate \d  level  [01]  (ticket|reinit) +[\d.]+%  early stop at step +\d+  test accuracy [\d.]+%"
)
STOPPED = "tf-lottery: stopped. What is done is kept, and the same command goes on from there."


@pytest.fixture
def words(tmp_path):
    (tmp_path / "three.py").write_text(CONFIG)
    return [sys.executable, "-m", "tf_lottery", "run", f"--config={tmp_path / 'three.py'}"]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a single process makes."""
    folder = tmp_path_factory.mktemp("alone")
    (folder / "three.py").write_text(CONFIG)
    words = ["run", f"--config={folder / 'three.py'}", f"--workdir={folder / 'run'}"]
    done = subprocess.run([sys.executable, "-m", "tf_lottery", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    return contents(folder / "run")


def workers(workdir):
    """The processes that have a replicate now."""
    found = []
    for note in workdir.glob("replicate_*/.lock.json"):
        try:
            found.append(json.loads(note.read_text())["pid"])
        except (OSError, ValueError):  # it is being written, or gone
            continue
    return [pid for pid in found if not is_gone(pid)]


def until(condition):
    end = time.monotonic() + 120
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.02)
    return found


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_run_goes_on_however_its_processes_end(words, tmp_path, alone):
    workdir = tmp_path / "run"
    command = [*words, f"--workdir={workdir}", "--jobs=2"]
    ends = (
        (signal.SIGKILL, False, -9, ""),
        (signal.SIGTERM, False, 75, STOPPED),
        (signal.SIGTERM, True, 75, STOPPED),  # as of systemd
        (signal.SIGINT, True, 130, STOPPED),  # as of a terminal
    )
    for number, to_all, status, said in ends:
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        ) as process:
            at_work = until(lambda: len(found := workers(workdir)) == 2 and found)
            if to_all:
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
            _, err = process.communicate()
        # Where saving takes more than a second, that is said first.
        assert (process.returncode, err.strip().splitlines()[-1:]) == (status, [said][: len(said)])
        for pid in at_work:
            until(functools.partial(is_gone, pid))
    assert len(recorded.results(workdir)) < 9

    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(workdir) == alone


def test_the_work_of_a_killed_process_is_taken_over_by_the_other(words, tmp_path, alone):
    workdir = tmp_path / "run"
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (40, 120))
    command = [*words, f"--workdir={workdir}", "--jobs=2"]
    process = subprocess.Popen(command, stdout=theirs, stderr=subprocess.PIPE, text=True)
    os.close(theirs)
    shown, victims = b"", []
    try:
        while received := os.read(ours, 4096):
            shown += received
            if not victims and len(found := workers(workdir)) == 2:
                victims = found[:1]
                os.kill(victims[0], signal.SIGKILL)
    except OSError:  # how a terminal ends
        pass
    _, err = process.communicate()
    assert victims
    said = "tf-lottery: a process was killed by signal 9; the others take its work over."
    assert (process.returncode, err.strip()) == (0, said)
    # A live line, above which every network has a whole line of its own.
    text = shown.decode()
    assert re.search(r"[1-9] of 9 networks \|.{20}\| +\d+ %, [\d:]+ left", text)
    lines = [line for line in re.split(r"[\r\n]", text) if "early stop at step" in line and "level" in line]
    assert len(lines) >= 9 and all(LINE.search(line) for line in lines[:9]), lines
    assert contents(workdir) == alone


def test_an_error_is_told_once_and_ends_all(words, tmp_path):
    workdir = tmp_path / "run"
    wrong = ["--config.train.learning_rate=1e30", "--config.flavour=keras", "--config.train.on_nan=stop"]
    done = subprocess.run(
        [*words, f"--workdir={workdir}", "--jobs=3", *wrong], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("tf-lottery: The loss is nan at step ") and done.stderr.count("\n") == 1
    assert "Results, figures" not in done.stdout
    assert all(map(is_gone, workers(workdir)))


def test_what_is_given_up_is_told_once(words, tmp_path):
    workdir = tmp_path / "run"
    wrong = ["--config.network.initializer=random_normal:stddev=1e30"]
    done = subprocess.run(
        [*words, f"--workdir={workdir}", "--jobs=3", *wrong], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (1, "")
    told, report = done.stdout.split("No network is trained yet.")
    assert told.count("given up: ") == 3 and report.count("level 0  ticket: ") == 3


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("0", "--jobs must be 1 or more, a number of processes. Received 0."),
        ("-1", "--jobs must be 1 or more, a number of processes. Received -1."),
        ("two", "flag --jobs=two: invalid literal for int() with base 10: 'two'"),
    ],
)
def test_a_number_of_processes_that_cannot_be(tmp_path, capsys, value, message):
    assert cli.main(["run", f"--jobs={value}", f"--workdir={tmp_path / 'run'}"]) == 1
    assert capsys.readouterr() == ("", f"tf-lottery: {message}\n")
    assert not (tmp_path / "run").exists()


@pytest.fixture
def trained_by(monkeypatch):
    """Notes who is to train, and says that it ended with 3."""
    noted = []
    monkeypatch.setattr(jobs, "run", lambda *args: noted.append(("jobs", *args)) or 3)
    monkeypatch.setattr(driver, "run", lambda *args: noted.append(("here", *args[1:])) or sys.exit(3))
    return noted


def test_no_more_processes_than_there_are_replicates(tmp_path, capsys, trained_by):
    words = ["--config.prune.levels=1", f"--workdir={tmp_path}"]
    assert cli.main(["run", "--jobs=5", *words, "--config.replicates=3"]) == 3
    assert trained_by == [("jobs", ["1,2,3", "", *words, "--config.replicates=3"], 3, 9)]
    assert "\nIn 3 processes, one for each replicate that is left; cores of each: " in capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main(["run", *words, "--jobs=2"])
    assert trained_by[1:] == [("here", str(tmp_path), None, "")]
    assert "\n--jobs=2: one replicate is left, which this process trains.\n" in capsys.readouterr().out


def test_what_a_killed_process_leaves_as_the_others_end_is_trained_too(tmp_path, capsys, monkeypatch, no_xla):
    counts = []

    def run(words, count, networks):
        """Stands for processes of which one is killed when the others have nothing left."""
        counts.append(count)
        driver.run(flags.parse(words[2:])[0][""], str(tmp_path), replicates=[1])
        return 0

    monkeypatch.setattr(jobs, "run", run)
    (tmp_path / "three.py").write_text(CONFIG)
    words = [f"--config={tmp_path / 'three.py'}", "--config.replicates=2", f"--workdir={tmp_path}"]
    assert cli.main(["run", *words, "--jobs=2"]) == 0
    assert counts == [2]
    assert {result.replicate for result in recorded.results(tmp_path)} == {1, 2}
    assert "\n--jobs=2: one replicate is left, which this process trains.\n" in capsys.readouterr().out


def test_every_process_has_its_share_of_the_cores(monkeypatch):
    monkeypatch.setattr(jobs, "_cores", lambda: [0, 1, 2, 5])
    assert jobs.cores_of(2) == [{0, 2}, {1, 5}]
    assert jobs.cores_of(3) == [{0, 5}, {1}, {2}]
    assert jobs.cores_of(6) == [{0}, {1}, {2}, {5}, {0}, {1}]
