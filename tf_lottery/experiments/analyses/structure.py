"""Winning and random tickets compared: what they look like at equal density."""

import dataclasses
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

from tf_lottery.analysis import structure, structure_table, verdict
from tf_lottery.analysis.aggregate import groups
from tf_lottery.analysis.figures.structure import plot_structure
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings, Scalar
from tf_lottery.analysis.structure import Quantities
from tf_lottery.analysis.structure_table import Compared
from tf_lottery.experiments import experiment
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.search.network import KerasNetwork
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training import recorded
from tf_lottery.training.history import TICKET, Result
from tf_lottery.training.recorded import Recorded

_MEANINGS = """\
/ random: over the expectation for random masks with as many weights in each layer, so 1 is as random.
Dead units are on no path from input to output. Spectral gap and effective rank are means over layers; each
layer's own are in analysis/structure.csv."""
_NO_CHAIN = (
    "Dead units and paths are left out: this network has shortcuts or loops, and is no chain of kernels."
)
_NO_DATA = "The gradient norm is left out: find_ticket keeps neither model nor data in its workdir."


def analyze(folder: str | os.PathLike[str], *, levels: Sequence[int] = (), examples: int = 1000) -> Findings:
    """Returns a table of some levels, a row for each quantity and a column for each arm; figure `structure`.

    Rows, figure and scalars are of all levels. Each trained network has a row for each layer, and one for
    the whole network, in which `layer` is empty.

    Args:
        folder: the run directory.
        levels: those to show; none for the one that the verdict is on.
        examples: training examples that gradients are of, the same for all networks of a replicate.

    Raises:
        ValueError: the run has no such level, or no dense network, or `examples` is less than 1.
    """
    networks = recorded.compared(folder)
    if not networks:
        return NOTHING_TRAINED
    shown = _levels(levels, [network.result for network in networks])
    entries = recorded.config(folder)
    model = _Model(Experiment.of_run(folder), examples) if experiment.is_config(entries) else None
    compared, rows = [], []
    for network in networks:
        looks = _measure(network, model)
        compared.append(Compared.of(network.result, looks.network))
        rows += [_row(network.result, path, layer) for path, layer in looks.layers.items()]
        rows.append(_row(network.result, "", looks.network))
    return Findings(
        "\n\n".join(_text(compared, shown, model)),
        rows=rows,
        figures={"structure": plot_structure(compared)},
        scalars=list(_scalars(compared)),
    )


class _Model:
    """The network of a run, its gradients, and whether its kernels are a chain."""

    def __init__(self, made: Experiment, examples: int):
        self._made = made
        self._examples = examples
        self.is_chain = not has_shortcuts(made.model.model)

    def gradient(self, replicate: int, weights: Arrays, mask: Arrays) -> Arrays:
        config = self._made.config
        steps = {"steps": config.train.steps, "batch_size": config.train.batch_size}
        network = KerasNetwork(self._made.model, self._made.data.train, key=(config.seed, replicate), **steps)
        return network.gradient(weights, mask, self._examples)


def has_shortcuts(model: Any) -> bool:
    """Whether a functional Keras model has layers of several inputs."""
    return any(isinstance(layer.input, list) and len(layer.input) > 1 for layer in model.layers)


def _measure(network: Recorded, model: _Model | None) -> structure.Looks:
    mask, start, end = network.mask(), network.start(), network.end()
    if model is None:
        return structure.measure(mask, start, end)
    gradient = model.gradient(network.result.replicate, start, mask)
    return structure.measure(mask, start, end, gradient, chain=model.is_chain)


def _levels(asked: Sequence[int], results: Sequence[Result]) -> Sequence[int]:
    """Returns the levels to show."""
    there = sorted({result.level for result in results})
    if unknown := sorted(set(asked) - set(there)):
        raise ValueError(f"levels are some of {', '.join(map(str, there))}. Received: {unknown[0]}.")
    return asked or [verdict.judge(results).level]


def _text(compared: Sequence[Compared], shown: Sequence[int], model: _Model | None) -> Iterator[str]:
    for level in shown:
        here = [network for network in compared if network.level == level]
        yield structure_table.table(here)
        if found := structure_table.sentence(here):
            yield found
    yield _MEANINGS
    if all(math.isnan(network.dead_units) for network in compared):
        yield _NO_CHAIN
    if model is None:
        yield _NO_DATA
    if missing := _no_random_masks(compared, shown, made_by_find_ticket=model is None):
        yield missing


def _no_random_masks(compared: Sequence[Compared], shown: Sequence[int], made_by_find_ticket: bool) -> str:
    """Says what to type where a level that is shown has no arm with a random mask; else nothing."""
    there = sorted({n.level for n in compared if structure_table.has_random_mask(n.arm)})
    if there and not set(shown) <= {0, *there}:
        levels = ",".join(map(str, there))
        return (
            f"Not every level has an arm with a random mask to hold tickets against: --levels={levels} have."
        )
    if there:
        return ""
    controls = [*(arm for arm in groups(compared) if arm != TICKET), "shuffle", "random_ticket"]
    how = (
        f"call find_ticket again with controls={controls}"
        if made_by_find_ticket
        else f"the same 'tf-lottery run' again, with --config.controls={','.join(controls)}"
    )
    return f"No arm has a random mask to hold tickets against. To add two to this run: {how}."


def _row(result: Result, layer: str, quantities: Quantities) -> dict[str, Any]:
    values = dataclasses.asdict(quantities)
    return {
        "replicate": result.replicate,
        "level": result.level,
        "arm": result.arm,
        "layer": layer,
        "density": quantities.kept / quantities.weights,
        "early_stop_step": result.early_stop_step,
        "test_accuracy_at_early_stop": result.test_accuracy_at_early_stop,
        **{field: None if math.isnan(value) else value for field, value in values.items()},
    }


def _scalars(compared: Sequence[Compared]) -> Iterator[Scalar]:
    """Yields means over replicates."""
    fields = [field.name for field in dataclasses.fields(Quantities)]
    for arm, by_level in groups(compared).items():
        for level, group in by_level.items():
            for field in fields:
                if math.isfinite(value := group.mean(field)):
                    yield Scalar(arm, f"structure/{field}", level, value)
