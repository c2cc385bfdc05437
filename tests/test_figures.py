import math
import struct
from xml.etree import ElementTree

import matplotlib
import matplotlib.pyplot
import numpy as np
import pytest
from matplotlib.colors import to_hex

from tf_lottery.analysis.figures.search import plot_search
from tf_lottery.analysis.figures.style import save
from tf_lottery.training.history import Result

NAN = math.nan


def row(level, step, test=NAN, *, arm="ticket", validation=NAN, loss=0.1, replicate=1, end=NAN, training=NAN):
    numbers = (0.8**level, step, test, loss, end, validation, 1000)
    return Result(replicate, level, arm, *numbers, final_training_accuracy=training)


RESULTS = [
    row(0, 700, 0.967),
    row(1, 500, 0.970),
    row(2, 600, 0.960),
    row(1, 900, 0.95, arm="reinit"),
    row(2, 950, 0.93, arm="reinit"),
]


def lines(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_lines_hold_the_numbers_and_look_different():
    steps, accuracy = plot_search(RESULTS).axes
    ticket, reinit = lines(steps)["ticket"], lines(steps)["reinit"]
    np.testing.assert_allclose(ticket.get_xdata(), [100, 80, 64])
    assert list(ticket.get_ydata()) == [700, 500, 600]
    assert list(reinit.get_ydata()) == [900, 950]
    assert (ticket.get_linestyle(), reinit.get_linestyle()) == ("-", "--")
    assert ticket.get_color() != reinit.get_color()
    assert ticket.get_marker() != reinit.get_marker()
    np.testing.assert_allclose(lines(accuracy)["ticket"].get_ydata(), [96.7, 97.0, 96.0])
    np.testing.assert_allclose(lines(accuracy)["reinit"].get_ydata(), [95, 93])


def test_dense_is_marked_and_has_a_dotted_line_across():
    for axes, height in zip(plot_search(RESULTS).axes, (700, 96.7), strict=True):
        dense = lines(axes)["dense"]
        assert dense.get_marker() == "D"
        np.testing.assert_allclose(dense.get_xydata(), [[100, height]])
        across = [line for line in axes.get_lines() if list(line.get_xdata()) == [0, 1]]
        assert [line.get_linestyle() for line in across] == [":"]
        np.testing.assert_allclose(across[0].get_ydata(), height)


def test_axes_run_from_dense_to_sparse_and_are_labelled():
    figure = plot_search(RESULTS)
    assert figure.get_suptitle() == "Lottery-ticket search"
    assert [axes.get_title() for axes in figure.axes] == ["Early stop", "Test accuracy at early stop"]
    assert [axes.get_ylabel() for axes in figure.axes] == ["early-stop step", "test accuracy (%)"]
    assert legend(figure) == ["ticket", "reinit", "dense"]
    for axes in figure.axes:
        assert axes.get_xlabel() == "weights kept (%)"
        assert axes.get_xscale() == "log"
        left, right = axes.get_xlim()
        assert left > 100 > 64 > right
        assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "80", "64"]


def test_accuracies_at_the_end_have_panels_of_their_own_where_there_are_any():
    rows = [row(n, 700, 0.9, end=0.8 + n / 100, training=0.95 + n / 100) for n in (0, 1)]
    figure = plot_search(rows)
    titles = {axes.get_title(): lines(axes)["ticket"].get_ydata() for axes in figure.axes}
    assert list(titles)[2:] == ["Test accuracy at the end", "Training accuracy at the end"]
    np.testing.assert_allclose(titles["Test accuracy at the end"], [80, 81])
    np.testing.assert_allclose(titles["Training accuracy at the end"], [95, 96])
    assert [axes.get_subplotspec().get_geometry()[:2] for axes in figure.axes] == [(2, 2)] * 4
    three = plot_search([row(n, 700, validation=0.9, training=0.5) for n in (0, 1)])
    assert [axes.get_title() for axes in three.axes] == [
        "Early stop",
        "Validation accuracy at the end",
        "Training accuracy at the end",
    ]
    assert three.axes[0].get_subplotspec().get_geometry()[:2] == (1, 3)


def test_axes_of_accuracies_end_at_100_percent():
    full = plot_search([row(n, 700, 1.0) for n in (0, 1)]).axes[1]
    low, high = full.get_ylim()
    assert low < 97 and 100 < high < 100.5


def test_tick_labels_are_as_many_as_fit():
    figure = plot_search([row(level, 700, 0.9) for level in range(21)])
    figure.canvas.draw()
    for axes in figure.axes:
        labels = axes.get_xticklabels()
        assert [label.get_text() for label in labels] == [
            "100",
            "51.2",
            "26.2",
            "13.4",
            "6.87",
            "3.52",
            "1.8",
        ]
        boxes = [label.get_window_extent() for label in labels]
        assert all(left.x1 + 10 < right.x0 for left, right in zip(boxes, boxes[1:], strict=False))


def test_bars_span_the_replicates():
    results = [row(0, step, 0.9 + step / 1e4, replicate=r) for r, step in enumerate((200, 300, 700))]
    figure = plot_search([*results, row(1, 250, 0.95)])
    assert figure.get_suptitle() == "Lottery-ticket search: mean and range of 3 replicates"
    for axes, low, mean, high in zip(figure.axes, (200, 92), (400, 94), (700, 97), strict=True):
        (container,) = axes.containers
        spans = container.lines[2][0].get_segments()
        np.testing.assert_allclose(spans[0], [[100, low], [100, high]])
        assert np.ptp(spans[1][:, 1]) == 0  # one replicate only
        assert lines(axes)["ticket"].get_ydata()[0] == pytest.approx(mean)


