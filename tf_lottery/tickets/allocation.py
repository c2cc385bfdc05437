"""Scopes: how many weights go, and from which layers.

An allocation takes the layers that are to be pruned and returns pools: layers, and how
many of the lowest scores go from them taken together. To add one, write such a
function and name it in `SCOPES`.
"""

import collections
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from tf_lottery import names
from tf_lottery.tickets.structure import NOfM, Structure

_NOTHING = np.empty(0)


class Layer(NamedTuple):
    """What an allocation knows of a layer. It counts groups: single weights, units, blocks.

    Attributes:
        path: the kernel's.
        shape: the kernel's.
        fraction: the share of `left` to remove, in (0, 1).
        size: how many there are, pruned ones too.
        left: how many there are to prune.
        first: whether the kernel is the first of the network.
        last: whether it is the last.
        groups: which ones are still there: all that are `left`, less what earlier rounds removed.
        values: the scores of those.
        scores: the scores of the single weights in them.
    """

    path: str
    shape: tuple[int, ...]
    fraction: float
    size: int
    left: int
    first: bool
    last: bool
    groups: np.ndarray = _NOTHING
    values: np.ndarray = _NOTHING
    scores: np.ndarray = _NOTHING


Layers = Sequence[Layer]
Pools = Sequence[tuple[Layers, int]]


def each(layers: Layers) -> Pools:
    """Each layer by itself."""
    return [([layer], round(layer.fraction * layer.left)) for layer in layers]


def together(layers: Layers) -> Pools:
    """The lowest of all layers, wherever they are."""
    return [(layers, _total(layers))]


def normalized(layers: Layers) -> Pools:
    """Of all layers together, with each layer's scores divided by their L2 norm (as JaxPruner does)."""
    return together([layer._replace(values=layer.values / _norm(layer.scores)) for layer in layers])


def erk(layers: Layers) -> Pools:
    """Erdős–Rényi-Kernel (1911.11134): the density of a layer goes as sum(shape) / prod(shape).

    None is above 1; what a layer cannot hold, the others do.
    """
    weights = [layer.size * sum(layer.shape) / math.prod(layer.shape) for layer in layers]
    return _leaving(layers, share(_kept(layers), weights, [layer.left for layer in layers]))


def uniform_plus(layers: Layers) -> Pools:
    """All layers alike, but a convolution that comes first stays, and 20 % of the last (1902.09574)."""
    least = [_floor(layer) for layer in layers]
    if sum(least) > _kept(layers):
        raise ValueError(
            f"scope='uniform_plus' cannot leave only {_kept(layers)}: a first convolution and 20 % of the "
            f"last layer stay, {sum(least)} in all. Pass fewer levels, a smaller fraction, or scope='erk'."
        )
    sizes = [layer.size for layer in layers]
    return _leaving(layers, share(_kept(layers), sizes, [layer.left for layer in layers], least))


def threshold(layers: Layers) -> Pools:
    """What scores 0 or less, whatever the fraction: the own mask of learned gates."""
    return [([layer], np.count_nonzero(layer.values <= 0)) for layer in layers]


SCOPES: Mapping[str, Callable[[Layers], Pools]] = {
    "layer": each,
    "global": together,
    "global_normalized": normalized,
    "erk": erk,
    "uniform_plus": uniform_plus,
    "threshold": threshold,
}


