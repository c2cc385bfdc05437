"""Studies: the table and figures of several experiments, and the command that runs them."""

import dataclasses
import pathlib
import runpy

import numpy as np
import pytest
from matplotlib.colors import to_hex

from tf_lottery import cli
from tf_lottery.analysis.figures.studies import plot_side_by_side, plot_together
from tf_lottery.analysis.studies import table
from tf_lottery.experiments import config as config_module
from tf_lottery.training import recorded, runs
from tf_lottery.training.history import Result

CONFIGS = pathlib.Path(__file__).parent.parent / "configs"


def row(level, step, accuracy, arm="ticket", *, cost=0, replicate=1):
    accuracies = (accuracy, 0.1, accuracy, accuracy)
    return Result(replicate, level, arm, 0.8**level, step, *accuracies, 1000, search_steps=cost)


def search(drop, cost, arm="reinit"):
    """Two levels with a control; one point of accuracy is lost per level and unit of `drop`."""
    tickets = [row(n, 700 - 100 * n, 0.97 - 0.01 * n * drop, cost=n * cost) for n in (0, 1, 2)]
    return [*tickets, *(row(n, 900, 0.9, arm, cost=n * cost) for n in (1, 2))]


STUDY = {"iterative": search(0, 1000), "one-shot": search(1, 0)[:-1], "random": search(5, 0, "shuffle")}


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_table_compares_at_the_sparsest_level_that_all_have():
    text = table({**STUDY, "dense": [row(0, 700, 0.97)]}).splitlines()
    assert "level 0, 100.00 % of the weights kept" in text[0]
    text = table(STUDY).splitlines()
    assert "level 2, 64.00 % of the weights kept" in text[0]
    assert text[1].split("  ")[-1] == "search steps"
    rows = {line.split()[0]: line.split()[1:] for line in text[2:]}
    assert rows == {
        "iterative": ["700", "97.00", "64.00", "64.00", "500", "97.00", "90.00", "-", "2,000"],
        "one-shot": ["700", "97.00", "-", "-", "500", "95.00", "-", "-", "0"],
        "random": ["700", "97.00", "-", "-", "500", "87.00", "-", "90.00", "0"],
    }


def test_densities_that_differ_at_that_level_are_told():
    denser = [dataclasses.replace(result, density=0.9**result.level) for result in STUDY["random"]]
    text = table({**STUDY, "random": denser}).splitlines()[0]
    assert text.endswith("level 2, 64.00 to 81.00 % of the weights kept")


def test_the_table_explains_its_marks():
    results = [row(n, 1000, 0.97, replicate=replicate) for n in (0, 1) for replicate in (1, 2)]
    assert table({"late": results}).splitlines()[-2:] == [
        "Means over 2 replicates.",
        "> not reached: validation loss was still falling when training ended.",
    ]


@pytest.mark.parametrize("function", [table, plot_side_by_side, plot_together])
def test_nothing_to_compare(function):
    with pytest.raises(ValueError, match="at least one experiment. Received: none"):
        function({})
    with pytest.raises(ValueError, match="dense network in each experiment. 'b' has none"):
        function({"a": STUDY["random"], "b": STUDY["random"][1:]})


def test_side_by_side_each_experiment_has_two_panels_and_the_others_axes():
    figure = plot_side_by_side(STUDY)
    above, below = figure.axes[:3], figure.axes[3:]
    assert [axes.get_title() for axes in figure.axes] == [*STUDY, "", "", ""]
    for panels, name, label in (
        (above, "test_accuracy_at_early_stop", "test accuracy (%)"),
        (below, "early_stop_step", "early-stop step"),
    ):
        assert [axes.get_ylabel() for axes in panels] == [label, "", ""]
        assert len({(*axes.get_xlim(), *axes.get_ylim()) for axes in panels}) == 1
        scale = 100 if panels is above else 1
        for axes, results in zip(panels, STUDY.values(), strict=True):
            drawn = lines(axes)
            np.testing.assert_allclose(drawn["ticket"].get_xdata(), [100, 80, 64])
            expected = [scale * getattr(result, name) for result in results if result.arm == "ticket"]
            np.testing.assert_allclose(drawn["ticket"].get_ydata(), expected)
            assert drawn["ticket"].get_linestyle() == "-"
            np.testing.assert_allclose(drawn["dense"].get_xydata(), [[100, expected[0]]])
            # All points are within the axes that all share.
            assert axes.get_ylim()[0] < min(expected) <= max(expected) < axes.get_ylim()[1]


