"""The figure of connections, and the counts that it draws."""

import numpy as np
import pytest
import run_by_hand
from matplotlib.colors import to_hex

from tf_lottery.analysis import connections
from tf_lottery.analysis.figures import levels
from tf_lottery.analysis.figures.connections import draw_counts, plot_connections
from tf_lottery.analysis.figures.style import new_figure

RNG = np.random.default_rng(0)


@pytest.fixture
def make(tmp_path):
    """Writes a run of masks, given by replicate and level."""

    def write(masks):
        networks = []
        for (replicate, level), mask in masks.items():
            weights = {path: np.ones(array.shape) for path, array in mask.items()}
            networks.append((replicate, run_by_hand.trained(level, mask, weights, weights)))
        return run_by_hand.write(tmp_path / "run", networks)

    return write


def keep(mask, share):
    return {path: array & (RNG.random(array.shape) < share) for path, array in mask.items()}


def places(figure):
    """Title -> axes of the panels above."""
    return {axes.get_title(): axes for axes in figure.axes if axes.get_title().endswith("kept")}


def test_counts_of_a_dense_kernel():
    mask = np.array([[1, 1, 0], [0, 1, 0]], bool)
    assert list(connections.incoming("fc/kernel", mask)) == [1, 2, 0]
    assert list(connections.outgoing(mask)) == [2, 1]


def test_counts_of_a_convolution():
    mask = np.zeros((3, 3, 2, 4), bool)
    mask[0, 0, 0, 1] = mask[2, 1, 0, 1] = mask[0, 0, 1, 3] = True
    assert list(connections.incoming("conv/kernel", mask)) == [0, 2, 0, 1]
    assert list(connections.outgoing(mask)) == [2, 1]
    np.testing.assert_array_equal(connections.by_position(mask), [[2, 0, 0], [0, 0, 0], [0, 1, 0]])
    assert list(connections.by_position(mask[0])) == [2, 0, 0]  # along one axis


def test_each_channel_of_a_depthwise_convolution_has_filters_of_its_own():
    mask = np.zeros((3, 3, 2, 2), bool)
    mask[:, 0, 0, 1] = mask[1, 1, 1, 0] = True
    assert list(connections.incoming("dw/depthwise_kernel", mask)) == [0, 3, 1, 0]
    assert list(connections.outgoing(mask)) == [3, 1]


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [(64, (8, 8)), (784, (28, 28)), (3072, (32, 32)), (192, (8, 8)), (63, (63,)), (25, (25,)), (128, (128,))],
)
def test_inputs_that_are_an_image(inputs, shape):
    mask = np.arange(inputs)[:, None] % 5 > np.arange(5)
    counts = connections.by_position(mask)
    assert counts.shape == shape and counts.sum() == mask.sum()


def test_channels_are_summed_and_pixels_in_rows():
    mask = np.zeros((8, 8, 3, 10), bool)
    mask[2, 5, :2] = True
    expected = np.zeros((8, 8))
    expected[2, 5] = 20
    np.testing.assert_array_equal(connections.by_position(mask.reshape(192, 10)), expected)


def test_images_hold_the_kept_weights_of_each_pixel(make):
    dense = {"fc1/kernel": np.ones((64, 12), bool), "output/kernel": np.ones((12, 3), bool)}
    half = keep(dense, 0.5)
    run = make({(1, 0): dense, (1, 1): half, (1, 2): keep(half, 0.5)})
    figure = plot_connections(run)
    panels = places(figure)
    assert list(panels) == [f"{levels.percent(100 * network.result.density)} kept" for network in run[1:]]
    for network, axes in zip(run[1:], panels.values(), strict=True):
        (image,) = axes.get_images()
        np.testing.assert_array_equal(image.get_array(), network.mask()["fc1/kernel"].sum(1).reshape(8, 8))
        assert image.get_clim()[0] == 0
    assert [text.get_text() for text in figure.legends[0].get_texts()] == list(panels)


