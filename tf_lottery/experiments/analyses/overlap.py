"""Is it the same ticket each time? Overlap of masks between replicates, arms and runs."""

import itertools
import math
import os
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from tf_lottery.analysis import overlap as overlaps
from tf_lottery.analysis import tables
from tf_lottery.analysis.figures.overlap import plot_between, plot_overlap
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings, Scalar
from tf_lottery.analysis.overlap import Pair
from tf_lottery.tickets import masks
from tf_lottery.training import recorded
from tf_lottery.training.history import TICKET, Result
from tf_lottery.training.recorded import Recorded

_MOST_LAYERS = 6  # that have columns in a table
_LEGEND = """\
Overlap: of the weights that either mask keeps, the share that both keep (Jaccard index); in parentheses,
what independent random masks with as many weights in each layer have on average, exactly."""
_MATCHED = """\
Matched: with the hidden units of one mask in the order that makes the overlap largest, as far as found; in
parentheses, what the same matching finds in independent random masks."""
_NO_CHAIN = "Hidden units are not matched: that takes kernels that each take the units of the one before."
_UNMATCHED = """\
Hidden units are not matched: the runs start from the same weights, or their kernels do not each take the
units of the one before."""
_SAME_INIT = "Replicates start from the same initial weights and differ in their data order only."
_OTHER_INIT = "Replicates have initial weights and a data order of their own."
_NESTED = """\
The tickets of a replicate are nested, so the overlap of two of its levels is the ratio of their densities."""
_NOT_NESTED = (
    "The tickets of a replicate are not nested: some keep weights that were pruned at an earlier level."
)
_NOTHING = """\
There are no two masks to compare: one replicate, and no control with a mask of its own. Give the run more,
as by --config.replicates=3, or name several runs."""

Path = str | os.PathLike[str]
Tickets = dict[tuple[int, int], Recorded]  # (replicate, level) -> ticket


def analyze(folder: Path) -> Findings:
    """Returns the overlap of masks between a run's replicates, and between the arms of a replicate.

    Controls with the ticket's mask are left out. Figure `overlap`.
    """
    networks = recorded.compared(folder)
    if not networks:
        return NOTHING_TRAINED
    compared = _with_own_masks(networks)
    notes = [_NESTED if _is_nested(_tickets(networks)) else _NOT_NESTED]
    if len({network.result.replicate for network in networks}) > 1:
        entries = recorded.config(folder)
        notes.insert(0, _SAME_INIT if entries.get("same_init") else _OTHER_INIT)
    if alike := {n.result.arm for n in networks} - {n.result.arm for n in compared}:
        notes.append(f"Left out, as their masks are the ticket's: {', '.join(sorted(alike))}.")
    return _findings(list(_pairs_within(compared)), notes, alone=True)


def compare(runs: Mapping[str, Path]) -> Findings:
    """Returns the overlap of tickets between the replicates of each run, and between runs.

    Between runs, replicates of one number are compared at those levels whose densities are
    nearest to each other. Hidden units are matched unless both start from the same weights, in
    which a unit is what it is in the other. Figure `overlap` has the replicates of each run,
    and of two runs the overlap between them; that of more is figure `overlap_between`.

    Args:
        runs: name -> run directory.
    """
    tickets = {name: _tickets(recorded.networks(folder)) for name, folder in runs.items()}
    within = [pair for name, of in tickets.items() for pair in _pairs_within(of.values(), name)]
    between, notes = {}, []
    for a, b in itertools.combinations(tickets, 2):
        if _shapes(tickets[a]) != _shapes(tickets[b]):
            notes.append(f"Not compared, as their networks differ or are none yet: {a} and {b}.")
            continue
        by_replicate = _pairs_between((a, b), (tickets[a], tickets[b]))
        same = [r for r, pairs in by_replicate.items() if all(pair.together.jaccard == 1 for pair in pairs)]
        if 0 < len(same) < len(by_replicate):
            notes.append(
                f"Left out, as it is the same in {a} and {b}: replicate {', '.join(map(str, same))}."
            )
            by_replicate = {r: pairs for r, pairs in by_replicate.items() if r not in same}
        between[a, b] = [pair for pairs in by_replicate.values() for pair in pairs]
    every = [*within, *itertools.chain(*between.values())]
    if len(tickets) <= 2 or not any(between.values()):
        return _findings(every, notes)
    text, figures = _matrix(list(tickets), between)
    rest = _findings(within, notes) if within else Findings("\n".join([_LEGEND, *notes]))
    return Findings(f"{text}\n\n{rest.text}", _rows(every), {**figures, **rest.figures}, _scalars(every))


