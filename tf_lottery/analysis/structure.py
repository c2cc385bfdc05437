"""What a mask looks like, and the weights that it keeps: a layer and a whole network in numbers."""

import dataclasses
import math
from collections.abc import Iterable, Mapping

import numpy as np
import scipy.linalg
import scipy.stats

from tf_lottery.analysis import graphs
from tf_lottery.tickets import masks
from tf_lottery.tickets.masks import Arrays


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quantities:
    """What a layer looks like, or a whole network. NaN is what has no meaning, or was not asked for.

    Attributes:
        weights: how many there are.
        kept: how many of them are kept.
        hidden_units: units of the layer; 0 of the last one, whose units are the classes.
        dead_units: hidden units that no path of kept weights from input to output goes through.
        cut_from_input: hidden units to which no path leads from the input.
        cut_from_output: hidden units from which no path leads to the output.
        log10_paths: of the number of paths from input to output, of the whole network.
        path_share: that number / the dense network's.
        paths_times_random: that number / its expectation for random masks with as many weights in each
            layer, which is the dense network's times the densities of all layers. 1 as in random masks.
        in_degree_mean: kept weights into a unit.
        in_degree_variation: their coefficient of variation, deviation / mean, of one layer.
        in_degree_times_random: their variance / its expectation for random masks with as many weights in
            the layer. Of a network, both are summed over all units. 1 as in random masks.
        out_degree_mean: kept weights out of an input of the layer.
        out_degree_variation: as above.
        out_degree_times_random: as above.
        components: pieces that the layer's bipartite graph falls into; of a network, their sum.
        spectral_gap: of the layer's bipartite graph; of a network, the mean over layers.
        sign_agreement: share of kept weights that end with the sign they started with.
        effective_rank_start: of the kernel with pruned weights at 0, before training; of a network, the
            mean over layers.
        effective_rank_end: after it.
        gradient_norm: L2 norm of the loss's gradient by the kept weights before training.
    """

    weights: int
    kept: int
    hidden_units: int = 0
    dead_units: float = math.nan
    cut_from_input: float = math.nan
    cut_from_output: float = math.nan
    log10_paths: float = math.nan
    path_share: float = math.nan
    paths_times_random: float = math.nan
    in_degree_mean: float = math.nan
    in_degree_variation: float = math.nan
    in_degree_times_random: float = math.nan
    out_degree_mean: float = math.nan
    out_degree_variation: float = math.nan
    out_degree_times_random: float = math.nan
    components: int = 0
    spectral_gap: float = math.nan
    sign_agreement: float = math.nan
    effective_rank_start: float = math.nan
    effective_rank_end: float = math.nan
    gradient_norm: float = math.nan


@dataclasses.dataclass(frozen=True)
class Looks:
    """A network and its layers in numbers.

    Attributes:
        network: of all kernels.
        layers: path -> of that kernel.
    """

    network: Quantities
    layers: Mapping[str, Quantities]


