"""All figures of a run, finished or not."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tf_lottery import names
from tf_lottery.analysis.figures.connections import plot_connections
from tf_lottery.analysis.figures.curves import plot_curves
from tf_lottery.analysis.figures.layers import plot_layers
from tf_lottery.analysis.figures.levels import NothingToDraw
from tf_lottery.analysis.figures.movement import plot_movement
from tf_lottery.analysis.figures.search import plot_search
from tf_lottery.analysis.figures.weights import plot_weights
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings
from tf_lottery.experiments.analyses import report
from tf_lottery.training import recorded
from tf_lottery.training.recorded import Recorded

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def _search(networks: Sequence[Recorded]) -> "Figure":
    return plot_search([network.result for network in networks])


# Name -> what it shows, and what draws it.
FIGURES: dict[str, tuple[str, Callable[[Sequence[Recorded]], "Figure"]]] = {
    "search": ("early-stop step and accuracies against density", _search),
    "curves": ("test accuracy and validation loss against step, by density", plot_curves),
    "weights": ("distributions of the kept weights before and after training", plot_weights),
    "movement": ("how far training moves weights that are kept, and pruned", plot_movement),
    "connections": ("kept weights at each input, into and out of each unit", plot_connections),
    "layers": ("density of each layer against that of all", plot_layers),
}
_COMPARED = {
    "side_by_side": "each run by itself, all on the same axes",
    "together": "the tickets of all runs in the same panels",
}


def analyze(folder: str | os.PathLike[str], figures: Sequence[str] = tuple(FIGURES)) -> Findings:
    """Draws figures of a run, finished or not, or of find_ticket's workdir.

    Args:
        folder: the run directory.
        figures: names in `FIGURES`.

    Returns:
        The figures, and a line for each that says what it shows, or why it cannot be drawn.

    Raises:
        ValueError: there is no such figure.
        RunDirectoryError: a file is damaged; names it.
    """
    chosen, drawn, lines = _checked(figures), {}, []
    networks = recorded.compared(folder)
    if not networks:
        return NOTHING_TRAINED
    for name in chosen:
        shows, draw = FIGURES[name]
        try:
            drawn[name] = draw(networks)
            lines.append(f"{name:<12}  {shows}")
        except NothingToDraw as error:
            lines.append(f"{name:<12}  not drawn: {error}")
    return Findings("\n".join(lines), figures=drawn)


def compare(runs: Mapping[str, str | os.PathLike[str]], figures: Sequence[str] = tuple(FIGURES)) -> Findings:
    """Draws the figures that hold runs against each other, whatever was asked for of each run.

    Args:
        runs: name -> run directory.
        figures: of the runs by themselves.
    """
    drawn = report.compare(runs).figures
    if not drawn:
        return NOTHING_TRAINED
    return Findings("\n".join(f"{name:<12}  {_COMPARED[name]}" for name in drawn), figures=drawn)


def _checked(figures: Sequence[str]) -> list[str]:
    for name in figures:
        names.find(name, FIGURES, "figure")
    return [name for name in FIGURES if name in figures]
