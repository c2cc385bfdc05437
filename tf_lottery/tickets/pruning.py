"""From scores to a smaller mask, with exact counts."""

from collections.abc import Mapping, Sequence

import numpy as np

from tf_lottery import names
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays, Mask

SCOPES = ("layer", "global")


def prune(mask: Arrays, scores: Arrays, fractions: Mapping[str, float], scope: str = "layer") -> Mask:
    """Removes the lowest-scored of the remaining weights.

    Exactly `round(p * n)` of n remaining weights go; among equal scores those of
    the highest index. A weight that is pruned stays pruned.

    Args:
        mask: path -> bool array, the weights that are left.
        scores: path -> array of the same shape.
        fractions: path -> the share p of the layer's remaining weights to remove, in [0, 1).
        scope: `"layer"` prunes each layer by itself. `"global"` removes the same
            total from all layers taken together; a layer with fraction 0 is left out.

    Raises:
        ValueError: an unknown scope, a fraction that is missing or out of range, a
            score that is NaN.

    Example:
        >>> mask = {"fc/kernel": np.ones(4, bool)}
        >>> prune(mask, {"fc/kernel": np.array([3.0, 1.0, 2.0, 4.0])}, {"fc/kernel": 0.5})
        {'fc/kernel': array([ True, False, False,  True])}
    """
    names.find(scope, dict.fromkeys(SCOPES), "scope")
    _check(mask, scores, fractions)
    if scope == "global":
        pools = [[path for path in mask if fractions[path] > 0]]
    else:
        pools = [[path] for path in mask]
    pruned = {path: np.array(array) for path, array in mask.items()}
    for pool in pools:
        count = round(sum(fractions[path] * np.count_nonzero(mask[path]) for path in pool))
        if count:
            _remove_lowest(pruned, scores, pool, count)
    return pruned


def layer_fractions(
    paths: Sequence[str], prune_fraction: float, overrides: Mapping[str, float] | None = None
) -> dict[str, float]:
    """Returns path -> fraction to remove per level.

    Args:
        paths: the kernels, in the order of the network.
        prune_fraction: the fraction of every kernel that has no other.
        overrides: path or layer name -> fraction. None halves the fraction of the
            last kernel, as 1803.03635 does; `{}` makes all alike.

    Raises:
        ValueError: a fraction is not in [0, 1), or an override names no kernel.

    Example:
        >>> layer_fractions(["fc1/kernel", "output/kernel"], 0.2)
        {'fc1/kernel': 0.2, 'output/kernel': 0.1}
    """
    if overrides is None:
        overrides = {paths[-1]: prune_fraction / 2}
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
) -> int:
    """Returns the number of levels after which the density is at or below `density`.

    Raises:
        ValueError: `density` is not in (0, 1), or is never reached, or cannot be known
            beforehand: in the global scope with fractions that differ.
    """
    if not 0 < density < 1:
        raise ValueError(f"target_density must be in (0, 1). Received {density}.")
    counts = {path: int(np.prod(shape)) for path, shape in shapes.items()}
    total, level = sum(counts.values()), 0
    if scope == "global":
        if len(set(fractions.values())) > 1:
            raise ValueError(
                "target_density with scope='global' needs one fraction for all kernels: "
                "pass layer_fractions={}, or levels instead of target_density."
            )
        counts, fractions = {"all": total}, {"all": next(iter(fractions.values()))}
    while sum(counts.values()) > density * total:
        left = {path: n - round(fractions[path] * n) for path, n in counts.items()}
        if left == counts:
            raise ValueError(f"These fractions never reach target_density={density}: raise prune_fraction.")
        counts, level = left, level + 1
    return level


def _remove_lowest(mask: Mask, scores: Arrays, pool: Sequence[str], count: int) -> None:
    remaining = [np.flatnonzero(mask[path]) for path in pool]
    values = np.concatenate([np.asarray(scores[path]).ravel()[index] for path, index in zip(pool, remaining)])
    # Stable, from the back: among equal scores the highest index is the first to go.
    lowest = len(values) - 1 - np.argsort(values[::-1], kind="stable")[:count]
    gone = np.zeros(len(values), bool)
    gone[lowest] = True
    start = 0
    for path, index in zip(pool, remaining):
        mask[path].reshape(-1)[index[gone[start : start + len(index)]]] = False
        start += len(index)


def _check(mask: Arrays, scores: Arrays, fractions: Mapping[str, float]) -> None:
    masks.check(mask)
    for path, array in mask.items():
        if path not in fractions:
            raise ValueError(f"fractions has nothing for {path!r}: give its share to prune, or 0.")
        if path not in scores or np.shape(scores[path]) != np.shape(array):
            got = np.shape(scores[path]) if path in scores else "nothing"
            raise ValueError(f"Scores of {path!r} must have shape {np.shape(array)}. Received {got}.")
        if np.isnan(np.asarray(scores[path])[array]).any():
            raise ValueError(f"Scores of {path!r} hold NaN. The lowest scores cannot be told.")
        if not 0 <= fractions[path] < 1:
            raise ValueError(f"The fraction to prune must be in [0, 1). Received {fractions[path]}.")
