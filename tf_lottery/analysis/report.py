"""What is said of a search in words and numbers."""

from collections.abc import Sequence

from tf_lottery.analysis import tables, verdict
from tf_lottery.training.history import Result


def text(results: Sequence[Result]) -> str:
    """Returns the table of a search, that of paired differences where there are any, and the verdict.

    Args:
        results: one for each trained network of a ticket or a control.

    Raises:
        ValueError: there are no results.
    """
    parts = [tables.table(results), tables.difference_table(results), verdict.judge(results).sentence]
    return "\n\n".join(filter(None, parts))
