"""What the figures of a run share: which levels and layers they show, and in which colors."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import FigureBase
from matplotlib.lines import Line2D

from tf_lottery.analysis.figures import style
from tf_lottery.analysis.figures.style import BLACK
from tf_lottery.training.history import TICKET
from tf_lottery.training.recorded import Recorded

T = TypeVar("T")
SHOWN = 5  # levels, where a panel has a line for each
# The part of the color map plasma that is neither black, which is for the dense network, nor pale.
_FIRST, _LAST = 0.08, 0.82


class NothingToDraw(ValueError):
    """A run has not, or not yet, what a figure shows; says what that is."""


def by_level(networks: Iterable[Recorded], arm: str = TICKET) -> dict[int, list[Recorded]]:
    """Returns level -> the replicates of an arm, levels ascending."""
    found: dict[int, list[Recorded]] = {}
    for network in sorted(networks, key=lambda n: (n.result.level, n.result.replicate)):
        if network.result.arm == arm:
            found.setdefault(network.result.level, []).append(network)
    return found


def tickets(networks: Iterable[Recorded]) -> dict[int, list[Recorded]]:
    """Returns level -> the replicates of the ticket.

    Raises:
        NothingToDraw: there are none.
    """
    found = by_level(networks)
    if not found:
        raise NothingToDraw("no ticket is trained yet")
    return found


def pruned(networks: Iterable[Recorded]) -> dict[int, list[Recorded]]:
    """Returns what `tickets` does.

    Raises:
        NothingToDraw: there is but one level.
    """
    found = tickets(networks)
    if len(found) < 2:
        raise NothingToDraw("no pruned network is trained yet")
    return found


def layers(tickets: Mapping[int, Sequence[Recorded]], count: int = 6) -> list[str]:
    """Returns the paths of at most `count` layers, evenly spread."""
    return spread(next(iter(tickets.values()))[0].mask(), count)


def percent_kept(networks: Sequence[Recorded]) -> float:
    """Returns the mean density of networks, in percent."""
    return 100 * float(np.mean([network.result.density for network in networks]))


def spread(items: Collection[T], count: int) -> list[T]:
    """Returns at most `count` of the items, evenly spread; the first and the last are among them.

    Example:
        >>> spread(range(16), 4)
        [0, 5, 10, 15]
        >>> spread("ab", 4)
        ['a', 'b']
    """
    items = list(items)
    return [
        items[i]
        for i in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int))
    ]


def ordered(count: int) -> list[str]:
    """Returns colors from blue over red to orange, which are told apart in black and white too.

    Example:
        >>> ordered(2)
        ['#38049a', '#fdae32']
    """
    return list(map(to_hex, matplotlib.colormaps["plasma"](np.linspace(_FIRST, _LAST, count))))


def shades(levels: Iterable[int]) -> dict[int, str]:
    """Returns level -> color: the dense network black, the others ordered.

    Example:
        >>> shades([0, 5, 9])
        {0: '#222222', 5: '#38049a', 9: '#fdae32'}
    """
    pruned = sorted(set(levels) - {0})
    return {0: BLACK, **dict(zip(pruned, ordered(len(pruned)), strict=True))}


def percent(value: float) -> str:
    """Returns a density in percent for people.

    Example:
        >>> percent(51.2008), percent(100.0), percent(3.5184)
        ('51.2 %', '100 %', '3.52 %')
    """
    return f"{value:.3g} %"


def legend(percents: Mapping[int, float]) -> list[Line2D]:
    """Returns what stands in a legend for each level -> density in percent: a line of its color."""
    colors = shades(percents)
    return [
        Line2D(
            [], [], color=colors[level], linewidth=2.5, label=f"{percent(value)} kept" if level else "dense"
        )
        for level, value in percents.items()
    ]


def replicates(networks: Iterable[Recorded], words: str = "mean and range of") -> str:
    """Returns what `style.replicates` does, of networks."""
    return style.replicates((network.result for network in networks), words)


def histogram(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the share of values per unit of the lower axis, and the edges of the bins.

    The bins are as many as Rice's rule has it, twice the cube root of the number of values, and at most
    60; they go from the 0.2nd to the 99.8th percentile, so that single values do not stretch the axis.
    What is not finite is left out. Of no values there are no bins.

    Args:
        values: of any shape.

    Returns:
        Arrays of shape (bins,) and (bins + 1,).

    Example:
        >>> shares, edges = histogram(np.array([0.0, 0.0, 0.0, 1.0]))
        >>> shares, edges
        (array([2.25, 0.  , 0.75]), array([0.        , 0.33333333, 0.66666667, 1.        ]))
    """
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    if not values.size:
        return np.zeros(0), np.zeros(1)
    low, high = np.percentile(values, 0.2, method="lower"), np.percentile(values, 99.8, method="higher")
    shares, edges = np.histogram(values, min(60, int(2 * np.cbrt(values.size))), (low, high))
    return shares / np.diff(edges) / values.size, edges


def draw_histogram(axes: Axes, values: np.ndarray, **look: Any) -> None:
    """Draws the outline of a histogram; of no values, nothing.

    Args:
        axes: where.
        values: of any shape.
        **look: color, linestyle, label, fill and the like.
    """
    shares, edges = histogram(values)
    if shares.size:
        axes.stairs(shares, edges, **{"linewidth": 1.4, **look})


def label_row(row: Iterable[Axes], path: str) -> None:
    """Names the layer at the left of panels with histograms, whose heights have no numbers."""
    for axes in row:
        axes.set_yticks([])
        axes.spines[["left", "top", "right"]].set_visible(False)
        axes.set_ylim(bottom=0)
        axes.set_ylabel(short(path))


def add_legend(figure: FigureBase, lines: Sequence[Line2D]) -> None:
    """Explains below the figure what is in its panels, by the labels of these lines."""
    figure.legend(handles=lines, loc="outside lower center", ncols=7, frameon=False)


def short(path: str, longest: int = 24) -> str:
    """Returns a layer's path for a panel's title: the end of a long one.

    Example:
        >>> short("fc1/kernel"), short("backbone/stage_3/block_2/conv/kernel")
        ('fc1/kernel', '...3/block_2/conv/kernel')
    """
    return path if len(path) <= longest else "..." + path[3 - longest :]
