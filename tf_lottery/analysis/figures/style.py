"""What all figures have in common: size, colors, the two files of each."""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator, Sequence

import matplotlib.style
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_lottery import files, paths
from tf_lottery.training.history import Result

# Okabe and Ito's palette, which colour-blind people can tell apart; without its black,
# which is for the dense network, and its yellow, which is too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "v", "P", "X")
BLACK = "#222222"
WIDTH = 10  # inches
# An SVG that does not tell when it was made, or number its parts at random: equal figures, equal bytes.
_STYLE = threading.RLock()  # matplotlib has one style for all threads
_SVG = {"svg.hashsalt": "tf_lottery", "svg.fonttype": "path"}


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[paths.Path]:
    """Writes a figure as `name.png`, of 150 dots per inch, and `name.svg`, each under another name first.

    Both are on white, and so can be read on paper and on a dark screen. A file that is there is
    replaced at once, so that nobody ever reads half of one.

    Args:
        figure: what to write.
        folder: made where there is none.
        name: of the files, without a suffix.

    Returns:
        The paths of the two files.
    """
    written = [paths.path(folder) / f"{name}.{kind}" for kind in ("png", "svg")]
    with _STYLE, matplotlib.style.context(["default", _SVG]):
        for path, options in zip(written, ({"dpi": 150}, {"metadata": {"Date": None}}), strict=True):
            with files.replacing(path) as file:
                figure.savefig(
                    file, format=path.suffix[1:], bbox_inches="tight", facecolor="white", **options
                )
    return written


@contextlib.contextmanager
def new_figure(height: float) -> Iterator[Figure]:
    """Yields an empty figure 10 inches wide. What is drawn on it has the default style."""
    # The user's own style may be one for dark backgrounds, with white letters.
    with _STYLE, matplotlib.style.context("default"):
        figure = Figure(figsize=(WIDTH, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(wspace=0.06)
        yield figure


def pixels(figure: Figure) -> np.ndarray:
    """Returns what a figure looks like: uint8 of shape (height, width, 4)."""
    with _STYLE, matplotlib.style.context("default"):
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())


def replicates(results: Iterable[Result], words: str = "mean and range of") -> str:
    """Returns the end of a title: how many replicates there are; of one, nothing."""
    count = len({result.replicate for result in results})
    return f": {words} {count} replicates" if count > 1 else ""


def draw_ranges(
    axes: Axes,
    places: Sequence[float],
    means: Sequence[float],
    samples: Sequence[Sequence[float]],
    color: str,
) -> None:
    """Draws a bar from the lowest to the highest of each sample, through its mean."""
    # The mean of equal values may be a rounding off them, and a bar must not be negative.
    below = [max(0.0, mean - min(sample)) for mean, sample in zip(means, samples, strict=True)]
    above = [max(0.0, max(sample) - mean) for mean, sample in zip(means, samples, strict=True)]
    axes.errorbar(places, means, yerr=[below, above], fmt="none", color=color, elinewidth=1, capsize=2.5)


def plain(axes: Axes) -> None:
    """Leaves of the frame what carries numbers, and draws a pale grid."""
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
