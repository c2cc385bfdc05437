"""The command `tf-lottery plot`."""

import json
import math
import shutil

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
import run_by_hand

import tf_lottery
from tf_lottery.experiments import commands
from tf_lottery.experiments.analyses import plot
from tf_lottery.training.recorded import RunDirectoryError

NAMES = ["search", "curves", "weights", "movement", "connections", "layers"]


def look(*words):
    """Carries out the command; returns the texts and the names of what was written."""
    workdirs, options = commands.parse("plot", list(map(str, words)))
    texts, written = zip(*commands.look("plot", workdirs, options), strict=True)
    return texts, [path.name for paths in written for path in paths]


def network(level, arm="ticket", replicate=1):
    rng = np.random.default_rng(level)
    weights = {"fc1/kernel": rng.normal(size=(16, 8)), "output/kernel": rng.normal(size=(8, 3))}
    mask = {path: abs(array) > 0.2 * level for path, array in weights.items()}
    ends = {path: array + 0.1 for path, array in weights.items()}
    return replicate, run_by_hand.trained(level, mask, weights, ends, arm=arm)


@pytest.fixture
def workdir(tmp_path):
    run_by_hand.write(tmp_path / "run", [network(0), network(1), network(1, "reinit"), network(2)])
    return tmp_path / "run"


def test_the_flag_names_all_figures():
    assert list(plot.FIGURES) == NAMES == list(commands.COMMANDS["plot"].options["figures"].default)


def test_all_figures_are_written_as_png_and_svg(workdir):
    before = dict(matplotlib.rcParams)
    (text,), written = look(workdir)
    assert written == [f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")]
    assert sorted(path.name for path in (workdir / "figures").iterdir()) == sorted(written)
    assert (workdir / "figures/layers.png").read_bytes().startswith(b"\x89PNG")
    assert [line.split()[0] for line in text.splitlines()] == NAMES
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_some_figures(workdir):
    (text,), written = look(workdir, "--figures=layers,search")
    assert written == ["search.png", "search.svg", "layers.png", "layers.svg"]
    assert text.splitlines() == [
        "search        early-stop step and accuracies against density",
        "layers        density of each layer against that of all",
    ]


def test_a_figure_that_there_is_not(workdir):
    with pytest.raises(
        ValueError, match="Unknown figure 'curve'. Did you mean 'curves'\\? There are: search, "
    ):
        look(workdir, "--figures=search,curve")
    assert not (workdir / "figures").exists()


def test_an_unfinished_run_has_the_figures_that_it_has_networks_for(tmp_path):
    run_by_hand.write(tmp_path, [network(0)])
    findings = plot.analyze(tmp_path)
    assert list(findings.figures) == ["search", "curves", "weights"]
    assert findings.text.splitlines()[3:] == [
        "movement      not drawn: no pruned network is trained yet",
        "connections   not drawn: no pruned network is trained yet",
        "layers        not drawn: no pruned network is trained yet",
    ]
    shutil.rmtree(tmp_path / "replicate_1")
    assert plot.analyze(tmp_path) == plot.Findings("No network is trained yet.")
    assert plot.compare({"a": tmp_path}).text == "No network is trained yet."


def test_networks_that_were_trained_to_find_a_mask_are_not_drawn(tmp_path):
    run_by_hand.write(tmp_path, [network(0, "search")])
    assert plot.analyze(tmp_path).text == "No network is trained yet."
    run_by_hand.write(tmp_path, [network(2)])
    findings = plot.analyze(tmp_path)
    assert list(findings.figures) == ["search", "curves", "weights"]
    mask = network(2)[1].start.mask
    (entry,) = findings.figures["curves"].legends[0].get_texts()
    assert entry.get_text() == f"{100 * tf_lottery.density(mask):.3g} % kept"


def test_a_damaged_file_is_named(workdir):
    (workdir / "replicate_1/level_01/ticket/start.safetensors").write_bytes(b"damaged")
    with pytest.raises(RunDirectoryError, match="level_01/ticket/start.safetensors"):
        plot.analyze(workdir)


def test_runs_are_held_against_each_other_too(workdir, tmp_path):
    run_by_hand.write(tmp_path / "other", [network(0), network(1)])
    texts, written = look(workdir, tmp_path / "other", "--figures=layers")
    assert len(texts) == 3 and [line.split()[0] for line in texts[2].splitlines()] == [
        "side_by_side",
        "together",
    ]
    assert written[4:] == ["side_by_side.png", "side_by_side.svg", "together.png", "together.svg"]
    assert (tmp_path / "figures/together.svg").exists()


def test_the_workdir_of_find_ticket_and_its_ticket(make_model, no_xla, tmp_path):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 8)).astype("float32"), rng.integers(0, 3, 64)
    ticket = tf_lottery.find_ticket(
        make_model(),
        x,
        y,
        steps=20,
        levels=2,
        eval_every=5,
        controls=("reinit",),
        workdir=tmp_path,
        verbose=0,
    )
    findings = plot.analyze(tmp_path)
    assert list(findings.figures) == NAMES
    titles = [axes.get_title() for axes in findings.figures["search"].axes]
    assert titles == ["Early stop", "Validation accuracy at the end", "Training accuracy at the end"]
    shown = json.loads((tmp_path / f"replicate_1/level_{ticket.level:02}/ticket/result.json").read_text())
    (training,) = (row["final_training_accuracy"] for row in ticket.history if row["level"] == 0)
    drawn = findings.figures["search"].axes[2].get_lines()[0].get_ydata()
    assert drawn[0] == pytest.approx(100 * training)
    assert drawn[ticket.level] == pytest.approx(100 * shown["final_training_accuracy"])
    assert not any(map(math.isnan, drawn))
    names = ["fc1/kernel", "fc2/kernel", "output/kernel"]
    assert [axes.get_title() for axes in ticket.plot().axes][3:] == names * 2
