"""The figures of weights, of how far they move, and of layers."""

import math

import numpy as np
import pytest
import run_by_hand
from matplotlib.colors import to_hex

from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.layers import plot_layers
from tf_lottery.analysis.figures.movement import moves, plot_movement
from tf_lottery.analysis.figures.weights import plot_weights

RNG = np.random.default_rng(0)
FIRST, SECOND = "fc1/kernel", "fc2/kernel"


def masks(level, cut=0.5, replicate=1):
    """Keeps in fc1 the first half of what was left, in fc2 the first 0.9; every replicate the same number."""
    left = {FIRST: int(400 * cut**level), SECOND: int(40 * 0.9**level)}
    return {path: np.arange(of).reshape(-1, 10) < left[path] for path, of in ((FIRST, 400), (SECOND, 40))}


def network(level, replicate=1, arm="ticket", mask=None, step=0.5):
    """What is kept moves from `level` + 0..1 by `step`; all replicates have other numbers."""
    mask = mask or masks(level)
    rng = np.random.default_rng([level, replicate])
    start = {path: level + rng.random(array.shape) for path, array in mask.items()}
    end = {path: array + step for path, array in start.items()}
    return replicate, run_by_hand.trained(level, mask, start, end, arm=arm)


@pytest.fixture
def make(tmp_path):
    return lambda *networks: run_by_hand.write(tmp_path / "run", networks)


def outlines(axes):
    """color -> (shares, edges) of the histograms in a panel."""
    return {to_hex(patch.get_edgecolor()): patch.get_data() for patch in axes.patches}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_histogram_has_an_area_of_one_and_the_bins_of_rices_rule():
    shares, edges = levels.histogram(RNG.normal(size=1000))
    assert len(shares) == 20
    # One value on either side lies outside.
    assert (shares * np.diff(edges)).sum() == pytest.approx(0.998)
    assert len(levels.histogram(np.ones(10**6))[0]) == 60


def test_a_histogram_of_few_equal_odd_or_no_values():
    for values in ([3.0], [2.0] * 9, [math.nan, 1.0, math.inf]):
        shares, edges = levels.histogram(np.array(values, np.float16))
        assert (shares * np.diff(edges)).sum() == pytest.approx(1)
        assert edges[0] < np.nanmin(values) < edges[-1]
    assert levels.histogram(np.array([math.nan]))[0].size == 0
    assert levels.histogram(np.zeros((0, 4)))[0].size == 0


def test_kept_weights_before_and_after_training(make):
    run = make(network(0), network(1))
    figure = plot_weights(run)
    assert legend(figure) == ["dense", "53.6 % kept"]
    panels = np.array(figure.axes).reshape(2, 2)
    assert [axes.get_title() for axes in panels[0]] == ["Weights before training", "Weights after training"]
    assert [axes.get_ylabel() for axes in panels[:, 0]] == [FIRST, SECOND]
    shades = levels.shades([0, 1])
    for row, path in zip(panels, (FIRST, SECOND), strict=True):
        for level in (0, 1):
            kept = masks(level)[path]
            for axes, arrays in zip(row, (run[level].start(), run[level].end()), strict=True):
                shares, edges = levels.histogram(arrays[path][kept])
                drawn = outlines(axes)[shades[level]]
                np.testing.assert_allclose(drawn.values, shares)
                np.testing.assert_allclose(drawn.edges, edges)
        before, after = (outlines(axes)[shades[1]].edges for axes in row)
        np.testing.assert_allclose(after - before, 0.5, atol=1e-6)


def test_weights_of_all_replicates_are_taken_together(make):
    run = make(network(0, 1), network(0, 2), network(1, 1))
    figure = plot_weights(run)
    assert figure.get_suptitle() == "Weights that are kept: those of 2 replicates"
    both = np.concatenate([recorded.start()[FIRST].ravel() for recorded in run if recorded.result.level == 0])
    np.testing.assert_allclose(outlines(figure.axes[0])[levels.BLACK].values, levels.histogram(both)[0])


def test_a_layer_that_is_empty_has_no_line(make):
    empty = masks(1) | {SECOND: np.zeros((4, 10), bool)}
    run = make(
        network(0), network(1, mask=empty), network(2, mask=masks(2) | {SECOND: np.zeros((4, 10), bool)})
    )
    panels = np.array(plot_weights(run).axes).reshape(2, 2)
    assert [len(axes.patches) for axes in panels.flat] == [3, 3, 1, 1]
    right = plot_movement(run).axes[3]
    kept, pruned = right.get_lines()
    assert np.isnan(kept.get_ydata()).all()
    np.testing.assert_allclose(pruned.get_ydata(), [0.5, np.nan], atol=1e-6)
    second = plot_layers(run).axes[0].get_lines()[1]
    np.testing.assert_array_equal(second.get_ydata(), [100, np.nan, np.nan])


def test_only_the_dense_network(make):
    run = make(network(0))
    figure = plot_weights(run)
    assert legend(figure) == ["dense"]
    assert all(outlines(axes).keys() == {levels.BLACK} for axes in figure.axes)
    for plot in (plot_movement, plot_layers):
        with pytest.raises(levels.NothingToDraw, match="no pruned network is trained yet"):
            plot(run)


