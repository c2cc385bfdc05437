"""The information plane: how much each layer tells about inputs and labels, through training (1703.00810)."""

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from scipy import special

from tf_lottery.analysis import tables
from tf_lottery.analysis.mutual_information import NOISE_VARIANCE, cells, is_saturated, of_cells, of_noisy
from tf_lottery.keras_api import flavour, prunable
from tf_lottery.tickets import seeds
from tf_lottery.tickets.masks import Arrays

BINNING, KERNEL_DENSITY = "binning", "kernel density"
BOUNDED_BINS, BINS = 30, 100
KERNEL_EXAMPLES = 1024
COMPRESSION = 0.5  # bits
_BOUNDED = ("tanh", "sigmoid", "softmax", "hard_sigmoid", "softsign")


class LayerOutputs:
    """What the layers with kernels put out, activation included, for a model of either flavour.

    Args:
        model: a built Sequential or functional model of one input, in TF-MOT's wrappers or not. It is looked
            at as its weights are when this is called.

    Attributes:
        names: of the layers, in the model's order.
        bounded: those whose activation is never below -1 or above 1.

    Raises:
        TypeError: not a Keras model.
        ValueError: not built, nothing to prune, or a subclassed model.
    """

    def __init__(self, model: Any):
        kernels = {id(slot.variable) for slot in prunable.prunable_slots(model).values()}
        layers = [layer for layer in model.layers if not kernels.isdisjoint(map(id, layer.variables))]
        inner = [layer.layer if prunable.is_pruning_wrapper(layer) else layer for layer in layers]
        self.names = tuple(layer.name for layer in inner)
        try:
            outputs = {name: layer.output for name, layer in zip(self.names, layers)}
            inputs = model.inputs
        except AttributeError as error:
            raise ValueError(
                f"The outputs of the layers of {model.name!r} cannot be had: it is a subclassed "
                f"{type(model).__name__}. Build it as a Sequential or functional model."
            ) from error
        self._model = flavour.keras_module(flavour.flavour_of(model)).Model(*inputs, outputs)
        activations = [getattr(getattr(layer, "activation", None), "__name__", "linear") for layer in inner]
        self._gives_logits = activations[-1] == "linear" and outputs[self.names[-1]].shape[-1] > 1
        if self._gives_logits:
            activations[-1] = "softmax"
        self.bounded = frozenset(n for n, kind in zip(self.names, activations) if kind in _BOUNDED)

    def __call__(self, x: np.ndarray) -> Arrays:
        """Returns name -> outputs `(n, units)` for inputs `(n, ...)`.

        Logits of the last layer come as the probabilities that softmax makes of them.
        """
        outputs = {
            name: np.asarray(t).reshape(len(x), -1) for name, t in self._model(x, training=False).items()
        }
        if self._gives_logits:
            outputs[self.names[-1]] = special.softmax(outputs[self.names[-1]], axis=1)
        return {name: outputs[name] for name in self.names}


@dataclasses.dataclass(frozen=True)
class Point:
    """A layer at a step of training.

    Attributes:
        layer: its name.
        step: of training.
        estimator: `BINNING` or `KERNEL_DENSITY`.
        bins: how many there are for each unit; 0 for kernel density.
        i_xt: I(X;T) in bits.
        i_ty: I(T;Y) in bits.
        saturated: whether I(X;T) is at its ceiling, so that neither tells about the layer.
    """

    layer: str
    step: int
    estimator: str
    bins: int
    i_xt: float
    i_ty: float
    saturated: bool


def points(outputs: Mapping[int, Arrays], labels: np.ndarray, bounded: Collection[str] = ()) -> list[Point]:
    """Estimates I(X;T) and I(T;Y) of every layer at every step, by binning and by kernel density.

    Outputs of bounded layers fall into 30 equal bins on [-1, 1], as Shwartz-Ziv and Tishby have it for tanh;
    those of others into 100 between the lowest and the highest output of the layer over the whole training,
    as Saxe et al. have it for ReLU. Kernel density takes 1,024 of the inputs, drawn at random.

    Args:
        outputs: step -> layer -> outputs `(n, units)` for the same inputs at each step. It is gone through
            twice, and may well compute them when they are asked for.
        labels: `(n,)`, the classes of the inputs.
        bounded: layers whose outputs are all in [-1, 1].

    Returns:
        By step, layer and estimator, as they come.
    """
    limits: dict[str, tuple[float, float]] = {}
    for layers in outputs.values():
        for layer, t in layers.items():
            low, high = limits.get(layer, (np.inf, -np.inf))
            limits[layer] = (-1, 1) if layer in bounded else (min(low, t.min()), max(high, t.max()))
    drawn = seeds.generator("kernel_density").permutation(len(labels))[:KERNEL_EXAMPLES]
    found = []
    for step, layers in outputs.items():
        for layer, t in layers.items():
            bins = BOUNDED_BINS if layer in bounded else BINS
            binned = of_cells(cells(t, *limits[layer], bins), labels)
            noisy = of_noisy(t[drawn], labels[drawn])
            for estimator, number, (i_xt, i_ty), size in (
                (BINNING, bins, binned, len(labels)),
                (KERNEL_DENSITY, 0, noisy, len(drawn)),
            ):
                found.append(Point(layer, step, estimator, number, i_xt, i_ty, is_saturated(i_xt, size)))
    return found


