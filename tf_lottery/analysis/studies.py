"""Studies: several experiments side by side."""

from collections.abc import Mapping, Sequence

from tf_lottery.analysis import tables, verdict
from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.training.history import TICKET, Result

Study = Mapping[str, Sequence[Result]]
Found = dict[str, dict[str, dict[int, Group]]]  # name -> arm -> level -> replicates


def table(study: Study) -> str:
    """Returns a table with a row for each experiment.

    Its columns are the dense network's early-stop step and test accuracy; how many of the
    weights the sparsest winning and the sparsest matching ticket keep; and at the sparsest
    level that all experiments have, the ticket's early-stop step and test accuracy, each
    control's test accuracy, and the training steps that were spent to find the mask.
    Accuracies and replicates are as in `tables.table`.

    Args:
        study: name -> results, among them those of the dense network.

    Raises:
        ValueError: there is no experiment, or one without a dense network.

    Example:
        >>> def row(level, arm, density, step, accuracy, cost=0):
        ...     accuracies = (accuracy, 0.1, accuracy, accuracy)
        ...     return Result(1, level, arm, density, step, *accuracies, 1000, search_steps=cost)
        >>> dense = row(0, "ticket", 1.0, 700, 0.967)
        >>> iterative = [dense, row(1, "ticket", 0.8, 450, 0.972, 1000), row(1, "reinit", 0.8, 900, 0.951)]
        >>> print(table({"iterative": iterative, "random": [dense, row(1, "ticket", 0.8, 800, 0.966)]}))
                           dense            sparsest, kept %      level 1, 80.00 % of the weights kept
                   early stop  test acc %  winning  matching  early stop  test acc %  reinit  search steps
        iterative         700       96.70    80.00     80.00         450       97.20   95.10         1,000
        random            700       96.70        -     80.00         800       96.60       -             0
    """
    found = gathered(study)
    level, measure = shared_level(found), first_measured(all_results(study))
    controls = [arm for arm in all_arms(found) if arm != TICKET]
    reached = ["early stop", measure.column]
    rows = [["", *reached, "winning", "matching", *reached, *controls, "search steps"]]
    for name, by_arm in found.items():
        tickets, judged = by_arm[TICKET], verdict.judge(study[name])
        sparsest = [_percent(tickets[n]) if n else "-" for n in (judged.winning, judged.matching)]
        there = [*tables.cells(tickets[level], measure)]
        there += [tables.cells(by_arm.get(arm, {}).get(level), measure)[1] for arm in controls]
        there.append(f"{tickets[level].mean('search_steps'):,.0f}")
        rows.append([name, *tables.cells(tickets[0], measure), *sparsest, *there])
    heads = [("", 1), ("dense", 2), ("sparsest, kept %", 2), (kept(found, level), 3 + len(controls))]
    return "\n".join([*_aligned(heads, rows), *tables.notes(all_groups(found))])


def gathered(study: Study) -> Found:
    if not study:
        raise ValueError("Expected at least one experiment. Received: none.")
    found = {name: groups(results) for name, results in study.items()}
    for name, by_arm in found.items():
        if 0 not in by_arm.get(TICKET, {}):
            raise ValueError(f"Expected a result of the dense network in each experiment. {name!r} has none.")
    return found


def all_results(study: Study) -> list[Result]:
    return [result for results in study.values() for result in results]


def all_groups(found: Found) -> list[Group]:
    return [group for by_arm in found.values() for levels in by_arm.values() for group in levels.values()]


def all_arms(found: Found) -> list[str]:
    return list(dict.fromkeys(arm for by_arm in found.values() for arm in by_arm))


def shared_level(found: Found) -> int:
    """Returns the sparsest level that all experiments have."""
    return max(set.intersection(*(set(by_arm[TICKET]) for by_arm in found.values())))


def _percent(group: Group) -> str:
    return f"{100 * group.mean('density'):.2f}"


def kept(found: Found, level: int) -> str:
    """Returns `level 11, 8.59 % of the weights kept`."""
    percents = sorted({_percent(by_arm[TICKET][level]) for by_arm in found.values()}, key=float)
    return f"level {level}, {' to '.join(dict.fromkeys([percents[0], percents[-1]]))} % of the weights kept"


def _aligned(heads: Sequence[tuple[str, int]], rows: Sequence[Sequence[str]]) -> list[str]:
    """Returns lines in columns, the first to the left; above, heads that span so many of them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    above, start = [], 0
    for text, count in heads:
        width = sum(widths[start : start + count]) + len(tables.GAP) * (count - 1)
        widths[start] += max(0, len(text) - width)
        above.append(text.center(max(width, len(text))))
        start += count
    lines = [[row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])] for row in rows]
    return [tables.GAP.join(line).rstrip() for line in [above, *lines]]
