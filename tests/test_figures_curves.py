"""The figure of training curves."""

import math

import numpy as np
import pytest
import run_by_hand
from matplotlib.colors import to_hex

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.curves import plot_curves

NAN = math.nan
SOLID = "-"


@pytest.fixture
def make(tmp_path):
    """Writes a run of (replicate, level, arm, history); the density of level n is 1 / (n + 1)."""

    def write(*networks):
        made = []
        for replicate, level, arm, history in networks:
            mask = {"fc/kernel": np.arange(60).reshape(1, 60) < 60 // (level + 1)}
            weights = {"fc/kernel": np.ones((1, 60))}
            made.append(
                (replicate, run_by_hand.trained(level, mask, weights, weights, arm=arm, curves=history))
            )
        return run_by_hand.write(tmp_path / "run", made)

    return write


def drawn(axes):
    """(color, is it solid) -> line, of those that have points."""
    return {
        (to_hex(line.get_color()), line.get_linestyle() == SOLID): line
        for line in axes.get_lines()
        if len(line.get_xdata())
    }


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lines_hold_the_curves_of_tickets_and_control(make):
    run = make(
        (1, 0, "ticket", run_by_hand.history(0.9)),
        (1, 1, "ticket", run_by_hand.history(0.95)),
        (1, 1, "reinit", run_by_hand.history(0.8)),
    )
    figure = plot_curves(run)
    assert figure.get_suptitle() == "Training of tickets and controls"
    assert legend(figure) == ["dense", "50 % kept", "ticket", "control"]
    accuracy, loss = figure.axes
    assert accuracy.get_title() == "Test accuracy: ticket and reinit"
    assert (accuracy.get_ylabel(), loss.get_ylabel()) == ("test accuracy (%)", "validation loss")
    assert accuracy.get_xlabel() == loss.get_xlabel() == "training step"
    shades = levels.shades([0, 1])
    lines = drawn(accuracy)
    assert lines.keys() == {(shades[0], True), (shades[1], True), (shades[1], False)}
    for key, end in (((shades[0], True), 90), ((shades[1], True), 95), ((shades[1], False), 80)):
        assert list(lines[key].get_xdata()) == run_by_hand.STEPS
        np.testing.assert_allclose(lines[key].get_ydata(), [10, end, end, end])
        np.testing.assert_allclose(drawn(loss)[key].get_ydata(), [2, 1, 0.75, 0.5])


def test_the_vertical_axes_leave_out_the_first_steps(make):
    steps = range(0, 1010, 10)
    rising = np.r_[0.1, np.linspace(0.8, 0.98, 10), np.full(90, 0.98)]
    falling = np.r_[2.3, np.linspace(1.0, 0.1, 10), np.full(90, 0.1)]
    curves = run_by_hand.history(steps=steps, **{"test/accuracy": rising, "validation/loss": falling})
    accuracy, loss = plot_curves(make((1, 0, "ticket", curves))).axes
    low, high = accuracy.get_ylim()
    assert 10 < low < 98 < high
    low, high = loss.get_ylim()
    assert low < 0.1 < high < 2.3


def test_a_control_that_learns_nothing_does_not_flatten_the_others(make):
    run = make(
        *((1, level, "ticket", run_by_hand.history(0.97 + level / 500)) for level in (0, 1, 2)),
        (1, 2, "reinit", run_by_hand.history(0.1)),
    )
    low, high = plot_curves(run).axes[0].get_ylim()
    assert 90 < low < 97 < 97.4 < high < 98


def test_a_control_that_is_trained_longer_goes_beyond_the_panel(make):
    longer = run_by_hand.history(0.8, steps=[0, 10, 20, 30, 300])
    axes = plot_curves(
        make(
            (1, 0, "ticket", run_by_hand.history()),
            (1, 1, "ticket", run_by_hand.history()),
            (1, 1, "reinit", longer),
        )
    ).axes[0]
    assert 30 < axes.get_xlim()[1] < 35
    (control,) = (line for (_, solid), line in drawn(axes).items() if not solid)
    assert control.get_xdata()[-1] == 300


def test_replicates_are_a_mean_in_a_band(make):
    run = make(*((r, 0, "ticket", run_by_hand.history(0.9 + r / 100)) for r in (1, 2, 3)))
    figure = plot_curves(run)
    assert figure.get_suptitle() == "Training of tickets: mean and range of 3 replicates"
    assert legend(figure) == ["dense"]
    axes = figure.axes[0]
    (line,) = drawn(axes).values()
    np.testing.assert_allclose(line.get_ydata(), [10, 92, 92, 92])
    (band,) = axes.collections
    heights = band.get_paths()[0].vertices
    at_the_end = heights[heights[:, 0] == 30][:, 1]
    np.testing.assert_allclose([at_the_end.min(), at_the_end.max()], [91, 93])


def test_one_replicate_has_no_band(make):
    assert all(
        not axes.collections for axes in plot_curves(make((1, 0, "ticket", run_by_hand.history()))).axes
    )


def test_gaps_are_bridged_and_what_was_measured_has_dots(make):
    gaps = run_by_hand.history(**{"test/accuracy": [0.1, 0.8, NAN, 0.9]})
    other = run_by_hand.history(**{"test/accuracy": [0.1, 0.6, 0.7, 0.7]})
    accuracy, loss = plot_curves(make((1, 0, "ticket", gaps), (2, 0, "ticket", other))).axes
    (line,) = drawn(accuracy).values()
    assert list(line.get_xdata()) == [0, 10, 30]  # where both replicates have one
    np.testing.assert_allclose(line.get_ydata(), [10, 70, 80])
    assert line.get_marker() == "."
    (line,) = drawn(loss).values()
    assert line.get_marker() == "None"


def test_without_test_data_and_without_accuracies(make, tmp_path):
    validated = run_by_hand.history(0.9, **{"test/accuracy": [NAN] * 4})
    axes = plot_curves(make((1, 0, "ticket", validated))).axes
    assert [a.get_ylabel() for a in axes] == ["validation accuracy (%)", "validation loss"]
    (line,) = drawn(axes[0]).values()
    np.testing.assert_allclose(line.get_ydata(), [10, 80, 80, 80])
    regression = run_by_hand.history()
    regression.curves = {"validation/loss": regression.curves["validation/loss"]}
    (axes,) = plot_curves(make((1, 0, "ticket", regression))).axes
    assert axes.get_ylabel() == "validation loss"


def test_each_control_has_a_row_and_all_rows_the_same_axes(make):
    run = make(
        *((1, n, "ticket", run_by_hand.history(0.9)) for n in (0, 1)),
        (1, 1, "shuffle", run_by_hand.history(0.7)),
        (1, 1, "reinit", run_by_hand.history(0.8)),
    )
    figure = plot_curves(run)
    titles = [axes.get_title() for axes in figure.axes[::2]]
    assert titles == ["Test accuracy: ticket and reinit", "Test accuracy: ticket and shuffle"]
    assert figure.axes[0].get_ylim() == figure.axes[2].get_ylim()
    for axes, end in zip(figure.axes[::2], (80, 70), strict=True):
        (control,) = (line for (_, solid), line in drawn(axes).items() if not solid)
        assert control.get_ydata()[-1] == pytest.approx(end)


def test_densities_are_few_and_spread_over_those_with_controls(make):
    every = [(1, n, "ticket", run_by_hand.history()) for n in range(12)]
    assert legend(plot_curves(make(*every))) == [
        "dense",
        "25 % kept",
        "13.3 % kept",
        "10 % kept",
        "8.33 % kept",
    ]
    some = [(1, n, "reinit", run_by_hand.history()) for n in (1, 4, 5, 9)]
    assert legend(plot_curves(make(*every, *some)))[:-2] == [
        "dense",
        "50 % kept",
        "20 % kept",
        "16.7 % kept",
        "10 % kept",
    ]


def test_the_dense_network_is_black_and_the_others_are_ordered():
    shades = levels.shades([0, 3, 9, 12])
    reds = [int(shades[n][1:3], 16) for n in (3, 9, 12)]
    assert shades[0] == levels.BLACK and reds == sorted(reds)


def test_no_ticket():
    with pytest.raises(levels.NothingToDraw, match="no ticket is trained yet"):
        plot_curves([])