def test_side_by_side_a_control_looks_the_same_in_all_panels():
    figure = plot_side_by_side(STUDY)
    assert legend(figure) == ["ticket", "reinit", "dense", "shuffle"]
    reinit, none, shuffle = (lines(axes) for axes in figure.axes[:3])
    assert list(reinit["reinit"].get_ydata()) == [90, 90]
    assert "shuffle" not in reinit and "reinit" not in shuffle
    looks = {
        (drawn[name].get_color(), drawn[name].get_marker())
        for drawn, name in ((reinit, "reinit"), (none, "reinit"), (shuffle, "shuffle"))
    }
    assert len(looks) == 2
    assert {drawn.get_linestyle() for drawn in (reinit["reinit"], shuffle["shuffle"])} == {"--"}


@pytest.mark.parametrize(("count", "columns"), [(1, 1), (5, 5), (6, 3), (7, 4), (10, 5), (11, 4)])
def test_side_by_side_more_than_five_go_on_below(count, columns):
    study = {f"experiment_{index}": STUDY["random"] for index in range(count)}
    figure = plot_side_by_side(study)
    figure.canvas.draw()
    titled = [axes for axes in figure.axes if axes.get_title()]
    assert sorted(axes.get_title() for axes in titled) == sorted(study)
    assert len(figure.axes) == 2 * count
    assert len({round(axes.get_position().x0, 6) for axes in titled}) == columns
    # Neither titles of neighbours nor the labels of an axis touch.
    rows = {}
    for axes in titled:
        rows.setdefault(round(axes.get_position().y0, 6), []).append(axes.title.get_window_extent())
    for axes in figure.axes:
        labels = [label for label in axes.get_xticklabels() if label.get_visible()]
        rows[axes] = [label.get_window_extent() for label in labels]
    for boxes in rows.values():
        boxes.sort(key=lambda box: box.x0)
        assert all(left.x1 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_together_each_experiment_is_a_line_of_its_own():
    figure = plot_together(STUDY)
    steps, accuracies, _ = figure.axes
    assert [axes.get_title() for axes in figure.axes] == [
        "Early stop",
        "Test accuracy at early stop",
        "Test accuracy at early stop: level 2, 64.00 % of the weights kept",
    ]
    assert legend(figure) == [*STUDY, "dense"]
    for axes in (steps, accuracies):
        assert axes.get_xlabel() == "weights kept (%)"
        assert [name for name in lines(axes) if not name.startswith("_")] == list(STUDY)
    for index, name in enumerate(STUDY):
        np.testing.assert_allclose(lines(steps)[name].get_xydata(), [[100, 700], [80, 600], [64, 500]])
        expected = [97 - 1 * n * (0, 1, 5)[index] for n in (0, 1, 2)]
        np.testing.assert_allclose(lines(accuracies)[name].get_ydata(), expected)


def test_together_accuracy_against_cost():
    axes = plot_together(STUDY).axes[2]
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "training steps spent to find the mask",
        "test accuracy (%)",
    )
    assert axes.get_xscale() == "symlog"
    points = {name: lines(axes)[name].get_xydata()[0] for name in STUDY}
    np.testing.assert_allclose(points["iterative"], [2000, 97])
    # Those that cost nothing stand to the left and right of 0.
    assert points["one-shot"][0] == pytest.approx(-points["random"][0]) and points["one-shot"][0] < 0
    left, right = axes.get_xlim()
    assert left < points["one-shot"][0] and points["iterative"][0] < right
    assert set(lines(axes)["dense"].get_ydata()) == {97}


