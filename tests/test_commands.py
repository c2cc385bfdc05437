"""The commands that look at runs: words, runs of several kinds, and what is written."""

import csv
import shutil

import pytest
from matplotlib.figure import Figure
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tf_lottery import cli
from tf_lottery.analysis.findings import Findings, Scalar
from tf_lottery.experiments import commands, outputs
from tf_lottery.experiments.commands import Command, Option, UsageError
from tf_lottery.training import recorded

TINY = [
    "--config.network.name=mlp:16",
    "--config.train.steps=40",
    "--config.train.eval_every_steps=10",
    "--config.prune.levels=2",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Two finished runs, of two replicates and of one."""
    root = tmp_path_factory.mktemp("runs")
    for name, replicates in (("two", 2), ("one", 1)):
        words = [f"--workdir={root / name}", f"--config.replicates={replicates}"]
        assert cli.main(["run", *TINY, *words]) == 0
    return root


@pytest.fixture
def runs(made, tmp_path):
    return shutil.copytree(made, tmp_path / "runs")


@pytest.fixture
def known(monkeypatch):
    options = {
        "levels": Option((), "a list of numbers"),
        "arms": Option(("ticket",), "a list of names"),
        "points": Option(30, "a number"),
        "quick": Option(False, "whether"),
        "share": Option(0.5, "a fraction"),
    }
    monkeypatch.setitem(commands.COMMANDS, "made_up", Command("what is made up", options))


@pytest.mark.usefixtures("known")
def test_flags_have_the_type_of_their_default():
    words = ["a", "--levels=1,3", "--arms=ticket,reinit", "--points=3", "--quick", "--share=0.25", "b"]
    assert commands.parse("made_up", words) == (
        ["a", "b"],
        {"levels": (1, 3), "arms": ("ticket", "reinit"), "points": 3, "quick": True, "share": 0.25},
    )
    assert commands.parse("made_up", ["a"])[1] == {
        "levels": (),
        "arms": ("ticket",),
        "points": 30,
        "quick": False,
        "share": 0.5,
    }


@pytest.mark.usefixtures("known")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name a run directory: tf-lottery made_up runs/digits"),
        (["a", "--pointz=3"], r"Unknown flag 'pointz'\. Did you mean 'points'\?"),
        (["a", "--points=many"], "points"),
        (["a", "--levels=1,x"], "levels is a list of integers, such as --levels=1,2. Received: 1,x."),
        (["a", "--points"], "points"),
    ],
)
def test_words_that_cannot_be_followed(words, message):
    with pytest.raises(UsageError, match=message):
        commands.parse("made_up", words)


@pytest.mark.usefixtures("known")
def test_help_tells_every_flag(capsys):
    assert cli.main(["made_up", "--help"]) == cli.main(["help", "made_up"]) == 0
    out = capsys.readouterr().out
    assert "what is made up." in out and "--points=30" in out and "--arms=ticket" in out


def test_the_help_of_run_names_the_commands(capsys):
    assert cli.main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(f"tf-lottery {name} WORKDIR" in out for name in commands.COMMANDS)


def test_a_report_says_again_what_the_run_said(runs, capsys):
    assert cli.main(["run", *TINY, f"--workdir={runs / 'two'}", "--config.replicates=2"]) == 0
    said = capsys.readouterr().out
    assert cli.main(["report", str(runs / "two")]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    report = out[: out.index("\n\n  ")]
    assert report in said
    assert "ticket minus reinit, mean and 95 % interval of 2 pairs" in report
    assert "networks are trained" not in report


def test_a_report_on_what_is_not_finished_says_how_much_is(runs, capsys):
    shutil.rmtree(runs / "one" / "replicate_1" / "level_02")
    assert cli.main(["report", str(runs / "one")]) == 0
    assert "3 of 5 networks are trained." in capsys.readouterr().out
    shutil.rmtree(runs / "one" / "replicate_1")
    assert cli.main(["report", str(runs / "one")]) == 0
    assert capsys.readouterr().out.startswith("No network is trained yet.")


def test_several_runs_are_reported_side_by_side(runs, capsys):
    assert cli.main(["report", str(runs / "one"), str(runs / "two")]) == 0
    out = capsys.readouterr().out
    assert out.startswith("one\n") and "\ntwo\n" in out
    rows = [line.split()[0] for line in out[out.index("sparsest, kept %") :].splitlines()[2:4]]
    assert rows == ["one", "two"]
    assert (runs / "figures" / "together.svg").is_file()  # where both lie
    shutil.rmtree(runs / "two" / "replicate_1")
    shutil.rmtree(runs / "two" / "replicate_2")
    assert cli.main(["report", str(runs)]) == 0  # the folder stands for what is in it
    assert "Left out, as no dense network is trained yet: two." in capsys.readouterr().out


def test_folders_without_a_run_are_refused(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "There is no run in" in capsys.readouterr().err
    assert cli.main(["report", str(tmp_path / "none")]) == 1
    assert "There is no run in" in capsys.readouterr().err


def test_a_damaged_result_is_named(runs, capsys):
    path = runs / "one" / "replicate_1" / "level_01" / "ticket" / "result.json"
    path.write_text("{")
    assert cli.main(["report", str(runs / "one")]) == 1
    assert str(path) in capsys.readouterr().err


def test_findings_are_written_as_csv_figures_and_events(tmp_path):
    figure = Figure()
    figure.subplots().plot([1, 2])
    findings = Findings(
        "what is found",
        rows=[{"level": 0, "value": 1.5}, {"level": 1, "value": None}],
        figures={"first": figure},
        scalars=[Scalar("ticket", "group/value", 0, 1.5), Scalar("reinit", "group/value", 3, 2.5)],
    )
    written = outputs.write(tmp_path, "made_up", findings)
    assert [path.relative_to(tmp_path).as_posix() for path in written] == [
        "analysis/made_up.csv",
        "figures/first.png",
        "figures/first.svg",
    ]
    with open(written[0], newline="") as file:
        assert list(csv.reader(file)) == [["level", "value"], ["0", "1.5"], ["1", ""]]
    logs = tmp_path / "tensorboard" / "analysis" / "made_up"
    accumulator = EventAccumulator(str(logs / "reinit")).Reload()
    (event,) = accumulator.Scalars("group/value")
    assert (event.step, event.value) == (3, 2.5)
    tags = EventAccumulator(str(logs)).Reload().Tags()["tensors"]
    assert set(tags) == {"made_up", "figures/first"}
    # Once more, and nothing is there twice.
    outputs.write(tmp_path, "made_up", findings)
    assert len(EventAccumulator(str(logs / "reinit")).Reload().Scalars("group/value")) == 1


def test_findings_without_rows_and_figures_write_nothing(tmp_path):
    assert outputs.write(tmp_path, "made_up", Findings("text")) == list(tmp_path.iterdir()) == []


def test_recorded_networks_are_what_was_trained(made):
    networks = recorded.networks(made / "two")
    assert [(n.result.replicate, n.result.level, n.result.arm) for n in networks] == [
        (replicate, *network)
        for replicate in (1, 2)
        for network in [(0, "ticket"), (1, "ticket"), (1, "reinit"), (2, "ticket"), (2, "reinit")]
    ]
    last = networks[-1]
    mask = last.mask()
    assert list(mask) == ["fc1/kernel", "output/kernel"]  # the network's order
    assert sum(map(lambda a: a.sum(), mask.values())) / (64 * 16 + 160) == pytest.approx(last.result.density)
    for weights in (last.start(), last.end()):
        assert not weights["fc1/kernel"][~mask["fc1/kernel"]].any()
    assert last.history().early_stop_step == last.result.early_stop_step
    assert 0 < last.result.final_training_accuracy <= 1
