"""The figure of linear mode connectivity: error on the line between two copies, and instability."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, NullLocator

from tf_lottery.analysis import instability
from tf_lottery.analysis.connectivity import STABLE
from tf_lottery.analysis.figures import search
from tf_lottery.analysis.figures.search import Quantity
from tf_lottery.analysis.figures.style import BLACK, COLORS, MARKERS, draw_ranges, new_figure, plain
from tf_lottery.analysis.instability import Found, Pair, Pairs
from tf_lottery.training.history import TICKET

_INSTABILITY = Quantity("", 100, "Instability", "instability (points of test error)")
_COLUMNS = 3
_BAND = "#EEEEEE"
# Without the pale end, which is hard to see on white.
_MAP = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0.88, 0, 256)))


def plot_connectivity(pairs: Sequence[Pair]) -> Figure:
    """Draws test error on the line between two copies, and instability against density.

    There is a panel of lines for each arm and step that copies were trained from, with a line for
    each level, dashed where it is not stable, and a band up to 2 points above the ends of the
    densest. The last panel, below or beside them, has a line for each arm and step; bars span the pairs.

    Args:
        pairs: of any arms, steps, levels and replicates.

    Returns:
        A figure 10 inches wide that pyplot does not know of.

    Raises:
        ValueError: there are no pairs.
    """
    found = instability.gathered(pairs)
    columns = min(len(found), _COLUMNS)
    bands = -(-len(found) // columns)
    beside = len(found) == 1
    with new_figure(4.8 if beside else 4.6 + 3 * bands) as figure:
        figure.suptitle(f"Linear mode connectivity{_number(found)}", fontsize=14)
        parts = figure.subfigures(1, 2) if beside else figure.subfigures(2, 1, height_ratios=[3 * bands, 3.4])
        grid = parts[0].subplots(bands, columns, sharey=True, squeeze=False).ravel()
        colors = ScalarMappable(_norm(found), _MAP)
        for axes, (arm, step) in zip(grid, found, strict=False):
            _draw_lines(axes, found[arm, step], colors)
            axes.set_title(f"{'Tickets' if arm == TICKET else arm} from step {step}")
        for axes in grid[::columns]:
            axes.set_ylabel("test error (%)")
        for axes in grid[len(found) :]:
            axes.remove()
        bar = parts[0].colorbar(
            colors, ax=list(grid[: len(found)]), label="weights kept (%)", aspect=30, pad=0.02
        )
        _label_densities(bar.ax, found)
        axes = parts[1].subplots()
        _draw_instability(axes, found)
        _add_legend(figure, axes, found)
    return figure


def _draw_lines(axes: Axes, levels: dict[int, Pairs], colors: ScalarMappable) -> None:
    height = 100 * next(iter(levels.values())).ends("test_error")
    axes.axhspan(height, height + 100 * STABLE, color=_BAND, zorder=0)
    for same in levels.values():
        curve = 100 * same.curve("test_error")
        color = colors.to_rgba(100 * same.density)
        axes.plot(np.linspace(0, 1, len(curve)), curve, color=color, linestyle=_style(same), linewidth=1.6)
    axes.set(xlabel="α, from copy 2 to copy 1", xlim=(0, 1))
    plain(axes)


def _draw_instability(axes: Axes, found: Found) -> None:
    every = [same for levels in found.values() for same in levels.values()]
    for index, ((arm, step), levels) in enumerate(found.items()):
        percents = [100 * same.density for same in levels.values()]
        means = np.array([100 * same.instability for same in levels.values()])
        look = {"color": COLORS[index % len(COLORS)], "marker": MARKERS[index % len(MARKERS)]}
        look |= {"linestyle": "-" if arm == TICKET else "--", "label": f"{arm} from step {step}"}
        axes.plot(percents, means, markersize=5, linewidth=1.6, clip_on=False, **look)
        if any(len(same.pairs) > 1 for same in levels.values()):
            barriers = [100 * np.array(same.barriers("test_error")) for same in levels.values()]
            draw_ranges(axes, percents, means, barriers, look["color"])
    axes.axhline(100 * STABLE, color=BLACK, linestyle=":", linewidth=1, label="stable below 2 points")
    search.label_axes(axes, [same.group for same in every], _INSTABILITY, ticks=6)
    axes.set_title(_INSTABILITY.title)
    axes.set_ylim(bottom=0)


def _add_legend(figure: Figure, axes: Axes, found: Found) -> None:
    styles = {_style(same) for levels in found.values() for same in levels.values()}
    handles, labels = axes.get_legend_handles_labels()
    handles.append(Patch(color=_BAND))
    labels.append("2 points above the densest's ends")
    if len(styles) > 1:
        handles.append(Line2D([], [], color=BLACK, linestyle="--"))
        labels.append("not stable")
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 4), frameon=False)


def _label_densities(axes: Axes, found: Found) -> None:
    percents = sorted({100 * same.density for levels in found.values() for same in levels.values()})
    shown = percents[:: -(len(percents) // 8 + 1)]
    axes.yaxis.set_major_locator(FixedLocator(shown))
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_locator(NullLocator())


def _norm(found: Found) -> LogNorm:
    percents = [100 * same.density for levels in found.values() for same in levels.values()]
    low, high = min(percents), max(percents)
    return LogNorm(low if low < high else 0.5 * high, high)


def _style(same: Pairs) -> str:
    return "-" if same.stable else "--"


def _number(found: Found) -> str:
    """Returns over how many pairs the means are, where there are several."""
    most = max(len(same.pairs) for levels in found.values() for same in levels.values())
    return f": means over {most} pairs" if most > 1 else ""