def test_together_the_panel_of_costs_is_left_out_where_all_are_the_same():
    study = {name: search(drop, 0) for drop, name in enumerate("abc")}
    assert len(plot_together(study).axes) == 2


def test_together_ten_experiments_can_be_told_apart():
    study = {f"experiment_{index}": search(index, index) for index in range(10)}
    drawn = lines(plot_together(study).axes[0])
    looks = {(drawn[name].get_color(), drawn[name].get_linestyle()) for name in study}
    assert len(looks) == len({drawn[name].get_marker() for name in study}) == 10


def test_together_bars_span_the_replicates_and_stand_beside_each_other():
    study = {
        name: [row(n, step + shift, 0.9, replicate=r) for n in (0, 1) for r, step in enumerate((200, 700))]
        for name, shift in (("a", 0), ("b", 10))
    }
    figure = plot_together(study)
    assert figure.get_suptitle() == "Tickets of all experiments: mean and range of 2 replicates"
    axes = figure.axes[0]
    places = []
    for container, (low, high) in zip(axes.containers, ((200, 700), (210, 710)), strict=True):
        bar = container.lines[2][0].get_segments()[0]
        np.testing.assert_allclose(bar[:, 1], [low, high])
        places.append(bar[0, 0])
    # Dense is at the left, and the first experiment to the left of the second.
    left, right = axes.get_xlim()
    assert left > places[0] > 100 > places[1] > right
    np.testing.assert_allclose(places[0] * places[1], 100**2)


def test_accuracies_near_100_and_near_0_have_room_on_one_axis():
    results = [row(0, 700, 1.0), row(1, 700, 0.99), row(2, 700, 0.9), row(3, 700, 0.1)]
    for axes in (plot_side_by_side({"a": results}).axes[0], plot_together({"a": results}).axes[1]):
        axes.figure.canvas.draw()
        heights = axes.transAxes.inverted().transform(
            axes.transData.transform(lines(axes)["ticket" if "ticket" in lines(axes) else "a"].get_xydata())
        )[:, 1]
        assert (np.diff(heights) < -0.2).all() and 0 < heights[-1] < heights[0] < 1
        labels = [label.get_text() for label in axes.get_yticklabels()]
        assert {"50", "90", "99"} <= set(labels)


def test_early_stops_not_reached_are_hollow():
    figure = plot_together({"a": [row(0, 700, 0.97), row(1, 1000, 0.97)]})
    assert legend(figure) == ["a", "early stop not reached"]
    hollow = lines(figure.axes[0])["_hollow"]
    assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
    np.testing.assert_allclose(hollow.get_xydata(), [[80, 1000]])