def test_bars_of_arms_stand_beside_each_other_within_the_axis():
    arms = ("ticket", "reinit", "shuffle")
    rows = [row(n, 500, 0.9, arm=arm, replicate=r) for arm in arms for n in (0, 1, 2) for r in (1, 2)]
    for axes in plot_search(rows).axes:
        places = np.array([lines(axes)[arm].get_xdata() for arm in arms])
        np.testing.assert_allclose(places[0], [100, 80, 64])
        np.testing.assert_allclose(places[1:] / places[:-1], np.exp(-0.12 * np.log(1 / 0.8)))
        assert axes.get_xlim()[1] < places.min()
        bars = [container.lines[2][0].get_segments()[1][0, 0] for container in axes.containers]
        np.testing.assert_allclose(bars, places[:, 1])


def test_rounding_of_means_makes_no_negative_bar():
    # Three times 0.9012 has a mean that is one rounding below 0.9012.
    panel = plot_search([row(0, 700, 0.9012, replicate=r) for r in (1, 2, 3)]).axes[1]
    np.testing.assert_allclose(panel.containers[0].lines[2][0].get_segments()[0], [[100, 90.12]] * 2)


def test_no_bars_without_replicates():
    assert [list(axes.containers) for axes in plot_search(RESULTS).axes] == [[], []]


def test_early_stops_not_reached_are_hollow_and_explained():
    figure = plot_search([row(0, 700, 0.967), row(1, 1000, 0.97), row(2, 600, 0.96)])
    assert legend(figure) == ["ticket", "dense", "early stop not reached"]
    for axes, height in zip(figure.axes, (1000, 97), strict=True):
        hollow = lines(axes)["_hollow"]
        assert to_hex(hollow.get_markerfacecolor()) == "#ffffff"
        np.testing.assert_allclose(hollow.get_xydata(), [[80, height]])
        assert to_hex(lines(axes)["dense"].get_markerfacecolor()) != "#ffffff"


def test_dense_is_hollow_too_where_its_early_stop_was_not_reached():
    for axes in plot_search([row(0, 1000, 0.967), row(1, 500, 0.97)]).axes:
        assert to_hex(lines(axes)["dense"].get_markerfacecolor()) == "#ffffff"


def test_a_dense_network_alone_and_controls_alone_can_be_drawn():
    assert legend(plot_search(RESULTS[:1])) == ["ticket", "dense"]
    assert legend(plot_search(RESULTS[3:])) == ["reinit"]


def test_without_test_data_and_without_accuracies():
    panel = plot_search([row(0, 700, validation=0.9), row(1, 700, validation=0.8)]).axes[1]
    assert panel.get_ylabel() == "final validation accuracy (%)"
    np.testing.assert_allclose(lines(panel)["ticket"].get_ydata(), [90, 80])
    panel = plot_search([row(0, 700, loss=0.5), row(1, 700, loss=0.25)]).axes[1]
    assert panel.get_ylabel() == "validation loss"
    np.testing.assert_allclose(lines(panel)["ticket"].get_ydata(), [0.5, 0.25])


def test_no_results():
    with pytest.raises(ValueError, match=r"at least one trained network\. Received: none"):
        plot_search([])


def test_pyplot_does_not_know_the_figure_and_settings_are_left_alone():
    before = dict(matplotlib.rcParams)
    plot_search(RESULTS)
    assert matplotlib.pyplot.get_fignums() == []
    assert dict(matplotlib.rcParams) == before


def test_save_writes_a_png_and_an_svg_and_replaces_what_was_there(tmp_path):
    (tmp_path / "search.png").write_bytes(b"old")
    paths = save(plot_search(RESULTS), tmp_path, "search")
    assert sorted(tmp_path.iterdir()) == paths == [tmp_path / "search.png", tmp_path / "search.svg"]
    data = paths[0].read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n") and b"IEND" in data[-12:]
    width, height = struct.unpack(">II", data[16:24])
    assert 1400 < width < 1600 and 650 < height < 800  # 10 x 4.8 inches at 150 dpi
    assert ElementTree.parse(paths[1]).getroot().tag == "{http://www.w3.org/2000/svg}svg"


def test_saved_bytes_do_not_depend_on_the_users_style(tmp_path):
    plain = save(plot_search(RESULTS), tmp_path, "plain")
    with matplotlib.style.context(["dark_background", {"savefig.pad_inches": 1}]):
        dark = save(plot_search(RESULTS), tmp_path, "dark")
    assert [path.read_bytes() for path in plain] == [path.read_bytes() for path in dark]
    corner = matplotlib.pyplot.imread(dark[0])[0, 0]
    np.testing.assert_array_equal(corner, 1)  # white, and not transparent


def test_a_network_without_weights_has_no_place_on_the_axis_and_breaks_nothing():
    none_left = Result(1, 9, "ticket", 0.0, 100, 0.1, 2.3, 0.1, 0.1, 1000)
    for axes in plot_search([*RESULTS, none_left]).axes:
        assert [label.get_text() for label in axes.get_xticklabels()] == ["100", "80", "64"]
        assert axes.get_xlim()[0] > 100 > 64 > axes.get_xlim()[1] > 0
