"""A mask as a graph: units are its nodes, the weights that are kept its edges.

Kernels come in the network's order. The last axis of one is its units, the axis before that its inputs;
axes further to the front are places in a filter's window. Of a `depthwise_kernel` the last two axes are
units. What follows a weight from layer to layer wants kernels in a chain: the inputs of each are the units
of the one before, or these at every place of a flattened image, channels last. Shortcuts and the loops of
recurrent layers make no chain. Biases are left out: a unit that nothing reaches may still be a constant.
"""

import dataclasses
import math

import numpy as np
import scipy.linalg
import scipy.sparse
from scipy.sparse import csgraph

from tf_lottery.tickets.masks import Arrays


@dataclasses.dataclass(frozen=True)
class Units:
    """Which units of a layer can do anything; arrays of shape (units,).

    Attributes:
        reached: whether a path of kept weights comes from the network's input.
        heard: whether a path of kept weights goes to the network's output.
    """

    reached: np.ndarray
    heard: np.ndarray

    @property
    def dead(self) -> np.ndarray:
        """Units that no path from input to output goes through."""
        return ~(self.reached & self.heard)


@dataclasses.dataclass(frozen=True)
class Degrees:
    """How many kept weights the nodes of one side of a layer have.

    Attributes:
        nodes: how many nodes there are.
        mean: of their degrees.
        variance: of their degrees.
        random_variance: its expectation where kept weights are drawn at random from all of the
            layer's: each degree is hypergeometric, n p (1 - p) (N - n) / (N - 1) for n weights of a node,
            N of the layer and its density p.
    """

    nodes: int
    mean: float
    variance: float
    random_variance: float

    @property
    def variation(self) -> float:
        """The coefficient of variation, deviation / mean; NaN where there are no weights."""
        return math.sqrt(self.variance) / self.mean if self.mean else math.nan

    @property
    def times_random(self) -> float:
        """variance / random_variance: 1 as in random masks; NaN where all or no weights are kept."""
        return self.variance / self.random_variance if self.random_variance else math.nan


def matrix(path: str, kernel: np.ndarray) -> np.ndarray:
    """Returns a kernel as a matrix: a column for each unit, a row for each number that it weighs.

    Rows of a convolution are the places of its window, times its input channels.
    """
    kernel = np.asarray(kernel)
    return kernel.reshape(-1, math.prod(kernel.shape[-_unit_axes(path) :]))


def is_chain(mask: Arrays) -> bool:
    """Whether the inputs of each kernel can be the units of the one before.

    It goes by names and shapes: these numbers are equal, or, where a convolution is flattened before a
    dense layer, one divides the other. Of skip connections between kernels of one width it cannot know.

    Example:
        >>> is_chain({"conv": np.ones((3, 3, 1, 4)), "fc": np.ones((36, 8)), "output": np.ones((8, 2))})
        True
        >>> is_chain({"fc": np.ones((5, 8)), "output": np.ones((16, 2))})
        False
    """
    # Recurrent kernels feed a layer's units back into it.
    if any(path.endswith("recurrent_kernel") or np.ndim(kernel) < 2 for path, kernel in mask.items()):
        return False
    shapes = [np.shape(kernel) for kernel in mask.values()]
    units = [math.prod(shape[-_unit_axes(path) :]) for path, shape in zip(mask, shapes)]
    return all(
        after[-2] == n or len(before) > 2 == len(after) and n and after[-2] % n == 0
        for n, before, after in zip(units, shapes, shapes[1:])
    )


def find_units(mask: Arrays) -> dict[str, Units]:
    """Returns path -> its units, those of the last kernel (classes) too.

    Args:
        mask: path -> bool array, kernels in a chain.

    Raises:
        ValueError: they are no chain.

    Example:
        >>> mask = {"fc/kernel": np.eye(2, 3) > 0, "output/kernel": np.eye(3)[:, 1:] > 0}
        >>> units = find_units(mask)["fc/kernel"]
        >>> units.reached, units.heard, units.dead
        (array([ True,  True, False]), array([False,  True,  True]), array([ True, False,  True]))
    """
    layers = _connections(mask)
    reached, heard = [], []
    above = np.ones(len(layers[0]), bool)
    for layer in layers:
        above = layer[above].any(axis=0)
        reached.append(above)
    below = np.ones(layers[-1].shape[1], bool)
    for layer in reversed(layers):
        heard.insert(0, below)
        below = layer[:, below].any(axis=1)
    return {path: Units(*both) for path, both in zip(mask, zip(reached, heard, strict=True), strict=True)}


