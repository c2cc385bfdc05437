"""What a run has come to: its table, its verdict and its main figure; several runs side by side."""

import os
from collections.abc import Mapping

from tf_lottery.analysis import studies, tables, verdict
from tf_lottery.analysis.figures import search
from tf_lottery.analysis.figures import studies as study_figures
from tf_lottery.analysis.findings import Findings
from tf_lottery.training import recorded


def analyze(folder: str | os.PathLike[str]) -> Findings:
    """Returns the table and verdict of a run, finished or not, and figure `search`."""
    results = recorded.results(folder)
    text = f"{tables.table(results)}\n\n{verdict.judge(results).sentence}"
    return Findings(text, figures={"search": search.plot_search(results)})


def compare(runs: Mapping[str, str | os.PathLike[str]]) -> Findings:
    """Returns a table with a row for each run, and figures `side_by_side` and `together`.

    Args:
        runs: name -> run directory.
    """
    study = {name: recorded.results(folder) for name, folder in runs.items()}
    figures = {
        "side_by_side": study_figures.plot_side_by_side(study),
        "together": study_figures.plot_together(study),
    }
    return Findings(studies.table(study), figures=figures)
