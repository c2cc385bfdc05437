"""Writes what an analysis comes to into the run directory: CSV, figures, TensorBoard."""

import contextlib
import io
import os

from tf_lottery import files, paths
from tf_lottery.analysis.findings import Findings


def write(workdir: str | os.PathLike[str], name: str, findings: Findings) -> list[paths.Path]:
    """Writes the findings of one analysis; those of an earlier call are replaced.

    Args:
        workdir: the run directory, or that of a study.
        name: of the analysis, such as `"overlap"`.
        findings: what to write: rows to `analysis/NAME.csv`, figures to `figures/*.png` and
            `*.svg`, all to the run `analysis/NAME` of TensorBoard.

    Returns:
        The paths of what the analysis has written itself, of the CSV file and of the figures.

    Raises:
        OSError: the workdir cannot be written.
    """
    folder, written = paths.path(workdir).expanduser(), [*findings.files]
    if findings.rows:
        written.append(folder / "analysis" / f"{name}.csv")
        files.write_csv(written[-1], findings.rows[0], findings.rows)
    if findings.figures:
        from tf_lottery.analysis.figures import style

        for stem, figure in findings.figures.items():
            written += style.save(figure, folder / "figures", stem)
    if findings.figures or findings.scalars:
        _write_events(folder, name, findings)
    return written


def _write_events(folder: paths.Path, name: str, findings: Findings) -> None:
    import matplotlib.image

    from tf_lottery.training.events import Events

    logs = folder / "tensorboard" / "analysis" / name
    with contextlib.closing(Events(logs)) as events:
        events.text(name, findings.text)
        for stem in findings.figures:
            png = io.BytesIO((folder / "figures" / f"{stem}.png").read_bytes())
            events.image(f"figures/{stem}", matplotlib.image.imread(png))
    runs = dict.fromkeys(scalar.run for scalar in findings.scalars)
    for run in runs:
        with contextlib.closing(Events(logs / run)) as events:
            for scalar in findings.scalars:
                if scalar.run == run:
                    events.scalars({scalar.tag: scalar.value}, scalar.step)
