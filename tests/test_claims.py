"""Runs that several processes share, with real ones; and what a command says that finds others at work.

As a program, `python tests/test_claims.py FOLDER`, this file makes the runs, in forks of one process.
"""

import contextlib
import csv
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from board import Board
from test_kill import at_moment, contents

from tf_lottery import cli
from tf_lottery.experiments import workdirs
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.training import recorded

NETWORKS = [(0, "ticket"), (1, "reinit"), (1, "ticket")]
WORDS = [
    "--config.network.name=mlp:8",
    "--config.train.steps=40",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=1",
]


def tiny(replicates=3):
    config = ExperimentConfig(replicates=replicates)
    config.network.name = "mlp:8"
    config.train.steps, config.train.eval_every_steps = 40, 10
    config.prune.levels = 1
    return config


def start(workdir, name, first=lambda: None, kill=None):
    """Forks a process that runs the driver; notes what it works on, and does `first` when it begins."""
    child = os.fork()
    if child:
        return child
    try:
        from tf_lottery.experiments import driver

        search, begun = driver._search, []

        def noted(experiment, store, listeners):
            with open(workdir.with_suffix(".log"), "a") as log:
                log.write(f"{name} {store.replicate}\n")
            if not begun:
                begun.append(first())
            search(experiment, store, listeners)

        driver._search = noted
        if kill:
            at_moment(*kill, lambda: os.kill(os.getpid(), signal.SIGKILL))
        sys.stdout = open(os.devnull, "w")
        driver.run(tiny(), str(workdir))
        os._exit(0)
    finally:
        os._exit(1)


def wait_for(*paths):
    until = time.monotonic() + 120
    while not all(path.exists() for path in paths):
        if time.monotonic() > until:
            sys.exit(f"nobody makes {paths}")
        time.sleep(0.01)