def _findings(pairs: Sequence[Pair], notes: Sequence[str], alone: bool = False) -> Findings:
    """Returns tables over levels, what they mean, and the figure; of one run, a table of layers too."""
    if not pairs:
        return Findings("\n".join([_NOTHING, *notes]))
    matched = any(not math.isnan(pair.together.matched) for pair in pairs)
    by_group = [[p for of in levels.values() for p in of] for levels in overlaps.grouped(pairs).values()]
    legend = [_LEGEND, _MATCHED if matched else _NO_CHAIN if alone else _UNMATCHED, *notes]
    parts = [overlaps.table(pairs), "\n".join(legend)]
    if alone and 2 < len(pairs[0].layers) <= _MOST_LAYERS + 1:
        parts.append(f"Overlap of each layer, %\n{overlaps.layer_table(by_group[0])}")
    parts.append("\n".join(map(overlaps.sentence, by_group)))
    return Findings("\n\n".join(parts), _rows(pairs), {"overlap": plot_overlap(pairs)}, _scalars(pairs))


def _matrix(
    names: Sequence[str], between: Mapping[tuple[str, str], Sequence[Pair]]
) -> tuple[str, dict[str, Figure]]:
    """Returns the overlap of runs with each other at the sparsest density that all have: table and figure."""
    density = max(min(_density(pair) for pair in pairs) for pairs in between.values() if pairs)
    found = {}
    for both, pairs in between.items():
        nearest = min((_density(pair) for pair in pairs), key=lambda d: abs(d - density), default=0)
        found[both] = [pair for pair in pairs if _density(pair) == nearest]
    index = {both: overlaps.mean(pairs) for both, pairs in found.items() if pairs}
    blocks = {}
    for b in names:
        there = [index.get((a, b)) or index.get((b, a)) for a in names]
        blocks[b] = [[f"{100 * one.jaccard:.2f}" if one else "-"] for one in there]
    chances = sorted(100 * one.expected for one in index.values())
    title = f"Overlap of tickets that keep {100 * density:.2f} % of the weights"
    chance = f"By chance: {chances[0]:.2f} to {chances[-1]:.2f} %."
    text = "\n".join([f"{title}, %", tables.side_by_side([[name] for name in names], blocks), chance])
    return text, {"overlap_between": plot_between(names, {b: p for b, p in found.items() if p}, title)}


def _pairs_within(networks: Iterable[Recorded], name: str = "") -> Iterator[Pair]:
    """Yields the pairs of one arm, and those of one replicate; groups of a single arm have that name."""
    networks = sorted(networks, key=lambda network: network.result.level)
    for level, there in itertools.groupby(networks, key=lambda network: network.result.level):
        found = [(network.result, network.mask()) for network in there]
        for (a, mask_a), (b, mask_b) in itertools.combinations(found, 2):
            if a.arm == b.arm:
                group = name or f"{a.arm} between replicates"
            elif a.replicate == b.replicate:
                group = f"{a.arm} and {b.arm}"
            else:
                continue
            names = _name(a, name), _name(b, name)
            yield Pair(group, level, names, overlaps.overlap(mask_a, mask_b))


