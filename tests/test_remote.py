"""Whole runs in TensorFlow's memory beside the same ones in a local folder: equal words, equal bytes."""

import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from board import Board

import tf_lottery
from tf_lottery import cli, paths
from tf_lottery.analysis.tensorboard import TensorBoard
from tf_lottery.experiments import driver, flags
from tf_lottery.search.ticket import Ticket
from tf_lottery.training.runs import ReplicateStore

TINY = [
    "--config.network.name=mlp:16",
    "--config.train.steps=40",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=1",
    "--config.controls=reinit",
    "--config.replicates=2",
]
pytestmark = pytest.mark.usefixtures("no_xla")
SMALL = {"levels": 1, "steps": 40, "eval_every": 10, "batch_size": 32, "verbose": 0, "controls": ("reinit",)}
DIFFERS = re.compile(r"(.*/)?(environment\.json|timings\.csv|\.lock.*|events\.out\.tfevents.*)")


def contents(workdir):
    """Name -> bytes of every file below, without what tells of time and process."""
    gfile = tf.io.gfile
    # Not by a walk: TensorFlow's memory lists below `level_1` what is in `level_10` too.
    found = [path for depth in range(1, 6) for path in gfile.glob(f"{workdir}{'/*' * depth}")]
    named = {path.removeprefix(f"{workdir}/"): path for path in found if not gfile.isdir(path)}
    return {n: gfile.GFile(p, "rb").read() for n, p in named.items() if not DIFFERS.fullmatch(n)}