def sign_agreement(mask: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Returns the share of kept weights that have the same sign in both; NaN where none is kept.

    Args:
        mask: bool array.
        start: weights before training, of the mask's shape.
        end: weights after it.

    Example:
        >>> sign_agreement(np.array([True, True, False]), np.array([1, -1, 1]), np.array([2, 3, -1]))
        0.5
    """
    return float(np.mean(np.sign(start[mask]) == np.sign(end[mask]))) if np.any(mask) else math.nan


def effective_rank(matrix: np.ndarray) -> float:
    """Returns exp of the entropy of the singular values over their sum (Roy and Vetterli, EUSIPCO 2007).

    From 1, one direction, to the smaller of both sides, all directions alike; 0 for a matrix of zeros, NaN
    where a number is not finite.

    Example:
        >>> round(effective_rank(np.eye(3)), 6)
        3.0
    """
    matrix = np.asarray(matrix, np.float64)
    if not np.isfinite(matrix).all():
        return math.nan
    return math.exp(scipy.stats.entropy(scipy.linalg.svdvals(matrix))) if matrix.any() else 0.0


def gradient_norm(mask: np.ndarray, gradient: np.ndarray) -> float:
    """Returns the L2 norm of the entries that the mask keeps."""
    return float(np.linalg.norm(np.asarray(gradient, np.float64)[mask]))


def measure(
    mask: Arrays, start: Arrays, end: Arrays, gradient: Arrays | None = None, *, chain: bool = True
) -> Looks:
    """Measures a network before and after its training.

    Args:
        mask: path -> bool array, kernels in the network's order.
        start: path -> weights before training, of the mask's kernels and maybe others.
        end: path -> weights after it.
        gradient: path -> gradient of the loss by the kernels at `start`; None leaves out its norm.
        chain: False for a network with shortcuts, which has no dead units and paths that kernels alone
            could tell. Nor has one whose kernels do not fit, one behind the other.
    """
    kept = {path: np.asarray(array, bool) for path, array in mask.items()}
    sides = {path: _degrees(graphs.matrix(path, array)) for path, array in kept.items()}
    layers = {path: _layer(path, kept[path], start[path], end[path], sides[path]) for path in kept}
    network = Quantities(
        weights=sum(layer.weights for layer in layers.values()),
        kept=masks.kept(kept),
        components=sum(layer.components for layer in layers.values()),
        spectral_gap=_mean(layer.spectral_gap for layer in layers.values()),
        sign_agreement=sign_agreement(*(_flat(kept, arrays) for arrays in (kept, start, end))),
        effective_rank_start=_mean(layer.effective_rank_start for layer in layers.values()),
        effective_rank_end=_mean(layer.effective_rank_end for layer in layers.values()),
        **_pooled(sides.values()),
    )
    if gradient:
        norms = {path: gradient_norm(kept[path], gradient[path]) for path in kept}
        layers = {path: _with(layers[path], gradient_norm=norm) for path, norm in norms.items()}
        network = _with(network, gradient_norm=float(np.linalg.norm(list(norms.values()))))
    if chain and graphs.is_chain(kept):
        network, layers = _with_units(kept, network, layers)
    return Looks(network, layers)


def _layer(
    path: str,
    kept: np.ndarray,
    start: np.ndarray,
    end: np.ndarray,
    sides: Mapping[str, graphs.Degrees],
) -> Quantities:
    joined = graphs.matrix(path, kept)
    return Quantities(
        weights=kept.size,
        kept=int(kept.sum()),
        **{f"{side}_degree_variation": found.variation for side, found in sides.items()},
        **_pooled([sides]),
        components=graphs.components(joined),
        spectral_gap=graphs.spectral_gap(joined),
        sign_agreement=sign_agreement(kept, start, end),
        effective_rank_start=effective_rank(joined * graphs.matrix(path, start)),
        effective_rank_end=effective_rank(joined * graphs.matrix(path, end)),
    )


def _degrees(joined: np.ndarray) -> dict[str, graphs.Degrees]:
    return {"in": graphs.degrees(joined, axis=0), "out": graphs.degrees(joined, axis=1)}


def _pooled(layers: Iterable[Mapping[str, graphs.Degrees]]) -> dict[str, float]:
    """Returns mean and variance of degrees, with the nodes of all layers counted together."""
    values, layers = {}, list(layers)
    for side in ("in", "out"):
        parts = [layer[side] for layer in layers]
        nodes = sum(part.nodes for part in parts)
        mean, variance, random = (
            sum(part.nodes * getattr(part, field) for part in parts) / nodes
            for field in ("mean", "variance", "random_variance")
        )
        values[f"{side}_degree_mean"] = mean
        values[f"{side}_degree_times_random"] = graphs.Degrees(nodes, mean, variance, random).times_random
    return values


def _with_units(
    kept: Arrays, network: Quantities, layers: Mapping[str, Quantities]
) -> tuple[Quantities, dict[str, Quantities]]:
    """Returns both with what kernels in a chain have: dead units and paths."""
    *hidden, _ = graphs.find_units(kept).items()
    counts = {
        path: {
            "hidden_units": len(units.dead),
            "dead_units": int(units.dead.sum()),
            "cut_from_input": int((~units.reached).sum()),
            "cut_from_output": int((~units.heard).sum()),
        }
        for path, units in hidden
    }
    names = ("hidden_units", "dead_units", "cut_from_input", "cut_from_output")
    together = {name: sum(count[name] for count in counts.values()) for name in names}
    log10 = graphs.log10_paths(kept)
    log10_dense = graphs.log10_paths({path: np.ones_like(array) for path, array in kept.items()})
    empty = log10 == -math.inf
    random = log10_dense + sum(math.log10(array.mean()) for array in kept.values()) if not empty else 0.0
    network = _with(
        network,
        **together,
        log10_paths=log10,
        path_share=10 ** (log10 - log10_dense),
        paths_times_random=10 ** (log10 - random),
    )
    return network, {path: _with(layer, **counts.get(path, {})) for path, layer in layers.items()}


def _with(quantities: Quantities, **values: float) -> Quantities:
    return dataclasses.replace(quantities, **values)


def _flat(paths: Iterable[str], arrays: Arrays) -> np.ndarray:
    return np.concatenate([np.ravel(arrays[path]) for path in paths])


def _mean(values: Iterable[float]) -> float:
    there = [value for value in values if not math.isnan(value)]
    return sum(there) / len(there) if there else math.nan