def _pairs_between(names: tuple[str, str], tickets: tuple[Tickets, Tickets]) -> dict[int, list[Pair]]:
    """Returns replicate -> the pairs of its tickets in two runs."""
    found: dict[int, list[Pair]] = {}
    for replicate in sorted(set.intersection(*({r for r, level in of if level == 0} for of in tickets))):
        a, b = ({level: ticket for (r, level), ticket in of.items() if r == replicate} for of in tickets)
        matched = not masks.equal(a[0].start(), b[0].start())
        for i, j in _nearest(a, b):
            both = overlaps.overlap(a[i].mask(), b[j].mask(), matched=matched)
            name = _name(a[i].result, names[0]), _name(b[j].result, names[1])
            found.setdefault(replicate, []).append(Pair(" and ".join(names), i, name, both))
    return found


def _nearest(a: Mapping[int, Recorded], b: Mapping[int, Recorded]) -> list[tuple[int, int]]:
    """Returns the levels of which each has the density nearest to the other's, by their ratio."""

    def nearest(ticket: Recorded, others: Mapping[int, Recorded]) -> int:
        return min(others, key=lambda level: abs(_log_density(ticket) - _log_density(others[level])))

    there = {level: nearest(ticket, b) for level, ticket in a.items()}
    return [(i, j) for i, j in there.items() if nearest(b[j], a) == i]


def _log_density(ticket: Recorded) -> float:
    return math.log(max(ticket.result.density, 1e-12))


def _tickets(networks: Iterable[Recorded]) -> Tickets:
    found = (network for network in networks if network.result.arm == TICKET)
    return {(ticket.result.replicate, ticket.result.level): ticket for ticket in found}


def _with_own_masks(networks: Sequence[Recorded]) -> list[Recorded]:
    """Returns the tickets, and the controls that have another mask."""
    tickets, found = _tickets(networks), []
    for network in networks:
        ticket = tickets.get((network.result.replicate, network.result.level), network)
        if network is ticket or not masks.equal(network.mask(), ticket.mask()):
            found.append(network)
    return found


def _is_nested(tickets: Tickets) -> bool:
    """Whether no ticket keeps what the one before it has pruned."""
    for (replicate, level), ticket in tickets.items():
        before = tickets.get((replicate, level - 1))
        if before:
            kept = before.mask()
            if any((array & ~kept[path]).any() for path, array in ticket.mask().items()):
                return False
    return True


def _shapes(tickets: Tickets) -> dict[str, tuple[int, ...]] | None:
    return next(({p: array.shape for p, array in t.mask().items()} for t in tickets.values()), None)


def _density(pair: Pair) -> float:
    return statistics.fmean(pair.together.densities)


def _name(result: Result, run: str) -> str:
    parts = [run, f"replicate {result.replicate}", f"level {result.level}", result.arm]
    return ", ".join(filter(None, parts))


def _rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    rows = []
    for pair in pairs:
        for one in pair.layers:
            row = {
                "pair": pair.group,
                "level": pair.level,
                "a": pair.names[0],
                "b": pair.names[1],
                **vars(one),
            }
            row["density_a"], row["density_b"] = row.pop("densities")
            rows.append({name: "" if value != value else value for name, value in row.items()})
    return rows


def _scalars(pairs: Sequence[Pair]) -> list[Scalar]:
    """Returns a card for each layer, with lines over levels."""
    scalars = []
    for group, levels in overlaps.grouped(pairs).items():
        for level, of in levels.items():
            for layer in (one.layer for one in of[0].layers):
                found = overlaps.mean(of, layer)
                lines = {
                    group: found.jaccard,
                    f"{group}, by chance": found.expected,
                    f"{group}, matched": found.matched,
                    f"{group}, matched by chance": found.matched_expected,
                }
                scalars += [Scalar(run, f"overlap/{layer}", level, v) for run, v in lines.items() if v == v]
    return scalars