def log10_paths(mask: Arrays) -> float:
    """Returns log10 of the number of paths from input to output; -inf where there is none.

    A path takes one kept weight of every kernel, each from the unit that the last one led to. Where an
    image is slid over or flattened, every weight from a channel to a unit counts once: the number is the
    sum of the product of the matrices that hold the numbers of kept weights between units.

    Args:
        mask: path -> bool array, kernels in a chain.

    Raises:
        ValueError: they are no chain.

    Example:
        >>> log10_paths({"fc/kernel": np.ones((5, 4), bool), "output/kernel": np.ones((4, 5), bool)})
        2.0
    """
    layers = _connections(mask)
    paths, log10 = np.ones(len(layers[0])), 0.0
    for layer in layers:
        paths = paths @ layer
        largest = paths.max()
        if largest == 0:
            return -math.inf
        # The numbers of a deep network are beyond a float's range.
        paths, log10 = paths / largest, log10 + math.log10(largest)
    return log10 + math.log10(paths.sum())


def degrees(kept: np.ndarray, axis: int) -> Degrees:
    """Returns the degrees of a layer's units, with `axis=0`, or of its inputs, with `axis=1`.

    Args:
        kept: bool array of shape (inputs, units), as `matrix` returns it.
        axis: over which weights are counted.

    Example:
        >>> degrees(np.array([[True, True], [False, False]]), axis=1)
        Degrees(nodes=2, mean=1.0, variance=1.0, random_variance=0.3333333333333333)
    """
    counts = np.count_nonzero(kept, axis=axis)
    share, each, total = np.mean(kept), kept.shape[axis], kept.size
    random = each * share * (1 - share) * (total - each) / (total - 1) if total > 1 else 0.0
    return Degrees(len(counts), float(counts.mean()), float(counts.var()), float(random))


def components(kept: np.ndarray) -> int:
    """Returns into how many pieces a layer's bipartite graph falls, nodes without any weight left out.

    Args:
        kept: bool array of shape (inputs, units).
    """
    edges = scipy.sparse.csr_array(_without_isolated(kept))
    graph = scipy.sparse.block_array([[None, edges], [edges.T, None]])
    return int(csgraph.connected_components(graph, directed=False)[0]) if edges.nnz else 0


def spectral_gap(kept: np.ndarray) -> float:
    """Returns 1 - sigma_2 of a layer's bipartite graph: 1 if all is joined to all, 0 if it falls apart.

    sigma_2 is the second singular value of D_1^-1/2 M D_2^-1/2, where M is the mask and D its degrees; the
    first is 1. Nodes without any weight are left out, and a layer without any has NaN. A wide gap is an
    expander: few weights that join all parts of the layer. On masks so seen: "A Study on the Ramanujan
    Graph Property of Winning Lottery Tickets" (Pal et al., ICML 2022, PMLR 162).

    Args:
        kept: bool array of shape (inputs, units).

    Example:
        >>> spectral_gap(np.eye(2) > 0)
        0.0
    """
    graph, pieces = _without_isolated(kept).astype(np.float64), components(kept)
    if pieces != 1:
        return 0.0 if pieces else math.nan
    normalised = graph / np.sqrt(np.outer(graph.sum(axis=1), graph.sum(axis=0)))
    return float(1 - scipy.linalg.svdvals(normalised)[1]) if min(graph.shape) > 1 else 1.0


def _unit_axes(path: str) -> int:
    # Each channel of a depthwise convolution has filters of its own.
    return 2 if path.endswith("depthwise_kernel") else 1


def _connections(mask: Arrays) -> list[np.ndarray]:
    """Returns for each kernel of a chain the numbers of kept weights, of shape (units before, units)."""
    if not mask or not is_chain(mask):
        shapes = ", ".join(f"{path} {np.shape(kernel)}" for path, kernel in mask.items())
        raise ValueError(
            "Expected kernels in a chain, the inputs of each the units of the one before. Received: "
            f"{shapes or 'none'}."
        )
    layers: list[np.ndarray] = []
    for path, kernel in mask.items():
        counts = np.asarray(kernel, int).reshape(-1, *np.shape(kernel)[-2:]).sum(axis=0)
        if _unit_axes(path) == 2:
            counts = scipy.linalg.block_diag(*counts)
        if layers:
            counts = counts.reshape(-1, layers[-1].shape[1], counts.shape[1]).sum(axis=0)
        layers.append(counts)
    return layers


def _without_isolated(kept: np.ndarray) -> np.ndarray:
    kept = np.asarray(kept, bool)
    return kept[kept.any(axis=1)][:, kept.any(axis=0)]