def main(folder):
    """Makes a run of three replicates by one process, by two, and by two of which one is killed."""
    import keras  # noqa: F401
    import sklearn.datasets  # noqa: F401

    from tf_lottery.experiments import driver  # noqa: F401
    from tf_lottery.keras_api import tfmot_wrappers  # noqa: F401
    from tf_lottery.training import loop, runs

    workdirs.RunDirectory = lambda *args, **kwargs: runs.RunDirectory(*args, **kwargs, checkpoint_seconds=0)
    loop.prefers_xla = lambda model: False  # for the time that it takes to compile
    ends = {"alone": os.waitpid(start(folder / "alone", "one"), 0)[1]}

    ready = [folder / "one is ready", folder / "two is ready"]
    pair = [
        start(folder / "shared", mine.name[:3], lambda mine=mine: (mine.touch(), wait_for(*ready)))
        for mine in ready
    ]
    ends["shared"] = [os.waitpid(child, 0)[1] for child in pair]

    at_work, killed = folder / "the heir is at work", folder / "the victim is killed"
    # In the second network, whose first 10 steps are kept.
    victim = start(folder / "taken_over", "victim", lambda: wait_for(at_work), kill=("train", 6))
    wait_for(folder / "taken_over.log")
    heir = start(folder / "taken_over", "heir", lambda: (at_work.touch(), wait_for(killed)))
    ends["victim"] = os.waitpid(victim, 0)[1]
    killed.touch()
    ends["heir"] = os.waitpid(heir, 0)[1]
    print(ends)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("claims")
    # Threads of BLAS would be lost in the forks.
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OPENBLAS_NUM_THREADS": "1"}
    words = [sys.executable, __file__, str(path)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "{'alone': 0, 'shared': [0, 0], 'victim': 9, 'heir': 0}\n", done.stderr
    return path


def worked_on(workdir):
    """Who worked on which replicate, in that order."""
    return [line.split() for line in workdir.with_suffix(".log").read_text().splitlines()]


def trained(workdir):
    """(replicate, level, arm) -> how many steps, of all that was trained, in the order of the numbers."""
    with open(workdir / "timings.csv", newline="") as file:
        rows = [
            ((int(r["replicate"]), int(r["level"]), r["arm"]), int(r["steps"])) for r in csv.DictReader(file)
        ]
    assert len(dict(rows)) == len(rows)
    return dict(sorted(rows))


ALL = {(replicate, *network): 40 for replicate in (1, 2, 3) for network in NETWORKS}


def test_two_processes_train_each_replicate_once(folder):
    worked = worked_on(folder / "shared")
    assert {name for name, _ in worked} == {"one", "two"}
    assert sorted(replicate for _, replicate in worked) == ["1", "2", "3"]
    assert trained(folder / "shared") == trained(folder / "alone") == ALL


def test_what_a_killed_process_worked_on_is_taken_over_where_it_was(folder):
    assert worked_on(folder / "taken_over") == [["victim", "1"], ["heir", "2"], ["heir", "1"], ["heir", "3"]]
    assert trained(folder / "taken_over") == {**ALL, (1, 1, "ticket"): 30}


@pytest.mark.parametrize("name", ["shared", "taken_over"])
def test_all_is_as_one_process_makes_it(folder, name):
    alone, found = contents(folder / "alone"), contents(folder / name)
    assert len([name for name in alone if name.endswith("result.json")]) == 9
    assert sorted(found) == sorted(alone)
    assert [name for name, data in alone.items() if found[name] != data] == []
    boards = [Board(folder / name / "tensorboard").everything() for name in ("alone", name)]
    for board in boards:
        board["analysis/report"].pop("figures/search", None)  # which is drawn when there is time
    assert boards[0] == boards[1]
    assert not list((folder / name).rglob(".lock.json"))


@pytest.fixture
def claimed(tmp_path):
    """Claims replicates of a run in this process, for others to find."""
    with contextlib.ExitStack() as stack:

        def claim(config, workdir, *replicates):
            directory = workdirs.directory(config, workdir).open()
            for replicate in replicates:
                stack.enter_context(directory.replicate(replicate).claimed())
            return stack

        yield claim


@pytest.mark.usefixtures("no_xla")
def test_a_command_takes_what_nobody_works_on_and_says_who_works_on_the_rest(tmp_path, capsys, claimed):
    words = ["run", *WORDS, "--config.replicates=2", f"--workdir={tmp_path}"]
    others = claimed(tiny(2), tmp_path, 1)
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert {(result.replicate, result.level, result.arm) for result in recorded.results(tmp_path)} == {
        (2, *network) for network in NETWORKS
    }
    assert "3 of 6 networks are trained." in out
    assert f"\nOthers are still at work: replicate 1: process {os.getpid()} on " in out

    assert cli.main(words) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(
        f"tf-lottery: '{tmp_path}' is in use by another run (replicate 1: process {os.getpid()} on "
    )
    others.close()
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert "networks done already: 3." in out and "Others" not in out and "are trained." not in out
    assert len(recorded.results(tmp_path)) == 6


@pytest.mark.usefixtures("no_xla")
def test_a_study_leaves_out_the_experiments_that_others_work_on(tmp_path, capsys, claimed):
    (tmp_path / "both.py").write_text(
        "from tf_lottery.experiments.config import ExperimentConfig\n"
        "def get_config():\n"
        "    return {seed: ExperimentConfig(seed=int(seed)) for seed in '01'}\n"
    )
    words = ["run", f"--config={tmp_path / 'both.py'}", *WORDS, f"--workdir={tmp_path / 'run'}"]
    claimed(tiny(1), tmp_path / "run/0", 1)
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    assert f"\n'{tmp_path}/run/0' is in use by another run (process {os.getpid()} on " in out
    assert "Left out, as no dense network is trained yet: 0." in out
    assert [len(recorded.results(tmp_path / "run" / seed)) for seed in "01"] == [0, 3]

    config = tiny(1)
    config.seed = 1
    config.prune.levels = 2
    claimed(config, tmp_path / "run/1", 1)
    assert cli.main([*words, "--config.prune.levels=2"]) == 1
    assert capsys.readouterr().out.count("is in use by another run") == 2


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