@pytest.fixture
def study(tmp_path, monkeypatch):
    """A config file of two small experiments, one of each flavour; the first words to run it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "both.py").write_text(
        "from tf_lottery.experiments.config import *\n"
        "def get_config():\n"
        "    train = TrainConfig(steps=40, eval_every_steps=10)\n"
        "    prune = PruneConfig(levels=1)\n"
        "    network = NetworkConfig('mlp:16')\n"
        "    return {flavour: ExperimentConfig(network=network, train=train, prune=prune, flavour=flavour)\n"
        "            for flavour in ('tf_keras', 'keras')}\n"
    )
    return ["run", "--config=both.py", "--workdir=run"]


def trained(workdir, name):
    return [(r.replicate, r.level, r.arm) for r in recorded.results(workdir / name)]


@pytest.mark.usefixtures("no_xla")
def test_a_study_runs_goes_on_and_is_compared(study, tmp_path, capsys, monkeypatch):
    workdir = tmp_path / "run"
    assert cli.main([*study, "--config.controls="]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith(
        "A study of 2 experiments, 4 networks: tf_keras, keras.\n\ntf_keras: mlp:16 on digits"
    )
    assert f"Results go to {pathlib.Path('run', 'keras')}.\n" in out
    assert out.count("of the weights kept\n") == 1 and out.endswith(" --logdir run\n")
    for name in ("tf_keras", "keras"):
        assert trained(workdir, name) == [(1, 0, "ticket"), (1, 1, "ticket")]
        assert (workdir / name / "figures" / "search.png").is_file()
    assert sorted(file.name for file in (workdir / "figures").iterdir()) == [
        "side_by_side.png",
        "side_by_side.svg",
        "together.png",
        "together.svg",
    ]
    assert sorted(path.name for path in workdir.iterdir()) == ["figures", "keras", "tensorboard", "tf_keras"]

    saved = []
    save = runs.ReplicateStore.save
    monkeypatch.setattr(
        runs.ReplicateStore,
        "save",
        lambda self, network: (saved.append(network.start.arm), save(self, network)),
    )
    assert cli.main(study) == 0  # which has a control more
    assert saved == ["reinit", "reinit"]
    assert capsys.readouterr().out.count("networks done already: 2.") == 2
    assert trained(workdir, "keras") == [(1, 0, "ticket"), (1, 1, "ticket"), (1, 1, "reinit")]


def test_all_experiments_are_checked_before_the_first_is_run(study, tmp_path, capsys):
    runs.RunDirectory(tmp_path / "run" / "keras", {"train": {"steps": 9}}).open()
    assert cli.main(study) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("tf-lottery: 'run/keras' belongs to a run with another config:")
    assert not (tmp_path / "run" / "tf_keras").exists()


def test_names_that_cannot_be_folders_are_refused(study, tmp_path, capsys):
    text = (tmp_path / "both.py").read_text()
    (tmp_path / "both.py").write_text(text.replace("{flavour:", "{flavour.title():"))
    assert cli.main(study) == 1
    assert capsys.readouterr().err.endswith("Received 'Tf_Keras'.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["initializers", "cheap_tickets"])
def test_the_studies_here_compare_equal_networks_and_data(name):
    study = runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"]()
    assert len(study) > 8
    varied = {"initializers": "network", "cheap_tickets": "prune"}[name]
    rest = []
    for config in study.values():
        config_module.validate(config)
        entries = config_module.entries_of(config)
        rest.append({key: value for key, value in entries.items() if key != varied})
    assert all(entries == rest[0] for entries in rest)
    assert len({str(getattr(config, varied)) for config in study.values()}) == len(study)


@pytest.mark.usefixtures("no_xla")
def test_cheap_tickets_cost_what_their_methods_take(tmp_path, capsys):
    words = [
        "network.name=mlp:16",
        "train.steps=160",
        "train.eval_every_steps=40",
        "prune.levels=1",
        "controls=",
    ]
    study = ["run", f"--config={CONFIGS / 'cheap_tickets.py'}", f"--workdir={tmp_path}"]
    assert cli.main([*study, *(f"--config.{word}" for word in words)]) == 0
    costs = {}
    for folder in tmp_path.glob("*/replicate_1"):
        results = [result for result in recorded.results(folder.parent) if result.arm == "ticket"]
        costs[folder.parent.name] = [result.search_steps for result in results]
        np.testing.assert_allclose([result.density for result in results], [1, 0.81], atol=0.01)
    assert costs["early_bird"][1] in range(80, 161, 16)  # at the end of the fifth epoch at the earliest
    assert costs == {
        "iterative": [0, 160],
        "short_training": [0, 150],
        "one_shot": [0, 160],
        "early_bird": [0, costs["early_bird"][1]],
        **dict.fromkeys(("large_init", "snip", "grasp", "synflow", "random"), [0, 0]),
    }
    assert capsys.readouterr().out.count("of the weights kept") == 1