@dataclasses.dataclass(frozen=True)
class Curve:
    """A layer's way through training, a mean over replicates.

    Attributes:
        estimator: what it is estimated by.
        bins: as in `Point`.
        steps: those that all replicates have, ascending.
        i_xt: I(X;T) in bits at each step.
        i_ty: I(T;Y) in bits at each step.
        saturated: bools, True where one of the replicates is.
    """

    estimator: str
    bins: int
    steps: np.ndarray
    i_xt: np.ndarray
    i_ty: np.ndarray
    saturated: np.ndarray

    @property
    def fall(self) -> float:
        """How far I(X;T) is at the end below its highest, in bits."""
        return float(self.i_xt.max() - self.i_xt[-1])

    @property
    def name(self) -> str:
        return f"{self.bins} bins" if self.bins else self.estimator


Curves = dict[str, Curve]
Key = TypeVar("Key")


def curves(replicates: Sequence[Sequence[Point]], estimator: str) -> Curves:
    """Returns layer -> its curve by one of the estimators.

    Args:
        replicates: the points of each, as `points` returns them.
        estimator: `BINNING` or `KERNEL_DENSITY`.
    """
    found = {}
    for layer in dict.fromkeys(point.layer for point in replicates[0]):
        ways = [
            {p.step: p for p in each if (p.layer, p.estimator) == (layer, estimator)} for each in replicates
        ]
        steps = sorted(set.intersection(*map(set, ways)))
        at = [[way[step] for way in ways] for step in steps]
        found[layer] = Curve(
            estimator,
            at[0][0].bins,
            np.array(steps),
            np.array([np.mean([p.i_xt for p in row]) for row in at]),
            np.array([np.mean([p.i_ty for p in row]) for row in at]),
            np.array([any(p.saturated for p in row) for row in at]),
        )
    return found


def readable(networks: Mapping[Key, Sequence[Sequence[Point]]]) -> dict[Key, Curves]:
    """Returns the curves of each network by binning; of layers where that saturates, by kernel density.

    A layer that saturates in one network is estimated by kernel density in all, so that they can be compared.

    Args:
        networks: any key -> the points of each replicate.
    """
    binned, noisy = (
        {key: curves(replicates, estimator) for key, replicates in networks.items()}
        for estimator in (BINNING, KERNEL_DENSITY)
    )
    lost = {layer for layers in binned.values() for layer, curve in layers.items() if curve.saturated.any()}
    return {
        key: {layer: (noisy[key][layer] if layer in lost else curve) for layer, curve in layers.items()}
        for key, layers in binned.items()
    }


def table(networks: Mapping[str, Curves]) -> str:
    """Returns a table with a row for each network and layer, and below it what it says.

    Args:
        networks: name -> the network's curves, as `readable` returns them.
    """
    rows = [["network", "layer", "estimate by", "I(X;T) start", "highest", "end", "I(T;Y) start", "end"]]
    for name, layers in networks.items():
        for layer, curve in layers.items():
            numbers = [curve.i_xt[0], curve.i_xt.max(), curve.i_xt[-1], curve.i_ty[0], curve.i_ty[-1]]
            marked = [curve.saturated[0], curve.saturated[curve.i_xt.argmax()], curve.saturated[-1]]
            marks = ["*" if each else " " for each in (*marked, marked[0], marked[-1])]
            shown = [f"{number:.2f}{mark}" for number, mark in zip(numbers, marks, strict=True)]
            rows.append([name, layer, curve.name, *shown])
    lines = map(str.rstrip, tables.in_columns(rows, left=3))
    return "\n".join([*lines, *_notes(networks)])


def compressing(layers: Curves) -> Curves:
    """Returns the layers whose I(X;T) ends more than `COMPRESSION` bits below its highest.

    A layer whose estimate is saturated at its highest is none of them: how high that was is not known.
    """
    return {
        layer: curve
        for layer, curve in layers.items()
        if curve.fall > COMPRESSION and not curve.saturated[curve.i_xt.argmax()]
    }


def _notes(networks: Mapping[str, Curves]) -> list[str]:
    every = [curve for layers in networks.values() for curve in layers.values()]
    lines = []
    if any(curve.estimator == KERNEL_DENSITY for curve in every):
        lines.append(
            f"kernel density, with noise of variance {NOISE_VARIANCE}: of layers where nearly every input "
            "has bins of its own\nat some step of one of the networks, so that binning tells nothing."
        )
    if any(curve.saturated.any() for curve in every):
        lines.append(
            "* saturated: at the ceiling that the number of inputs sets; tells nothing of the layer."
        )
    lines.append(f"I(X;T) ends more than {COMPRESSION} bits below its highest:")
    for name, layers in networks.items():
        found = ", ".join(f"{layer} (-{curve.fall:.2f})" for layer, curve in compressing(layers).items())
        lines.append(f"  {name}: {found or 'in no layer'}")
    lines.append(
        "Whether layers compress depends on nonlinearity, bins and noise (Saxe et al., ICLR 2018):\n"
        "these numbers compare networks of one kind; they are no law of training."
    )
    return lines