def test_few_of_many_layers_and_levels_are_shown(make):
    wide = {f"block_{n}/kernel": np.ones((2, 2), bool) for n in range(12)}
    run = make(*(network(level, mask=wide) for level in range(9)))
    figure = plot_weights(run)
    labels = [axes.get_ylabel() for axes in figure.axes[::2]]
    assert labels == [f"block_{n}/kernel" for n in (0, 2, 4, 7, 9, 11)]
    assert len(legend(figure)) == 5


def test_movement_is_told_apart_by_what_is_pruned_afterwards(make):
    # The first half, which is kept, moves by 3, the rest by 1; in the second training all move by 2.
    kept, half = np.ones((2, 4), bool), np.array([[True] * 4, [False] * 4])
    quarter = np.array([[True, True, False, False], [False] * 4])
    start = {"fc/kernel": np.arange(8.0).reshape(2, 4)}
    run = make(
        (
            1,
            run_by_hand.trained(
                0, {"fc/kernel": kept}, start, {"fc/kernel": start["fc/kernel"] + np.where(half, -3, 1)}
            ),
        ),
        (
            1,
            run_by_hand.trained(
                1, {"fc/kernel": half}, start, {"fc/kernel": np.where(half, start["fc/kernel"] + 2, 0)}
            ),
        ),
        (1, run_by_hand.trained(2, {"fc/kernel": quarter}, start, start)),
    )
    first = moves(run[:1], run[2:], ["fc/kernel"])["fc/kernel"]
    np.testing.assert_array_equal(first["kept"], [3, 3])
    np.testing.assert_array_equal(np.sort(first["pruned"]), [1, 1, 1, 1, 3, 3])
    figure = plot_movement(run)
    left, right = figure.axes
    assert left.get_title() == "Training of the dense network: kept until 25 %"
    survived, gone = right.get_lines()
    np.testing.assert_allclose(survived.get_xdata(), [100, 50])
    np.testing.assert_allclose(survived.get_ydata(), [3, 2])
    np.testing.assert_allclose(gone.get_ydata(), [1, 2])
    assert (survived.get_linestyle(), gone.get_linestyle()) == ("-", "--")
    assert [patch.get_linestyle() for patch in left.patches] == ["-", "--"]
    assert left.patches[0].get_edgecolor() != left.patches[1].get_edgecolor()
    assert legend(figure) == ["kept afterwards", "pruned afterwards"]


def test_movement_of_replicates_needs_both_levels_of_each(make):
    run = make(network(0, 1, step=1.0), network(0, 2, step=9.0), network(1, 1))
    moved = moves(run[:1] + run[2:], run[1:2], [FIRST])[FIRST]
    np.testing.assert_allclose(np.concatenate(list(moved.values())), 1, atol=1e-5)
    assert [moved[fate].size for fate in ("kept", "pruned")] == [200, 200]


def test_movement_of_a_run_with_no_replicate_of_both_levels(make):
    run = make(network(0, 1), network(1, 2))
    for axes in plot_movement(run).axes[1::2]:
        assert all(np.isnan(line.get_ydata()).all() for line in axes.get_lines())


def test_density_of_each_layer(make):
    run = make(network(0), network(1), network(2))
    figure = plot_layers(run)
    first, second, diagonal = figure.axes[0].get_lines()
    assert [line.get_label() for line in (first, second, diagonal)] == [FIRST, SECOND, "all layers"]
    overall = [100, 100 * 236 / 440, 100 * 132 / 440]
    for line, percents in ((first, [100, 50, 25]), (second, [100, 90, 80]), (diagonal, overall)):
        np.testing.assert_allclose(line.get_xdata(), overall)
        np.testing.assert_allclose(line.get_ydata(), percents)
    assert first.get_linewidth() > second.get_linewidth()
    assert figure.axes[0].get_yscale() == figure.axes[0].get_xscale() == "log"
    assert figure.axes[0].get_xlim()[0] > figure.axes[0].get_xlim()[1]
    assert legend(figure) == [FIRST, SECOND, "all layers"]


def test_density_of_layers_over_replicates_that_are_not_all_done(make):
    other = masks(1) | {FIRST: np.arange(400).reshape(-1, 10) < 100}
    run = make(network(0, 1), network(0, 2), network(1, 1), network(1, 2, mask=other), network(2, 1))
    figure = plot_layers(run)
    assert figure.get_suptitle() == "Density of each layer: mean and range of 2 replicates"
    axes = figure.axes[0]
    np.testing.assert_allclose(axes.get_lines()[0].get_ydata(), [100, 37.5, 25])
    band = axes.collections[0].get_paths()[0].vertices
    at_one = band[np.isclose(band[:, 0], axes.get_lines()[0].get_xdata()[1])][:, 1]
    np.testing.assert_allclose([at_one.min(), at_one.max()], [25, 50])


def test_many_layers_have_a_legend_that_fits(make):
    wide = {f"backbone/stage_{n}/block_{n}/conv/kernel": np.ones((2, 2), bool) for n in range(50)}
    half = {path: np.eye(2) > 0 for path in wide}
    figure = plot_layers(make(network(0, mask=wide), network(1, mask=half)))
    figure.draw_without_rendering()
    box = figure.legends[0].get_window_extent()
    assert len(legend(figure)) == 51 and figure.get_size_inches()[1] < 10
    assert (
        figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1
        and figure.bbox.y0 <= box.y0 < box.y1 <= figure.bbox.y1
    )
    assert figure.axes[0].get_window_extent().width > 200
