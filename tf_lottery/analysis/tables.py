"""Tables for the terminal: the results of a search, and the layers of a mask."""

from collections.abc import Sequence

import numpy as np

from tf_lottery.analysis.aggregate import Group, Measure, first_measured, groups
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import Result

GAP = "  "


def table(results: Sequence[Result]) -> str:
    """Returns a table with a row for each level and two columns for each arm.

    An arm's columns are its early-stop step, and its test accuracy there in percent;
    without test data, the final validation accuracy in percent; without accuracies, the
    lowest validation loss. Replicates are averaged. No line ends in spaces or the text
    in a newline.

    Args:
        results: one for each trained network, in any order.

    Raises:
        ValueError: there are no results.

    Example:
        >>> def row(level, arm, density, step, accuracy):
        ...     return Result(1, level, arm, density, step, accuracy, 0.1, accuracy, accuracy, 1000)
        >>> rows = [row(0, "ticket", 1.0, 700, 0.967), row(1, "ticket", 0.8, 450, 0.972)]
        >>> print(table([*rows, row(1, "reinit", 0.8, 1000, 0.951)]))
                                  ticket                  reinit
        level  density %  early stop  test acc %  early stop  test acc %
            0     100.00         700       96.70           -           -
            1      80.00         450       97.20       >1000       95.10
        > not reached: validation loss was still falling when training ended.
    """
    by_arm, measure = groups(results), first_measured(results)
    every = [group for arm in by_arm.values() for group in arm.values()]
    densities = {group.results[0].level: group.mean("density") for group in every}
    rows = [["level", "density %", *["early stop", measure.column] * len(by_arm)]]
    for level, density in sorted(densities.items()):
        measured = [cell for arm in by_arm.values() for cell in cells(arm.get(level), measure)]
        rows.append([str(level), f"{100 * density:.2f}", *measured])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    # The name of an arm stands over the middle of its two columns.
    pairs = [left + len(GAP) + right for left, right in zip(widths[::2], widths[1::2], strict=True)]
    head = GAP.join(map(str.center, ["", *by_arm], pairs))
    body = [GAP.join(map(str.rjust, row, widths)) for row in rows]
    return "\n".join([head.rstrip(), *body, *notes(every)])


def layer_table(mask: Arrays) -> str:
    """Returns a table with a row for each layer of a mask, in the mask's order, and a total.

    Args:
        mask: path -> bool array, True where a weight is kept.

    Example:
        >>> mask = {"fc1/kernel": np.eye(2, 3) > 0, "fc2/kernel": np.ones((3, 1), bool)}
        >>> print(layer_table(mask))
        layer       shape  kept  of  density %
        fc1/kernel    2x3     2   6      33.33
        fc2/kernel    3x1     3   3     100.00
        total                 5   9      55.56
    """
    rows = [["layer", "shape", "kept", "of", "density %"]]
    counts = []
    for path, array in mask.items():
        counts.append((np.count_nonzero(array), np.size(array)))
        rows.append([path, "x".join(map(str, np.shape(array))), *_share(*counts[-1])])
    rows.append(["total", "", *_share(*map(sum, zip(*counts, strict=True)))])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        GAP.join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    )


def _share(kept: int, of: int) -> tuple[str, str, str]:
    return f"{kept:,}", f"{of:,}", f"{100 * kept / of:.2f}" if of else "-"


def cells(group: Group | None, measure: Measure) -> tuple[str, str]:
    """Returns early-stop step and accuracy for people; dashes where there is no such group."""
    if group is None:
        return "-", "-"
    mark = "" if group.early_stop_reached else ">"
    return f"{mark}{group.mean('early_stop_step'):.0f}", measure.text(group.mean(measure.field))


def notes(all_groups: list[Group]) -> list[str]:
    """Returns the lines below a table: how many replicates there are, and what its marks mean."""
    lines, counts = [], sorted({len(group.results) for group in all_groups})
    if counts[-1] > 1:
        number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        lines.append(f"Means over {number} replicates.")
    if not all(group.early_stop_reached for group in all_groups):
        lines.append("> not reached: validation loss was still falling when training ended.")
    return lines
