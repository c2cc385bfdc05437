"""How stable the networks of a run are to the noise of SGD (1912.05671): pairs of copies, in a table.

A copy and another were trained from the same weights on batches in two orders: see
`analysis/connectivity.py` for the line between them.
"""

import dataclasses
import functools
import itertools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tf_lottery.analysis import tables, verdict
from tf_lottery.analysis.aggregate import Group
from tf_lottery.analysis.connectivity import STABLE, Path
from tf_lottery.training.history import TICKET, Result

_COLUMNS = ["level", "density %", "test err %", "instability", "on train", "loss barrier", "distance %"]
_COLUMNS += ["stable", "matching"]


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two copies of a network that were trained from the same weights, in two data orders.

    Attributes:
        arm: of the network: `"ticket"`, of which level 0 is the dense network, or a control.
        rewind_step: the step k that both were trained from.
        orders: the numbers of the two data orders.
        results: the rows of the two copies.
        path: the line between them, with `test_error`, `test_loss`, `train_error`, `train_loss`.
        distance: `relative_distance`, over the prunable weights.
    """

    arm: str
    rewind_step: int
    orders: tuple[int, int]
    results: tuple[Result, Result]
    path: Path
    distance: float

    @property
    def level(self) -> int:
        return self.results[0].level

    @property
    def replicate(self) -> int:
        return self.results[0].replicate

    @property
    def density(self) -> float:
        return self.results[0].density


@dataclasses.dataclass(frozen=True)
class Pairs:
    """All pairs, of every replicate, of one arm at one level from one step: not empty."""

    pairs: tuple[Pair, ...]

    @property
    def density(self) -> float:
        return statistics.fmean(pair.density for pair in self.pairs)

    def curve(self, name: str) -> np.ndarray:
        """Returns the mean curve, float (points,)."""
        return np.mean([pair.path.curves[name] for pair in self.pairs], axis=0)

    def ends(self, name: str) -> float:
        return statistics.fmean(pair.path.ends(name) for pair in self.pairs)

    def barriers(self, name: str) -> list[float]:
        return [pair.path.barrier(name) for pair in self.pairs]

    @functools.cached_property
    def instability(self) -> float:
        """The mean barrier of the test error, a fraction in [0, 1]."""
        return statistics.fmean(self.barriers("test_error"))

    @property
    def stable(self) -> bool:
        """Whether the instability is below 2 %."""
        return self.instability < STABLE

    @property
    def distance(self) -> float:
        return statistics.fmean(pair.distance for pair in self.pairs)

    @property
    def copies(self) -> dict[tuple[int, int], Result]:
        """(replicate, data order) -> its row."""
        return {(p.replicate, o): r for p in self.pairs for o, r in zip(p.orders, p.results, strict=True)}

    @property
    def group(self) -> Group:
        return Group(tuple(self.copies.values()))


Found = dict[tuple[str, int], dict[int, Pairs]]


def gathered(pairs: Sequence[Pair]) -> Found:
    """Returns (arm, rewind step) -> level -> all its pairs; tickets first, steps and levels ascending.

    Raises:
        ValueError: there are none.
    """
    if not pairs:
        raise ValueError("Expected at least one pair of trained copies. Received: none.")

    def place(pair: Pair) -> tuple:
        return pair.arm != TICKET, pair.arm, pair.rewind_step, pair.level

    found: Found = {}
    for (_, arm, step, level), same in itertools.groupby(sorted(pairs, key=place), key=place):
        found.setdefault((arm, step), {})[level] = Pairs(tuple(same))
    return found


def matching_levels(found: Found, arm: str, step: int) -> list[int] | None:
    """Returns the levels whose copies match those of the dense network, as `verdict.judge` has it.

    Both are trained from the same step. None where the dense network was not looked at.
    """
    dense = found.get((TICKET, step), {}).get(0)
    if dense is None:
        return None
    return [level for level, pairs in found[arm, step].items() if level and _matches(pairs, dense, level)]


def rows(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """Returns a row for each point of each line; errors, instability and distance are fractions."""
    return [
        {
            "replicate": pair.replicate,
            "level": pair.level,
            "arm": pair.arm,
            "density": pair.density,
            "rewind_step": pair.rewind_step,
            "pair": "-".join(map(str, pair.orders)),
            "alpha": float(alpha),
            **{name: float(curve[i]) for name, curve in pair.path.curves.items()},
            "instability": pair.path.barrier("test_error"),
            "loss_barrier": pair.path.barrier("test_loss"),
            "relative_distance": pair.distance,
        }
        for pair in pairs
        for i, alpha in enumerate(pair.path.alphas)
    ]


def table(pairs: Sequence[Pair]) -> str:
    """Returns a table with a row for each level, by arm and rewind step, and below it what that says.

    Raises:
        ValueError: there are no pairs.
    """
    found = gathered(pairs)
    lines = [_COLUMNS]
    for (arm, step), levels in found.items():
        matching = matching_levels(found, arm, step)
        for level, same in levels.items():
            match = "-" if level == 0 or matching is None else _yes(level in matching)
            density = f"{100 * same.density:.2f}"
            lines.append([str(level), density, *_numbers(same), _yes(same.stable), match])
    head, *shown = tables.in_columns(lines)
    text = []
    for (arm, step), levels in found.items():
        text += [f"arm {arm}, copies trained from step {step}", head, *shown[: len(levels)], ""]
        shown = shown[len(levels) :]
    return "\n".join([*text, *_notes(found), "", *_sentences(found)])


def _numbers(same: Pairs) -> list[str]:
    barriers = same.barriers("test_error")
    highest = f" [{100 * max(barriers):.2f}]" if len(barriers) > 1 else ""
    return [
        f"{100 * same.ends('test_error'):.2f}",
        f"{100 * same.instability:.2f}{highest}",
        f"{100 * statistics.fmean(same.barriers('train_error')):.2f}",
        f"{statistics.fmean(same.barriers('test_loss')):.4f}",
        f"{100 * same.distance:.0f}",
    ]


def _notes(found: Found) -> list[str]:
    most = max(len(same.pairs) for levels in found.values() for same in levels.values())
    return [
        "instability: points of test error at the worst place on the line between two copies, above the mean",
        f"of its ends; stable below {100 * STABLE:g} (1912.05671). on train: the same of training error.",
        "distance: between the copies, of the way each went. matching: as in the report, by the copies.",
        *([f"Means over {most} pairs, [highest]."] if most > 1 else []),
    ]


def _sentences(found: Found) -> list[str]:
    """Returns down to where the networks are stable, and from which step on the dense one is."""
    sentences = []
    for (arm, step), levels in found.items():
        states = {
            "stable": [level for level, same in levels.items() if same.stable],
            "not stable": [level for level, same in levels.items() if not same.stable],
            "matching": matching_levels(found, arm, step) or [],
        }
        parts = [f"{state} at {_levels(at, levels)}" for state, at in states.items() if at]
        sentences.append(f"From step {step}, arm {arm}: {'; '.join(parts)}.")
    dense = {step: levels[0] for (arm, step), levels in found.items() if arm == TICKET and 0 in levels}
    if dense:
        stable = list(itertools.takewhile(lambda step: dense[step].stable, reversed(dense)))
        end = f"stable from step {stable[-1]} on" if stable else f"not stable yet at step {max(dense)}"
        looked = f", of steps {', '.join(map(str, dense))}" if len(dense) > 1 else ""
        sentences.append(f"The dense network is {end}{looked}.")
    return sentences


def _levels(chosen: Sequence[int], levels: Mapping[int, Pairs]) -> str:
    """Returns `levels 0-4, 10 (100 to 10.8 % kept)`."""
    runs: list[list[int]] = []
    for level in chosen:
        if runs and runs[-1][-1] == level - 1:
            runs[-1].append(level)
        else:
            runs.append([level])
    named = ", ".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else str(run[0]) for run in runs)
    kept = [f"{100 * levels[level].density:.3g}" for level in (chosen[0], chosen[-1])]
    many = len(chosen) > 1
    return f"level{'s' * many} {named} ({' to '.join(kept[: 1 + many])} % kept)"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _matches(pairs: Pairs, dense: Pairs, level: int) -> bool:
    numbers = {copy: number for number, copy in enumerate(dense.copies | pairs.copies)}
    compared = [
        dataclasses.replace(result, arm=TICKET, replicate=numbers[copy])
        for same in (dense, pairs)
        for copy, result in same.copies.items()
    ]
    return verdict.judge(compared).matching == level