def test_images_are_means_over_replicates(make):
    dense = {"fc1/kernel": np.ones((64, 2), bool)}
    one, both = np.zeros((64, 2), bool), np.zeros((64, 2), bool)
    one[3], both[3], both[9] = True, True, True
    run = make({(1, 0): dense, (2, 0): dense, (1, 1): {"fc1/kernel": one}, (2, 1): {"fc1/kernel": both}})
    figure = plot_connections(run)
    assert figure.get_suptitle() == "Connections that are kept: those of 2 replicates"
    (axes,) = places(figure).values()
    expected = np.zeros(64)
    expected[[3, 9]] = 2, 1
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), expected.reshape(8, 8))


def test_inputs_that_are_no_image_are_bars(make):
    dense = {"fc1/kernel": np.ones((12, 10), bool)}
    kept = keep(dense, 0.5)
    (axes,) = places(plot_connections(make({(1, 0): dense, (1, 1): kept}))).values()
    np.testing.assert_array_equal([bar.get_height() for bar in axes.patches], kept["fc1/kernel"].sum(1))


def test_a_convolution_is_an_image_of_its_filters(make):
    dense = {"conv/kernel": np.ones((3, 3, 2, 8), bool), "output/kernel": np.ones((8, 3), bool)}
    kept = keep(dense, 0.5)
    (axes,) = places(plot_connections(make({(1, 0): dense, (1, 1): kept}))).values()
    np.testing.assert_array_equal(axes.get_images()[0].get_array(), kept["conv/kernel"].sum((2, 3)))


def test_units_are_counted_by_their_connections(make):
    dense = {"fc1/kernel": np.ones((4, 6), bool)}
    kept = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0], [0] * 6], bool)
    figure = plot_connections(make({(1, 0): dense, (1, 1): {"fc1/kernel": kept}}))
    into, out = figure.axes[-2:]
    assert (into.get_xlabel(), out.get_xlabel()) == (
        "kept weights into a unit",
        "kept weights out of an input",
    )
    # Into six units go 3, 2, 1, 0, 0, 0; out of four inputs 3, 2, 1, 0.
    for axes, percents in ((into, [50, 100 / 6, 100 / 6, 100 / 6]), (out, [25, 25, 25, 25])):
        (outline,) = axes.patches
        np.testing.assert_allclose(outline.get_data().edges, [-0.5, 0.5, 1.5, 2.5, 3.5])
        np.testing.assert_allclose(outline.get_data().values, percents)
        assert to_hex(outline.get_edgecolor()) == levels.shades([1])[1]


@pytest.mark.parametrize("counts", [[0, 0], [7], [0, 1, 1, 300], [40, 50], [1]])
def test_all_units_are_in_one_bin_each_within_the_axis(counts):
    with new_figure(3) as figure:
        axes = figure.subplots()
        draw_counts(axes, {"": np.array(counts)}, {"": {"color": "black"}})
        figure.draw_without_rendering()
    values, edges, _ = axes.patches[0].get_data()
    assert values.sum() == pytest.approx(100)
    left, right = axes.get_xlim()
    assert left < min(counts) and max(counts) < right
    assert (np.diff(edges) >= 1).all()


def test_empty_layers_and_vectors(make):
    dense = {
        "scale": np.ones(5, bool),
        "fc1/kernel": np.ones((4, 6), bool),
        "fc2/kernel": np.ones((6, 2), bool),
    }
    kept = keep(dense, 0.5) | {"fc2/kernel": np.zeros((6, 2), bool)}
    figure = plot_connections(make({(1, 0): dense, (1, 1): kept}))
    assert [axes.get_title() for axes in figure.axes[-4:-2]] == ["fc1/kernel", "fc2/kernel"]
    np.testing.assert_allclose(figure.axes[-1].patches[0].get_data().values, [100])
    figure.draw_without_rendering()


def test_what_has_no_connections_to_show(make, tmp_path):
    dense = {"scale": np.ones(5, bool)}
    run = make({(1, 0): dense, (1, 1): {"scale": np.arange(5) < 2}})
    with pytest.raises(levels.NothingToDraw, match="no kernel has inputs and units"):
        plot_connections(run)
    with pytest.raises(levels.NothingToDraw, match="no pruned network is trained yet"):
        plot_connections(run[:1])
