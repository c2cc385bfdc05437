"""How much two masks have in common, and how much they would have by chance."""

import dataclasses
import functools
import itertools
import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np
from scipy import signal, stats

from tf_lottery.analysis import permutation, tables
from tf_lottery.tickets import masks, seeds
from tf_lottery.tickets.masks import Arrays, Mask

ALL = "all layers"

Shapes = tuple[tuple[str, tuple[int, ...]], ...]


@dataclasses.dataclass(frozen=True)
class Overlap:
    """What two masks have in common in a layer, or in all together.

    Attributes:
        layer: the kernel's path, or `ALL`.
        densities: of the two masks there, in [0, 1].
        jaccard: |A and B| / |A or B| in [0, 1]: of the weights that either keeps, the share that both keep.
        expected: its expectation for independent random masks with as many weights in each layer.
        deviation: its standard deviation for such masks.
        matched: the same of `jaccard` with the hidden units of B in their best order, as
            `permutation.match` finds it; NaN where they are not matched.
        matched_expected: its mean over pairs of such random masks, matched in the same way.
    """

    layer: str
    densities: tuple[float, float]
    jaccard: float
    expected: float
    deviation: float
    matched: float = math.nan
    matched_expected: float = math.nan


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two masks and what they have in common.

    Attributes:
        group: what the two are to each other, such as `"ticket between replicates"`.
        level: how often the first was pruned.
        names: of the two.
        layers: as `overlap` returns them.
    """

    group: str
    level: int
    names: tuple[str, str]
    layers: Sequence[Overlap]

    @property
    def together(self) -> Overlap:
        return self.layers[-1]


def overlap(a: Arrays, b: Arrays, *, matched: bool = True, draws: int = 3) -> list[Overlap]:
    """Returns what two masks have in common: one `Overlap` per layer, the last of all together.

    Args:
        a: path -> bool array of the kernel's shape, in the network's order.
        b: a mask of the same network.
        matched: whether hidden units are matched as well, where the kernels are a chain.
        draws: pairs of random masks that `matched_expected` is the mean of. These are the
            same at each call.

    Raises:
        TypeError: an array is not of bools.
        ValueError: the masks are of different shapes, or of no weight at all.

    Example:
        >>> a = {"fc/kernel": np.array([[True, True, False, False]])}
        >>> b = {"fc/kernel": np.array([[True, False, True, False]])}
        >>> found = overlap(a, b)[-1]
        >>> f"{found.jaccard:.3f}, by chance {found.expected:.3f}"
        '0.333, by chance 0.389'
    """
    masks.check(a)
    masks.check(b)
    shapes, others = (tuple((path, np.shape(array)) for path, array in mask.items()) for mask in (a, b))
    if shapes != others:
        raise ValueError(f"Two masks of one network have the same shapes. Received {shapes} and {others}.")
    kept_a, kept_b = (tuple(int(np.count_nonzero(array)) for array in mask.values()) for mask in (a, b))
    sizes = tuple(math.prod(shape) for _, shape in shapes)
    parts = [(path, slice(i, i + 1)) for i, (path, _) in enumerate(shapes)] + [(ALL, slice(None))]
    after = by_match = itertools.repeat(math.nan)
    if matched and permutation.has_order(a):
        after = jaccards(a, permutation.match(b, a))
        by_match = matched_by_chance(kept_a, kept_b, shapes, draws)
    found = []
    for (name, part), *values in zip(parts, jaccards(a, b), after, by_match):
        counts = kept_a[part], kept_b[part], sizes[part]
        densities = tuple(sum(kept) / sum(counts[2]) for kept in counts[:2])
        found.append(Overlap(name, densities, values[0], *by_chance(*counts), *values[1:]))
    return found


def jaccards(a: Arrays, b: Arrays) -> list[float]:
    """Returns |A and B| / |A or B| of each layer, then of all together; 1 where neither keeps a weight."""
    both = [int(np.count_nonzero(a[path] & b[path])) for path in a]
    either = [int(np.count_nonzero(a[path] | b[path])) for path in a]
    return [n / of if of else 1.0 for n, of in zip([*both, sum(both)], [*either, sum(either)])]


@functools.lru_cache(maxsize=4096)
def by_chance(kept_a: Sequence[int], kept_b: Sequence[int], sizes: Sequence[int]) -> tuple[float, float]:
    """Returns mean and standard deviation of the Jaccard index of independent random masks.

    In a layer of n weights of which A keeps a and B keeps b, any as likely as any other, the number
    that both keep is hypergeometric: I ~ H(n, a, b). Of several layers these numbers are
    independent, and their sum is distributed as the convolution of their distributions. The index
    is I / (sum a + sum b - I), and its mean is summed over that distribution: exact but for
    rounding, and for tails of less than 1e-30. In large layers of density d it is near d / (2 - d).

    Args:
        kept_a: the number of weights that A keeps in each layer, as a tuple.
        kept_b: the same of B.
        sizes: the number of weights in each layer.

    Example:
        >>> f"{by_chance((2,), (2,), (4,))[0]:.4f}"  # 0, 1 or 2 in common: (1 * 0 + 4 * 1/3 + 1 * 1) / 6
        '0.3889'
    """
    low, chances = 0, np.ones(1)
    for a, b, n in zip(kept_a, kept_b, sizes, strict=True):
        law = stats.hypergeom(n, a, b)
        # The variance is at most the mean: by Bernstein's inequality less than exp(-70) lies further out.
        near = a * b / max(n, 1)
        reach = 12 * math.sqrt(near) + 50
        first = max(0, a + b - n, math.ceil(near - reach))
        numbers = np.arange(first, min(a, b, math.floor(near + reach)) + 1)
        low, chances = low + first, signal.convolve(chances, law.pmf(numbers))
    chances = np.maximum(chances, 0) / chances.sum()
    both = low + np.arange(len(chances))
    either = sum(kept_a) + sum(kept_b) - both
    index = np.where(either > 0, both / np.maximum(either, 1), 1.0)
    mean = float(chances @ index)
    return mean, math.sqrt(chances @ (index - mean) ** 2)


@functools.lru_cache(maxsize=4096)
def matched_by_chance(
    kept_a: Sequence[int], kept_b: Sequence[int], shapes: Shapes, draws: int = 3
) -> tuple[float, ...]:
    """Returns the mean Jaccard index of random masks after matching, of each layer and of all together.

    Args:
        kept_a: the number of weights that A keeps in each layer, as a tuple.
        kept_b: the same of B.
        shapes: path and shape of each kernel.
        draws: how many pairs of masks are drawn.
    """
    found = []
    for draw in range(draws):
        a, b = (_random(kept, shapes, "overlap", draw, i) for i, kept in enumerate((kept_a, kept_b)))
        found.append(jaccards(a, permutation.match(b, a)))
    return tuple(np.mean(found, axis=0).tolist())


def _random(kept: Sequence[int], shapes: Shapes, *key: int | str) -> Mask:
    rng, mask = seeds.generator(*key), {}
    for (path, shape), count in zip(shapes, kept, strict=True):
        mask[path] = (rng.permutation(math.prod(shape)) < count).reshape(shape)
    return mask


def mean(pairs: Sequence[Pair], layer: str = ALL) -> Overlap:
    """Returns the mean of each number over pairs, in one layer or all together."""
    found = [one for pair in pairs for one in pair.layers if one.layer == layer]
    numbers = {
        field.name: statistics.fmean(getattr(one, field.name) for one in found)
        for field in dataclasses.fields(Overlap)
        if field.type is float
    }
    densities = tuple(map(statistics.fmean, zip(*(one.densities for one in found), strict=True)))
    return Overlap(layer, densities, **numbers)


def grouped(pairs: Sequence[Pair]) -> dict[str, dict[int, list[Pair]]]:
    """Returns group -> level -> its pairs."""
    groups: dict[str, dict[int, list[Pair]]] = {}
    for pair in pairs:
        groups.setdefault(pair.group, {}).setdefault(pair.level, []).append(pair)
    return groups


def table(pairs: Sequence[Pair]) -> str:
    """Returns a table with a row for each level and a block for each group: means over its pairs.

    Behind each number, in parentheses, stands what there would be by chance. There is no column
    of matched masks where none are.
    """
    matched = any(not math.isnan(pair.together.matched) for pair in pairs)
    return _table(pairs, {"overlap %": (ALL, _direct), **({"matched %": (ALL, _matched)} if matched else {})})


def layer_table(pairs: Sequence[Pair]) -> str:
    """Returns such a table with a column for each layer, of masks as they are."""
    layers = [one.layer for one in pairs[0].layers[:-1]]
    return _table(pairs, {layer.removesuffix("/kernel"): (layer, _direct) for layer in layers})


def _direct(found: Overlap) -> str:
    return f"{100 * found.jaccard:.2f} ({100 * found.expected:.2f})"


def _matched(found: Overlap) -> str:
    return (
        "-"
        if math.isnan(found.matched)
        else f"{100 * found.matched:.2f} ({100 * found.matched_expected:.2f})"
    )


def _table(pairs: Sequence[Pair], columns: dict[str, tuple[str, Callable[[Overlap], str]]]) -> str:
    groups = grouped(pairs)
    levels = sorted({pair.level for pair in pairs})
    left, blocks = [["level", "density %"]], {group: [list(columns)] for group in groups}
    for level in levels:
        there = mean([pair for pair in pairs if pair.level == level])
        left.append([str(level), f"{100 * statistics.fmean(there.densities):.2f}"])
        for group, rows in blocks.items():
            of = groups[group].get(level)
            rows.append([text(mean(of, layer)) if of else "-" for layer, text in columns.values()])
    return tables.side_by_side(left, blocks)


def sentence(pairs: Sequence[Pair]) -> str:
    """Returns what the sparsest level of one group says, in plain words.

    How alike two masks are is told as (J - E) / (1 - E) of the Jaccard index J and what it is by
    chance, E: 0 as by chance, 1 the same. From 0.9 on they are nearly the same, below 0.1 different.

    Args:
        pairs: all of one group.
    """
    level = max(pair.level for pair in pairs)
    found = mean([pair for pair in pairs if pair.level == level])
    shares = [_share(found.jaccard, found.expected)]
    text = f"{round(100 * shares[0])} % of the way from chance to the same mask"
    if not math.isnan(found.matched):
        shares.append(_share(found.matched, found.matched_expected))
        text += f", {round(100 * shares[1])} % with units matched"
    words = ("the same", "nearly the same", "in part the same", "different")
    meant = words[sum(max(shares) < bound for bound in (1, 0.9, 0.1))]
    return f"{pairs[0].group}, {100 * statistics.fmean(found.densities):.2f} % kept: {meant}, {text}."


def _share(index: float, expected: float) -> float:
    return (index - expected) / (1 - expected) if expected < 1 else 1.0
