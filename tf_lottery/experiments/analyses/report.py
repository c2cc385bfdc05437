"""What a run has come to: its table, its verdict and its main figure; several runs side by side."""

import os
from collections.abc import Mapping

from tf_lottery.analysis import report, studies
from tf_lottery.analysis.figures import search
from tf_lottery.analysis.figures import studies as study_figures
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import experiment
from tf_lottery.training import recorded, verification
from tf_lottery.training.history import Result


def analyze(folder: str | os.PathLike[str], *, verify: bool = False) -> Findings:
    """Returns table and verdict of a run, how much of it is done if not all, and figure `search`.

    With replicates, the table of paired differences ticket minus reinit too.

    Args:
        folder: the run directory.
        verify: whether all its files are looked at first.

    Raises:
        RunDirectoryError: a file is damaged or missing; with `verify`, names all of these.
    """
    checked = f"All {verification.verify(folder)} files are as they were written." if verify else ""
    results, failures = _results(folder), recorded.failures(folder)
    if results:
        parts = [checked, _progress(folder, results), report.text(results, failures)]
    else:
        parts = [checked, NOTHING_TRAINED.text, report.given_up(failures)]
    # One who asks whether a run is sound may not be able to write in it.
    figures = {"search": search.plot_search(results)} if results and not verify else {}
    return Findings("\n\n".join(filter(None, parts)), figures=figures)


def compare(runs: Mapping[str, str | os.PathLike[str]], *, verify: bool = False) -> Findings:
    """Returns a table with a row for each run, and figures `side_by_side` and `together`.

    Args:
        runs: name -> run directory. One without a trained dense network is left out, and named.
        verify: whether all files were looked at, which `analyze` does.
    """
    study = {name: _results(folder) for name, folder in runs.items()}
    begun = {name: rows for name, rows in study.items() if any(row.is_dense for row in rows)}
    left_out = ", ".join(name for name in study if name not in begun)
    if not begun:
        return NOTHING_TRAINED
    figures = {
        "side_by_side": study_figures.plot_side_by_side(begun),
        "together": study_figures.plot_together(begun),
    }
    note = f"\nLeft out, as no dense network is trained yet: {left_out}." if left_out else ""
    return Findings(studies.table(begun) + note, figures=figures)


def _results(folder: str | os.PathLike[str]) -> list[Result]:
    return [network.result for network in recorded.compared(folder)]


def _progress(folder: str | os.PathLike[str], results: list[Result]) -> str:
    """Returns how many networks are trained, where that is known and not all are."""
    entries = recorded.config(folder)
    if not experiment.is_config(entries):  # of find_ticket
        return ""
    networks = sum(config_module.count_networks(experiment.recorded_config(folder)))
    return f"{len(results)} of {networks} networks are trained." if len(results) < networks else ""
