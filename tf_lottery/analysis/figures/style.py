"""What all figures have in common: size, colors, the two files of each."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tf_lottery import files

# Okabe and Ito's palette, which colour-blind people can tell apart; without its black,
# which is for the dense network, and its yellow, which is too pale on white.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
MARKERS = ("o", "s", "^", "v", "P", "X")
BLACK = "#222222"
WIDTH = 10  # inches
# An SVG that does not tell when it was made, or number its parts at random: equal figures, equal bytes.
_SVG = {"svg.hashsalt": "tf_lottery", "svg.fonttype": "path"}


def save(figure: Figure, folder: str | os.PathLike[str], name: str) -> list[Path]:
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
    paths = [Path(folder) / f"{name}.{kind}" for kind in ("png", "svg")]
    with matplotlib.style.context(["default", _SVG]):
        for path, options in zip(paths, ({"dpi": 150}, {"metadata": {"Date": None}}), strict=True):
            with files.replacing(path) as file:
                figure.savefig(
                    file, format=path.suffix[1:], bbox_inches="tight", facecolor="white", **options
                )
    return paths


@contextlib.contextmanager
def new_figure(height: float) -> Iterator[Figure]:
    """Yields an empty figure 10 inches wide. What is drawn on it has the default style."""
    # The user's own style may be one for dark backgrounds, with white letters.
    with matplotlib.style.context("default"):
        figure = Figure(figsize=(WIDTH, height), facecolor="white", layout="constrained")
        FigureCanvasAgg(figure)
        figure.get_layout_engine().set(wspace=0.06)
        yield figure


def plain(axes: Axes) -> None:
    """Leaves of the frame what carries numbers, and draws a pale grid."""
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
