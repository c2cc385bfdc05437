"""Figures of the information plane: the plane itself, and I(X;T) against the step."""

import itertools
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from tf_lottery.analysis.figures.style import BLACK, COLORS, MARKERS, new_figure, plain
from tf_lottery.analysis.information_plane import Curve, Curves

Rows = Mapping[str, Mapping[str, Curves]]
_GREY = "#AAAAAA"
_XT, _TY = "I(X;T) (bits)", "I(T;Y) (bits)"
# Without its yellow end, which is too pale on white.
_BY_STEP = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.92, 256)))
_SATURATED = {"marker": "o", "linestyle": "", "color": _GREY, "markerfacecolor": "white"}


def plot_plane(rows: Rows) -> Figure:
    """Draws the information plane of each network, every layer a line from start to end of training.

    A layer has a marker of its own, the step a color. Where an estimate is saturated, markers are grey
    and hollow.

    Args:
        rows: estimator -> name of the network -> its curves: a row of panels for each estimator, and a
            column for each network. All have the same layers.

    Returns:
        A figure 10 inches wide that pyplot does not know of.
    """
    last = max(curve.steps[-1] for curve in _curves_of(rows))
    first = max(1, last / 1000)  # Before it little happens, and few colors do.
    norm = SymLogNorm(linthresh=first, linscale=0.5, vmin=0, vmax=last, base=10)
    with new_figure(1.4 + 2.6 * len(rows)) as figure:
        figure.suptitle("Information plane: what layers tell about inputs X and labels Y", fontsize=14)
        panels = _panels(figure, rows, _XT, _TY)
        for (estimator, name), axes in panels.items():
            for marker, curve in zip(itertools.cycle(MARKERS), rows[estimator][name].values()):
                axes.plot(curve.i_xt, curve.i_ty, color=_GREY, linewidth=0.7, zorder=1)
                lost, look = curve.saturated, {"marker": marker, "s": 20}
                hollow = {"facecolors": "white", "edgecolors": _GREY, "linewidths": 0.8, "zorder": 2}
                axes.scatter(curve.i_xt[lost], curve.i_ty[lost], **look, **hollow)
                colored = {"c": curve.steps[~lost], "norm": norm, "cmap": _BY_STEP, "linewidths": 0}
                axes.scatter(curve.i_xt[~lost], curve.i_ty[~lost], **look, **colored, zorder=3)
        bar = figure.colorbar(
            ScalarMappable(norm, _BY_STEP), ax=list(panels.values()), aspect=40, label="training step"
        )
        powers = range(int(np.ceil(np.log10(first))), int(np.log10(last)) + 1)
        bar.set_ticks([0, *(10**power for power in powers)])
        bar.ax.minorticks_off()
        _add_legend(figure, rows, [{"color": BLACK, "marker": each, "linestyle": ""} for each in MARKERS])
    return figure


def plot_training(rows: Rows) -> Figure:
    """Draws I(X;T) of every layer against the step. Where an estimate is saturated, it is grey and hollow.

    Args:
        rows: as `plot_plane` takes them.

    Returns:
        A figure 10 inches wide that pyplot does not know of.
    """
    looks = [{"color": color, "marker": marker} for color, marker in zip(COLORS, MARKERS)]
    with new_figure(1.4 + 2.6 * len(rows)) as figure:
        figure.suptitle("What layers tell about inputs X, through training", fontsize=14)
        for (estimator, name), axes in _panels(figure, rows, "training step", _XT).items():
            for look, curve in zip(itertools.cycle(looks), rows[estimator][name].values()):
                lost, size = curve.saturated, {"markersize": 3.5}
                axes.plot(curve.steps, np.where(lost, np.nan, curve.i_xt), linewidth=1.2, **size, **look)
                hollow = {**_SATURATED, "marker": look["marker"]}
                axes.plot(curve.steps[lost], curve.i_xt[lost], **size, **hollow)
            axes.set_xscale("symlog", linthresh=1)
            axes.xaxis.set_minor_locator(NullLocator())
        _add_legend(figure, rows, looks)
    return figure


def _panels(figure: Figure, rows: Rows, x: str, y: str) -> dict[tuple[str, str], Axes]:
    """Returns (estimator, network) -> its panel, empty but for its labels."""
    networks = list(next(iter(rows.values())))
    grid = figure.subplots(len(rows), len(networks), sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat:
        plain(axes)
    for axes, network in zip(grid[0], networks, strict=True):
        axes.set_title(network, fontsize=11)
    for axes in grid[-1]:
        axes.set_xlabel(x)
    for axes, estimator in zip(grid[:, 0], rows, strict=True):
        how = dict.fromkeys(curve.name for curve in _curves_of({estimator: rows[estimator]}))
        axes.set_ylabel(f"{', '.join(how)}\n{y}")
    return dict(zip(itertools.product(rows, networks), grid.flat, strict=True))


def _curves_of(rows: Rows) -> list[Curve]:
    return [c for networks in rows.values() for layers in networks.values() for c in layers.values()]


def _add_legend(figure: Figure, rows: Rows, looks: Sequence[Mapping[str, str]]) -> None:
    layers = next(iter(next(iter(rows.values())).values()))
    entries = {
        layer: Line2D([], [], markersize=5, **look) for layer, look in zip(layers, itertools.cycle(looks))
    }
    if any(curve.saturated.any() for curve in _curves_of(rows)):
        entries["saturated: tells nothing"] = Line2D([], [], markersize=5, **_SATURATED)
    figure.legend(entries.values(), entries, loc="outside lower center", ncols=8, frameon=False)
