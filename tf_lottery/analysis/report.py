"""What is said of a search in words and numbers."""

from collections.abc import Sequence

from tf_lottery.analysis import tables, verdict
from tf_lottery.training.history import Failure, Result


def text(results: Sequence[Result], failures: Sequence[Failure] = ()) -> str:
    """Returns the table of a search, that of paired differences where there are any, and the verdict.

    Args:
        results: one for each trained network of a ticket or a control.
        failures: the networks that were given up, which are named at the end.

    Raises:
        ValueError: there are no results.
    """
    parts = [tables.table(results), tables.difference_table(results), verdict.judge(results).sentence]
    return "\n\n".join(filter(None, [*parts, given_up(failures)]))


def given_up(failures: Sequence[Failure]) -> str:
    """Returns a line for each network that was given up, under a heading; nothing where none was."""
    if not failures:
        return ""
    name = "level {f.level}  {f.arm}"
    if {failure.replicate for failure in failures} != {1}:
        name = f"replicate {{f.replicate}}  {name}"
    lines = [f"  {name.format(f=failure)}: {failure.seen}." for failure in failures]
    head = (
        "Given up, and with a ticket the levels after it (lower the learning rate, or look for NaN in data):"
    )
    return "\n".join([head, *lines])
