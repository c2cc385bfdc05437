"""From scores to a smaller mask, with exact counts."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from tf_lottery import names
from tf_lottery.tickets import allocation, masks
from tf_lottery.tickets import structure as structures
from tf_lottery.tickets.allocation import SCOPES, Layer
from tf_lottery.tickets.masks import Arrays, Mask
from tf_lottery.tickets.structure import UNITS, UNSTRUCTURED, NOfM, Structure


def prune(
    mask: Arrays,
    scores: Arrays,
    fractions: Mapping[str, float],
    scope: str = "layer",
    structure: str = UNSTRUCTURED,
) -> Mask:
    """Removes the lowest-scored of the remaining weights.

    Exactly `round(p * n)` of n remaining weights go; among equal scores those of
    the highest index. A weight that is pruned stays pruned. A layer with fraction 0 is
    left out, in every scope. Warns of layers that this empties (`masks.LayerCollapse`).

    Args:
        mask: path -> bool array, the weights that are left.
        scores: path -> array of the same shape.
        fractions: path -> the share p of the layer's remaining weights to remove, in [0, 1).
        scope: `"layer"` prunes each layer by itself. The others remove the same total from
            all layers: `"global"` the lowest of all together, `"global_normalized"` so too
            with each layer's scores divided by their L2 norm (of the weights that are left);
            `"erk"` (1911.11134) leaves densities in proportion to `sum(shape) / prod(shape)`,
            `"uniform_plus"` (1902.09574) equal ones, but a convolution that comes first stays and
            20 % of the last layer does. `"threshold"` removes what scores 0 or less,
            whatever the fractions.
        structure: what is pruned as one and counted, with the mean score of its remaining
            weights: `"unstructured"`, `"units"`, `"block:4x1"` (any H x W). `"2:4"` (any N:M)
            takes the lowest of every M inputs, whatever the fractions, until N are left:
            it has M - N levels. See `structure.resolve`.

    Raises:
        ValueError: an unknown scope or structure, a fraction that is missing or out of range,
            a score that is NaN; with N:M another scope than `"layer"`, or nothing left to
            remove; with `"uniform_plus"` fewer weights to leave than must stay.

    Example:
        >>> mask = {"fc/kernel": np.ones(4, bool)}
        >>> prune(mask, {"fc/kernel": np.array([3.0, 1.0, 2.0, 4.0])}, {"fc/kernel": 0.5})
        {'fc/kernel': array([ True, False, False,  True])}
    """
    _check_fractions(mask, fractions)
    return _prune(mask, mask, scores, fractions, scope, structure)


def prune_in_rounds(
    mask: Arrays,
    score: Callable[[Mask], Arrays],
    fractions: Mapping[str, float],
    scope: str = "layer",
    structure: str = UNSTRUCTURED,
    rounds: int = 1,
) -> Mask:
    """Prunes bit by bit, with new scores of what is left each time (as 2006.05467 does).

    After round r of R the share `1 - (1 - p) ** (r / R)` of what `mask` keeps has gone; in
    the end as many weights as `prune` removes. N:M and `"threshold"` have one round.

    Args:
        mask: path -> bool array, the weights that are left.
        score: takes a mask; returns path -> array of scores.
        fractions: as `prune` has it.
        scope: as `prune` has it.
        structure: as `prune` has it.
        rounds: R, at least 1.

    Raises:
        ValueError: `rounds` is below 1, or what `prune` refuses.

    Example:
        >>> mask, weights = {"fc/kernel": np.ones(4, bool)}, {"fc/kernel": np.array([3.0, 1.0, 2.0, 4.0])}
        >>> prune_in_rounds(mask, lambda mask: masks.apply(mask, weights), {"fc/kernel": 0.5}, rounds=2)
        {'fc/kernel': array([ True, False, False,  True])}
    """
    if rounds < 1:
        raise ValueError(f"rounds must be at least 1. Received {rounds}.")
    _check_fractions(mask, fractions)
    if scope == "threshold" or isinstance(structures.resolve(structure), NOfM):
        rounds = 1
    left = {path: np.array(array) for path, array in mask.items()}
    for r in range(1, rounds + 1):
        shares = {path: 1 - (1 - p) ** (r / rounds) for path, p in fractions.items()}
        # In the end the fractions themselves, for the powers round.
        left = _prune(mask, left, score(left), shares if r < rounds else fractions, scope, structure)
    return left


def layer_fractions(
    paths: Sequence[str],
    prune_fraction: float,
    overrides: Mapping[str, float] | None = None,
    structure: str = UNSTRUCTURED,
) -> dict[str, float]:
    """Returns path -> fraction to remove per level.

    Args:
        paths: the kernels, in the order of the network.
        prune_fraction: the fraction of every kernel that has no other.
        overrides: path or layer name -> fraction. None halves the fraction of the
            last kernel, as 1803.03635 does; `{}` makes all alike.
        structure: with `"units"` None leaves the last kernel out: its units are the classes.

    Raises:
        ValueError: a fraction is not in [0, 1), or an override names no kernel.

    Example:
        >>> layer_fractions(["fc1/kernel", "output/kernel"], 0.2)
        {'fc1/kernel': 0.2, 'output/kernel': 0.1}
    """
    if overrides is None:
        overrides = {paths[-1]: 0.0 if structure == UNITS else prune_fraction / 2}
    fractions = dict.fromkeys(paths, prune_fraction)
    for name, fraction in overrides.items():
        matches = [path for path in paths if path == name or path.startswith(f"{name}/")]
        if not matches:
            raise ValueError(names.unknown(name, paths, "kernel in layer_fractions"))
        fractions.update(dict.fromkeys(matches, fraction))
    for path, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise ValueError(f"The fraction to prune must be in [0, 1). Received {fraction} for {path!r}.")
    return fractions


def levels_to(
    density: float,
    shapes: Mapping[str, tuple[int, ...]],
    fractions: Mapping[str, float],
    scope: str = "layer",
    structure: str = UNSTRUCTURED,
) -> int:
    """Returns the number of levels after which the density is at or below `density`.

    Args:
        density: in (0, 1).
        shapes: path -> shape of the kernel, in the order of the network; none of it is pruned.
        fractions: as `prune` has it.
        scope: as `prune` has it.
        structure: as `prune` has it.

    Raises:
        ValueError: `density` is out of range, or is never reached, or cannot be known
            beforehand: see `allocation.weights_left`.

    Example:
        >>> levels_to(0.5, {"fc1/kernel": (300, 100)}, {"fc1/kernel": 0.2})
        4
    """
    if not 0 < density < 1:
        raise ValueError(f"target_density must be in (0, 1). Received {density}.")
    total = kept = sum(math.prod(shape) for shape in shapes.values())
    kind = structures.resolve(structure)
    for level, kept in enumerate(allocation.weights_left(shapes, fractions, scope, kind), 1):
        if kept <= density * total:
            return level
    remedy = "take a smaller N" if isinstance(kind, NOfM) else "raise prune_fraction"
    raise ValueError(
        f"These fractions never reach target_density={density}, they end at {kept / total:.3g}: {remedy}."
    )


def _prune(
    start: Arrays, mask: Arrays, scores: Arrays, fractions: Mapping[str, float], scope: str, structure: str
) -> Mask:
    """Prunes `start`, of which earlier rounds have left `mask`: what they removed counts."""
    allocate, kind = names.find(scope, SCOPES, "scope"), structures.resolve(structure)
    _check_scores(mask, scores)
    paths = [path for path in mask if fractions[path] > 0 and np.size(mask[path])]
    pruned = {path: np.array(array) for path, array in mask.items()}
    if isinstance(kind, NOfM):
        kind.check_scope(scope)
        pruned = kind.prune(pruned, scores, paths)
    elif paths:
        layers = [_layer(path, start, pruned, scores, fractions, kind) for path in paths]
        for pool, count in allocate(layers):
            removed = sum(layer.left - len(layer.values) for layer in pool)
            lowest = _lowest([layer.values for layer in pool], count - removed)
            for layer, gone in zip(pool, lowest):
                kind.remove(layer.path, pruned[layer.path], layer.groups[gone])
    emptied = [path for path in masks.empty_layers(pruned) if np.any(mask[path])]
    if emptied:
        text = (
            f"At density {masks.density(pruned):.4g} no weight is left in {', '.join(emptied)}: unless "
            "something leads round it, the network does not see its inputs. Prune less, or by another scope."
        )
        warnings.warn(text, masks.LayerCollapse, stacklevel=3)
    return pruned


def _layer(
    path: str,
    start: Arrays,
    mask: Mask,
    scores: Arrays,
    fractions: Mapping[str, float],
    kind: Structure,
) -> Layer:
    paths, shape = list(mask), mask[path].shape
    of_weights = np.asarray(scores[path])[mask[path]]
    groups, values = kind.pool(path, mask[path], of_weights)
    return Layer(
        path=path,
        shape=shape,
        fraction=fractions[path],
        size=kind.size(path, shape),
        left=kind.left(path, np.asarray(start[path])),
        first=path == paths[0],
        last=path == paths[-1],
        groups=groups,
        values=values,
        scores=of_weights,
    )


def _lowest(values: Sequence[np.ndarray], count: int) -> list[np.ndarray]:
    """Returns for each array which of its values are among the `count` lowest of all."""
    pooled = np.concatenate(values)
    lowest = np.zeros(len(pooled), bool)
    if count > 0:
        highest = np.partition(pooled, count - 1)[count - 1]
        lowest = pooled < highest
        # Among equal scores the highest index is the first to go.
        tied = np.flatnonzero(pooled == highest)
        lowest[tied[len(tied) - (count - np.count_nonzero(lowest)) :]] = True
    return np.split(lowest, np.cumsum([len(array) for array in values])[:-1])


def _check_fractions(mask: Arrays, fractions: Mapping[str, float]) -> None:
    masks.check(mask)
    for path in mask:
        if path not in fractions:
            raise ValueError(f"fractions has nothing for {path!r}: give its share to prune, or 0.")
        if not 0 <= fractions[path] < 1:
            raise ValueError(f"The fraction to prune must be in [0, 1). Received {fractions[path]}.")


def _check_scores(mask: Arrays, scores: Arrays) -> None:
    for path, array in mask.items():
        if path not in scores or np.shape(scores[path]) != np.shape(array):
            got = np.shape(scores[path]) if path in scores else "nothing"
            raise ValueError(f"Scores of {path!r} must have shape {np.shape(array)}. Received {got}.")
        if np.isnan(np.asarray(scores[path])[array]).any():
            raise ValueError(f"Scores of {path!r} hold NaN. The lowest scores cannot be told.")