def weights_left(
    shapes: Mapping[str, tuple[int, ...]],
    fractions: Mapping[str, float],
    scope: str,
    kind: Structure | NOfM,
) -> Iterator[int]:
    """Yields how many weights each level leaves of kernels of these shapes, until it no longer falls.

    Raises:
        ValueError: it depends on the scores: with scope `"threshold"`, with layers taken
            together that have several fractions or groups of several sizes, and with blocks cut off
            at the edges.
    """
    allocate, paths = names.find(scope, SCOPES, "scope"), list(shapes)
    pruned = {path: shape for path, shape in shapes.items() if fractions[path] > 0 and math.prod(shape)}
    left = sum(map(math.prod, shapes.values()))
    if isinstance(kind, NOfM):
        kind.check_scope(scope)
        yield from (left - removed for removed in kind.removed(pruned))
        return
    if allocate is threshold:
        raise ValueError(
            "target_density cannot be known beforehand with scope='threshold': it goes by the scores alone. "
            "Pass levels instead."
        )
    sizes = {path: kind.sizes(path, shape) for path, shape in pruned.items()}
    layers = []
    for path, shape in pruned.items():
        size = kind.size(path, shape)
        layers.append(Layer(path, shape, fractions[path], size, size, path == paths[0], path == paths[-1]))
    while layers:
        before, smaller = left, {}
        for pool, count in allocate(layers):
            left -= count * _group_size(pool, sizes, scope, kind)
            for layer in pool:  # from which one they go makes no difference to later totals
                taken = min(count, layer.left)
                smaller[layer.path], count = layer.left - taken, count - taken
        if left == before:
            return
        yield left
        layers = [layer._replace(left=smaller[layer.path]) for layer in layers]


def share(
    total: int, weights: Sequence[float], most: Sequence[int], least: Sequence[int] | int = 0
) -> list[int]:
    """Divides `total` into whole numbers in proportion to `weights`, within bounds.

    The numbers are `clip(round(rate * weights), least, most)` at the rate that gives the
    total (Webster's method); where no rate does, the first of those that would be rounded
    up together are. As the total falls no number rises, so masks that follow it are nested.

    Args:
        total: between `sum(least)` and `sum(most)`.
        weights: above 0.
        most: the upper bounds.
        least: the lower bounds, none above its `most`.

    Example:
        >>> share(10, [1, 1, 2], most=[9, 1, 9])
        [3, 1, 6]
    """
    weights, most = np.asarray(weights, np.float64), np.asarray(most)

    def rounded(rate: float) -> np.ndarray:
        return np.clip(np.floor(rate * weights + 0.5), least, most).astype(int)

    low, high = 0.0, float(np.max(most / weights)) + 1
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if rounded(middle).sum() <= total else (low, middle)
    counts = rounded(low)
    tied = np.flatnonzero(rounded(high) > counts)
    counts[tied[: total - counts.sum()]] += 1
    return counts.tolist()


def _group_size(pool: Layers, sizes: Mapping[str, tuple[int, int]], scope: str, kind: Structure) -> int:
    if len({layer.fraction for layer in pool}) > 1:
        raise ValueError(
            f"target_density with scope={scope!r} needs one fraction for all kernels: "
            "pass layer_fractions={}, or levels instead of target_density."
        )
    weights = {size for layer in pool for size in sizes[layer.path]}
    if len(weights) > 1:
        raise ValueError(
            f"target_density cannot be known beforehand with scope={scope!r} and structure={kind.name!r}: "
            f"what is pruned as one has {min(weights)} to {max(weights)} weights in "
            f"{', '.join(layer.path for layer in pool)}. Pass levels instead."
        )
    return weights.pop()


def _total(layers: Layers) -> int:
    # By fraction, so that it does not depend on how what is left lies in the layers.
    left = collections.Counter()
    for layer in layers:
        left[layer.fraction] += layer.left
    return round(sum(fraction * count for fraction, count in left.items()))


def _kept(layers: Layers) -> int:
    return sum(layer.left for layer in layers) - _total(layers)


def _leaving(layers: Layers, counts: Sequence[int]) -> Pools:
    return [([layer], layer.left - count) for layer, count in zip(layers, counts)]


def _floor(layer: Layer) -> int:
    if layer.first and len(layer.shape) >= 3:
        return layer.left
    return min(layer.left, math.ceil(layer.size / 5)) if layer.last else 0


def _norm(scores: np.ndarray) -> np.float64:
    norm = np.linalg.norm(scores.astype(np.float64))
    return norm if 0 < norm < np.inf else np.float64(1)