def same(remote, local):
    remote, local = contents(remote), contents(local)
    assert sorted(remote) == sorted(local)
    assert [name for name in local if remote[name] != local[name]] == []
    return local


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory):
    """A finished run, on a local disk and in memory."""
    local = tmp_path_factory.mktemp("runs")
    found = {"local": f"{local}/run", "remote": f"ram:/{local}/run"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_lottery.training.loop.prefers_xla", lambda model: False)
        for workdir in found.values():
            assert cli.main(["run", *TINY, f"--workdir={workdir}"]) == 0
    return found


def test_a_run_leaves_the_same_bytes(workdirs):
    files = same(workdirs["remote"], workdirs["local"])
    assert {"config.json", "results.csv", "figures/search.svg", "figures/curves.png"} <= set(files)
    assert sum(name.endswith("/mask.safetensors") for name in files) == 6
    with tf.io.gfile.GFile(f"{workdirs['remote']}/timings.csv") as file:
        assert len(file.read().splitlines()) == 1 + 6


def test_tensorboard_reads_the_same(workdirs):
    remote, local = (Board(f"{workdir}/tensorboard") for workdir in workdirs.values())
    assert remote.everything() == local.everything()


@pytest.mark.parametrize(
    "words",
    [
        ["report"],
        ["plot", "--figures=weights"],
        ["overlap"],
        ["structure", "--examples=50"],
        ["connectivity", "--points=3"],
        ["infoplane", "--levels=1", "--arms=ticket", "--examples=100", "--points=2"],
    ],
    ids=" ".join,
)
def test_a_command_says_and_writes_the_same(workdirs, capsys, words):
    said = []
    for workdir in (workdirs["remote"], workdirs["local"]):
        assert cli.main([words[0], workdir, *words[1:]]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        said.append(
            re.sub(r"^  \S*(?=analysis/|figures/)", "  ", out.replace(workdir, "WORKDIR"), flags=re.M)
        )
    assert said[0] == said[1]
    same(workdirs["remote"], workdirs["local"])


def test_a_study_and_its_experiments_side_by_side(tmp_path, capsys):
    (tmp_path / "study.py").write_text(
        "from tf_lottery.experiments.config import ExperimentConfig\n"
        "def get_config():\n    return {name: ExperimentConfig() for name in ('one', 'two')}\n"
    )
    workdir = f"ram:/{tmp_path}/study"
    short = ["--config.replicates=1", "--config.prune.levels=0", "--config.train.steps=10"]
    words = [f"--config={tmp_path}/study.py", *TINY, *short, f"--workdir={workdir}"]
    assert cli.main(["run", *words]) == 0
    assert capsys.readouterr().out.endswith(f" --logdir {workdir}\n")
    assert {"one/results.csv", "two/results.csv", "figures/together.png"} <= set(contents(workdir))
    paths.remove_tree(paths.path(workdir) / "figures")
    assert cli.main(["report", f"{workdir}/one", f"{workdir}/two"]) == 0
    out, _ = capsys.readouterr()
    assert out.startswith("one\n\n") and "\ntwo\n\n" in out
    assert f"\n  {workdir}/figures/together.png\n" in out
    assert "figures/side_by_side.svg" in contents(workdir)


def test_nothing_but_the_run_is_printed(tmp_path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    environment["PYTHONPATH"] = str(pathlib.Path(__file__).parent.parent)
    short = ["--config.replicates=1", "--config.prune.levels=0", "--config.train.steps=10"]
    words = ["run", *TINY, *short, "--workdir=ram://run"]
    done = subprocess.run(
        [sys.executable, "-m", "tf_lottery", *words], capture_output=True, text=True, env=environment
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "Results go to ram://run.\n" in done.stdout and "\n  tf-lottery plot ram://run\n" in done.stdout


def stopping_at(count, method):
    calls = []

    def call(*arguments):
        calls.append(arguments)
        if len(calls) == count:
            raise KeyboardInterrupt
        return method(*arguments)

    return call


def test_a_run_that_is_stopped_goes_on(workdirs, tmp_path, monkeypatch):
    workdir = f"ram:/{tmp_path}/run"
    config = flags.parse(TINY)[0][""]
    monkeypatch.setattr(ReplicateStore, "wants_progress", lambda self: True)
    for method, count in {"evaluated": 8, "finished": 3}.items():
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(TensorBoard, method, stopping_at(count, getattr(TensorBoard, method)))
            driver.run(config, workdir)
        checkpoints = [name for name in contents(workdir) if name.endswith("checkpoint.safetensors")]
        assert len(checkpoints) == (method == "evaluated")
    # As a process leaves it that is killed between writing a file and renaming it.
    leftover = paths.path(workdir) / "replicate_1/level_01/ticket/.end.safetensors.1.tf_lottery.tmp"
    leftover.write_bytes(b"half")
    driver.run(config, workdir)
    whole, parts = contents(workdirs["local"]), contents(workdir)
    networks = [name for name in whole if name.startswith("replicate_") or name == "results.csv"]
    assert [name for name in networks if parts[name] != whole[name]] == []
    assert set(parts) == {*networks, "config.json"}


def test_find_ticket_and_its_file(make_model, data, tmp_path):
    remote, local = f"ram:/{tmp_path}", tmp_path
    tickets = []
    for root in (remote, local):
        ticket = tf_lottery.find_ticket(make_model(), *data, **SMALL, workdir=f"{root}/search")
        ticket.save(f"{root}/mine.ticket")
        tickets.append(Ticket.load(f"{root}/mine.ticket"))
    same(f"{remote}/search", f"{local}/search")
    saved = paths.path(f"{remote}/mine.ticket").read_bytes()
    assert saved == (local / "mine.ticket").read_bytes()
    assert tickets[0].summary() == tickets[1].summary()
    for path, mask in tickets[1].mask.items():
        np.testing.assert_array_equal(tickets[0].mask[path], mask)
    again = tf_lottery.find_ticket(make_model(), *data, **SMALL, workdir=f"{remote}/search")
    assert again.summary() == tickets[0].summary()
    with pytest.raises(FileNotFoundError, match=f"There is no file '{remote}/other.ticket'"):
        Ticket.load(f"{remote}/other.ticket")


def refused(capsys, *words):
    assert cli.main(list(words)) == 1
    err = capsys.readouterr().err
    assert err.startswith("tf-lottery: ")
    return err


def test_what_cannot_be_is_refused(workdirs, tmp_path, capsys):
    remote = f"ram:/{tmp_path}"
    assert "Unknown filesystem 'gss'. Did you mean 'gs'?" in refused(capsys, "run", "--workdir=gss://b/run")
    assert f"There is no run in '{remote}'" in refused(capsys, "report", remote)
    assert "have no folder in common" in refused(capsys, "report", *workdirs.values())
    message = refused(capsys, "run", *TINY, "--config.seed=1", f"--workdir={workdirs['remote']}")
    assert f"{workdirs['remote']!r} belongs to a run with another config:\n  seed: 0 there, 1 now" in message
