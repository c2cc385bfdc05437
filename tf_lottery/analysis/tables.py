"""Tables for the terminal: the results of a search, and the layers of a mask."""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from tf_lottery.analysis import differences
from tf_lottery.analysis.aggregate import Group, Measure, first_measured, groups
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training.history import Result

Rows = Sequence[Sequence[str]]

GAP = "  "
_WIDTH = 110  # letters in a line


def table(results: Sequence[Result]) -> str:
    """Returns a table with a row for each level and two columns for each arm.

    An arm's columns are its early-stop step, and its test accuracy there in percent;
    without test data, the final validation accuracy in percent; without accuracies, the
    lowest validation loss. Of several replicates these are means, with the lowest and the
    highest behind. Arms that a line of 110 letters has no room for stand in a table below.
    No line ends in spaces or the text in a newline.

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
    levels = sorted(densities)
    left = [["level", "density %"], *([str(n), f"{100 * densities[n]:.2f}"] for n in levels)]
    blocks = {
        arm: [["early stop", measure.column], *(cells(at_levels.get(n), measure, True) for n in levels)]
        for arm, at_levels in by_arm.items()
    }
    return "\n".join([side_by_side(left, blocks), *notes(every, ranges=True)])


def side_by_side(left: Rows, blocks: Mapping[str, Rows]) -> str:
    """Returns a table of blocks beside each other, each with its name over the middle of its columns.

    Blocks that a line of 110 letters has no room for stand below, with the columns of `left` again.

    Args:
        left: the first columns: rows of cells, the heads first.
        blocks: name -> as many rows of cells.
    """
    columns = []
    for name, rows in {"": left, **blocks}.items():
        lines = in_columns(rows)
        width = max(len(name), len(lines[0]))
        columns.append([name.center(width), *(line.rjust(width) for line in lines)])
    return in_bands(columns)


def difference_table(results: Sequence[Result], arm: str = "reinit") -> str:
    """Returns a table of tickets minus their controls; empty where no two replicates have both.

    Args:
        results: one for each trained network.
        arm: the control.

    Example:
        >>> def row(replicate, arm, step, accuracy):
        ...     return Result(replicate, 1, arm, 0.8, step, accuracy, 0.1, accuracy, accuracy, 1000)
        >>> rows = [row(1, "ticket", 400, 0.97), row(1, "reinit", 700, 0.95)]
        >>> print(difference_table([*rows, row(2, "ticket", 500, 0.96), row(2, "reinit", 800, 0.93)]))
        ticket minus reinit, mean and 95 % interval of 2 pairs
        level  density %     early stop             test acc %
            1      80.00  -300 [-300 -300]  +2.50 [-3.85 +8.85]
    """
    compared, measure = differences.compare(results, arm), first_measured(results)
    if not compared:
        return ""
    rows = [["level", "density %", "early stop", measure.column]]
    for level, comparison in compared.items():
        steps = comparison.early_stop
        shown = _interval(steps, lambda value: f"{value:+.0f}") if steps else "-"
        rows.append(
            [
                str(level),
                f"{100 * comparison.density:.2f}",
                shown,
                _interval(comparison.quality, measure.difference),
            ]
        )
    pairs = sorted({comparison.pairs for comparison in compared.values()})
    number = " to ".join(map(str, dict.fromkeys([pairs[0], pairs[-1]])))
    head = f"ticket minus {arm}, mean and 95 % interval of {number} pairs"
    return "\n".join([head, *in_columns(rows)])


def _interval(difference: differences.Difference, text: Callable[[float], str]) -> str:
    return f"{text(difference.mean)} [{text(difference.low)} {text(difference.high)}]"


def in_columns(rows: Rows, left: int = 0) -> list[str]:
    """Returns a line for each row, all of one width: cells of the first `left` columns to the left.

    Example:
        >>> in_columns([["layer", "kept"], ["fc1", "2"]], left=1)
        ['layer  kept', 'fc1       2']
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = map(str.ljust, row[:left], widths), map(str.rjust, row[left:], widths[left:])
        lines.append(GAP.join(itertools.chain(*cells)))
    return lines


def in_bands(columns: Sequence[list[str]]) -> str:
    """Returns columns beside each other; those that a line of 110 letters has no room for below.

    Args:
        columns: the lines of each, all of one width. The first stands at the left of every band.
    """
    bands = ("\n".join(GAP.join(row).rstrip() for row in zip(*band, strict=True)) for band in _bands(columns))
    return "\n\n".join(bands)


def _bands(columns: Sequence[list[str]]) -> Iterator[list[list[str]]]:
    """Yields the first column and as many others as a line has room for, then it and the next."""
    first, *others = columns
    band = [first]
    for column in others:
        if len(band) > 1 and sum(len(c[0]) + len(GAP) for c in [*band, column]) > _WIDTH + len(GAP):
            yield band
            band = [first]
        band.append(column)
    yield band


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
    return "\n".join(in_columns(rows, left=1))


def _share(kept: int, of: int) -> tuple[str, str, str]:
    return f"{kept:,}", f"{of:,}", f"{100 * kept / of:.2f}" if of else "-"


def cells(group: Group | None, measure: Measure, ranges: bool = False) -> tuple[str, str]:
    """Returns early-stop step and accuracy for people; dashes where there is no such group.

    With `ranges`, the lowest and the highest of several replicates stand behind the mean.
    """
    if group is None:
        return "-", "-"
    mark = "" if group.early_stop_reached else ">"
    cells = (f"{mark}{group.mean('early_stop_step'):.0f}", measure.text(group.mean(measure.field)))
    if not ranges or len(group) == 1:
        return cells
    steps, values = group.range("early_stop_step"), group.range(measure.field)
    return (
        f"{cells[0]} [{steps[0]} {steps[1]}]",
        f"{cells[1]} [{measure.text(values[0])} {measure.text(values[1])}]",
    )


def notes(all_groups: list[Group], ranges: bool = False) -> list[str]:
    """Returns the lines below a table: how many replicates there are, and what its marks mean."""
    lines, counts = [], sorted({len(group) for group in all_groups})
    if counts[-1] > 1:
        number = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
        lines.append(f"Means over {number} replicates{', [lowest highest]' if ranges else ''}.")
    if not all(group.early_stop_reached for group in all_groups):
        lines.append("> not reached: validation loss was still falling when training ended.")
    return lines
