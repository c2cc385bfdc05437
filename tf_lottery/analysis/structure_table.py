"""Tickets beside random masks at equal density: the table of one level, and what it says."""

import dataclasses
import math
import re
import textwrap
from collections.abc import Callable, Mapping, Sequence

from tf_lottery.analysis import tables
from tf_lottery.analysis.aggregate import Group, first_measured, groups
from tf_lottery.analysis.structure import Quantities
from tf_lottery.tickets.masks import TICKET
from tf_lottery.training.history import Result

RANDOM_MASKS = ("shuffle", "random", "random_ticket")  # controls whose masks are drawn at random


@dataclasses.dataclass(frozen=True)
class Compared(Quantities, Result):
    """What a trained network has come to, and what it looks like."""

    @classmethod
    def of(cls, result: Result, quantities: Quantities) -> "Compared":
        return cls(**vars(result), **vars(quantities))


def table(networks: Sequence[Compared]) -> str:
    """Returns a table of one level: a row for each quantity, a column for each arm.

    Of several replicates it holds means, with the lowest and the highest behind. A quantity that no network
    has is left out.

    Args:
        networks: those of a level, in any order.

    Raises:
        ValueError: there are none.
    """
    arms, measure = _by_arm(networks), first_measured(networks)
    steps = {arm: tables.cells(group, measure, ranges=True) for arm, group in arms.items()}
    rows = [["", *arms], [measure.column, *(text for _, text in steps.values())]]
    rows.append(["early stop", *(text for text, _ in steps.values())])
    for field, (label, text) in _ROWS.items():
        if any(not math.isnan(value) for group in arms.values() for value in group.values(field)):
            rows.append([label, *(_cell(group, field, text) for group in arms.values())])
    labels, *columns = ([[cell] for cell in column] for column in zip(*rows, strict=True))
    text = tables.in_bands([tables.in_columns(labels, left=1), *map(tables.in_columns, columns)])
    kept, units = 100 * next(iter(arms.values())).mean("density"), networks[0].hidden_units
    head = f"Level {networks[0].level}: {kept:.3g} % of the weights" + f", {units} hidden units" * (units > 0)
    return "\n".join([head, text, *tables.notes(list(arms.values()), ranges=True)])


def sentence(networks: Sequence[Compared]) -> str:
    """Says in which quantities the tickets of a level are outside the range of random masks.

    All replicates of the ticket have to be, above or below those of all arms whose masks are drawn at
    random. Empty where there is no ticket or no such arm.

    Args:
        networks: those of a level, in any order.
    """
    arms = _by_arm(networks)
    random = [arm for arm in arms if has_random_mask(arm)]
    if not random or TICKET not in arms:
        return ""
    found: dict[str, list[str]] = {"higher": [], "lower": [], "not told apart": []}
    for field, (label, _) in _ROWS.items():
        tickets = arms[TICKET].values(field)
        others = [value for arm in random for value in arms[arm].values(field)]
        if any(map(math.isnan, [*tickets, *others])):
            continue
        where = "higher" if min(tickets) > max(others) else "lower" if max(tickets) < min(others) else ""
        found[where or "not told apart"].append(label)
    number = sum(len(arms[arm]) for arm in random)
    of = "the network" if number == 1 else f"all {number} networks"
    lines = [f"The ticket beside {of} with a random mask ({', '.join(random)}):"]
    for where, labels in found.items():
        if labels:
            start = f"  {where + ':':<16}"
            lines.append(textwrap.fill(start + ", ".join(labels), 110, subsequent_indent=" " * len(start)))
    return "\n".join(lines)


def has_random_mask(arm: str) -> bool:
    """Whether an arm's mask is drawn at random; that of `"shuffle_2"` is, as that of `"shuffle"`."""
    return re.sub(r"_\d+$", "", arm) in RANDOM_MASKS


_ROWS: Mapping[str, tuple[str, Callable[[float], str]]] = {
    "dead_units": ("dead units", "{:.4g}".format),
    "log10_paths": ("paths (log10)", "{:.2f}".format),
    "paths_times_random": ("paths / random", "{:.2f}".format),
    "in_degree_times_random": ("in-degree variance / random", "{:.2f}".format),
    "out_degree_times_random": ("out-degree variance / random", "{:.2f}".format),
    "components": ("connected components", "{:.4g}".format),
    "spectral_gap": ("spectral gap", "{:.3f}".format),
    "sign_agreement": ("sign agreement %", lambda share: f"{100 * share:.1f}"),
    "effective_rank_start": ("effective rank at start", "{:.1f}".format),
    "effective_rank_end": ("effective rank at end", "{:.1f}".format),
    "gradient_norm": ("gradient norm at start", "{:.3g}".format),
}


def _by_arm(networks: Sequence[Compared]) -> dict[str, Group]:
    return {arm: group for arm, levels in groups(networks).items() for group in levels.values()}


def _cell(group: Group, field: str, text: Callable[[float], str]) -> str:
    if math.isnan(group.mean(field)):
        return "-"
    mean, low, high = map(text, (group.mean(field), *group.range(field)))
    return mean if low == high else f"{mean} [{low} {high}]"
