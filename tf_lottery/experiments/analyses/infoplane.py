"""The information plane of a run: its networks trained once more, with a look at every layer on the way."""

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from tf_lottery import names, paths
from tf_lottery.analysis import information_plane as plane
from tf_lottery.analysis import mutual_information, verdict
from tf_lottery.analysis.figures import information_plane as figures
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings, Scalar
from tf_lottery.experiments.datasets import Data
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api.masked_model import MaskedModel
from tf_lottery.tickets import masks, seeds
from tf_lottery.tickets.masks import Arrays
from tf_lottery.training import recorded
from tf_lottery.training.arms import Trained
from tf_lottery.training.history import TICKET, Result
from tf_lottery.training.terminal import Terminal

Network = tuple[int, str]  # level and arm
Replicates = Sequence[Sequence[plane.Point]]
ARMS = (TICKET, "reinit", "random_ticket")


def analyze(
    folder: str | os.PathLike[str],
    *,
    levels: Sequence[int] = (),
    arms: Sequence[str] = ARMS,
    examples: int = 4096,
    points: int = 60,
) -> Findings:
    """Trains networks of a run again, bit for bit, and puts their layers on the information plane.

    What is trained is kept in the folder `infoplane` of the run, so that a second call is quick.

    Args:
        folder: the run directory.
        levels: which to look at; by default the dense network and the level of the verdict.
        arms: those of them that the run has at these levels.
        examples: how many of all training, validation and test examples X has; drawn at random where there
            are more.
        points: about how many steps are looked at: the first, the last, and others between them that lie
            closer at the start.

    Raises:
        ValueError: the run has no such level or arm, or a number is too low.
        RunDirectoryError: the run holds no config, or a file is damaged.
    """
    folder = paths.path(folder).expanduser()
    for name, number in (("examples", examples), ("points", points)):
        if number < 2:
            raise ValueError(f"--{name} must be 2 or more. Received {number}.")
    asked = _asked([network.result for network in recorded.compared(folder)], levels, arms)
    if not asked:
        return NOTHING_TRAINED
    experiment = Experiment.of_run(folder)
    x, labels = _examples(experiment.data, examples)
    layers = plane.LayerOutputs(experiment.model.model)
    titles = {(result.level, result.arm): _title(result) for result in asked}
    found: dict[Network, list[list[plane.Point]]] = {}
    rows, differing = [], []
    for result, trained, is_same in _trained_again(experiment, folder, asked, points):
        outputs = _Outputs(experiment.model, layers, trained.snapshots, x)
        looked_at = plane.points(outputs, labels, layers.bounded)
        found.setdefault((result.level, result.arm), []).append(looked_at)
        rows += [_row(result, point) for point in looked_at]
        differing += [] if is_same else [f"{_title(result)} of replicate {result.replicate}"]
    readable = plane.readable(found)
    text = [
        _head(labels, sum(map(len, _parts(experiment.data, 1))), len({r.replicate for r in asked})),
        plane.table({titles[network]: curves for network, curves in readable.items()}),
    ]
    if differing:
        text.append(f"Trained again, but not to the same bits as in the run: {', '.join(differing)}.")
    return Findings("\n\n".join(text), rows, _figures(found, titles), list(_scalars(readable)))


class _Outputs(Mapping[int, Arrays]):
    """Step -> what the layers put out; computed when it is asked for."""

    def __init__(
        self, model: MaskedModel, layers: plane.LayerOutputs, snapshots: Mapping[int, Arrays], x: np.ndarray
    ):
        self._model, self._layers, self._snapshots, self._x = model, layers, snapshots, x

    def __getitem__(self, step: int) -> Arrays:
        self._model.set_weights(self._snapshots[step])
        return self._layers(self._x)

    def __iter__(self) -> Iterator[int]:
        return iter(sorted(self._snapshots))

    def __len__(self) -> int:
        return len(self._snapshots)


def _asked(results: Sequence[Result], levels: Sequence[int], arms: Sequence[str]) -> list[Result]:
    """Returns the results of the networks to look at."""
    if not any(result.is_dense for result in results):
        return []
    known = dict.fromkeys(result.arm for result in results)
    for arm in arms:
        names.find(arm, {**known, **dict.fromkeys(ARMS)}, "arm")
    last = max(result.level for result in results)
    if missing := [level for level in levels if not 0 <= level <= last]:
        raise ValueError(f"--levels must be in 0..{last}, those of the run. Received {missing[0]}.")
    levels = levels or (0, verdict.judge(results).level or last)
    asked = [result for result in results if result.level in levels and result.arm in arms]
    if not asked:
        raise ValueError(
            f"The run has no network of --arms={','.join(arms)} at --levels={','.join(map(str, levels))}: "
            f"its arms are {', '.join(known)}, and it may have controls at some levels only."
        )
    return asked


def _trained_again(
    experiment: Experiment, folder: paths.Path, asked: Sequence[Result], points: int
) -> Iterator[tuple[Result, Trained, bool]]:
    """Yields each network with its snapshots, and whether it ends as it did in the run."""
    run, kept = experiment.directory(folder), folder / "infoplane" / f"{points}_points"
    replicates = sorted({result.replicate for result in asked})
    directory = experiment.directory(kept)
    terminal = Terminal(sum(result.last_step for result in asked), {result.arm for result in asked})
    directory.open()
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.closing(terminal))
        for replicate in replicates:
            store = stack.enter_context(directory.replicate(replicate).claimed())
            terminal.replicate = replicate if len(replicates) > 1 else None
            wanted = {(r.level, r.arm): r for r in asked if r.replicate == replicate}
            for trained in experiment.finished(run.replicate(replicate)):
                result = wanted.pop((trained.start.level, trained.start.arm), None)
                if result is not None:
                    steps = _steps(trained.start.step, trained.last_step, points)
                    start = dataclasses.replace(trained.start, snapshots=steps)
                    again = experiment.train(start, replicate, store=store, listeners=(terminal,))
                    yield result, again, masks.equal(trained.final, again.final)
                if not wanted:
                    break


def _steps(first: int, last: int, points: int) -> frozenset[int]:
    """Returns about so many steps from the first to the last, on a logarithmic grid."""
    between = np.geomspace(1, last - first, points - 1).round().astype(int)
    return frozenset([first, *(first + between).tolist()])


def _parts(data: Data, index: int) -> list[np.ndarray]:
    return [part[index] for part in (data.train, data.validation, data.test)]


def _examples(data: Data, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns so many of all examples and their labels, in the order of the data."""
    x, labels = (np.concatenate(_parts(data, index)) for index in (0, 1))
    drawn = np.sort(seeds.generator("information_plane").permutation(len(x))[:number])
    return x[drawn], labels[drawn]


def _title(result: Result) -> str:
    return "dense" if result.is_dense else f"{result.arm} {100 * result.density:.3g} %"


def _head(labels: np.ndarray, whole: int, replicates: int) -> str:
    n, ceiling, h_y = len(labels), np.log2(len(labels)), mutual_information.entropy(labels)
    share = f"all {n:,}" if n == whole else f"{n:,} of {whole:,}"
    means = f"; means over {replicates} replicates" if replicates > 1 else ""
    return f"X: {share} examples, so I(X;T) <= {ceiling:.2f} and I(T;Y) <= H(Y) = {h_y:.2f} bits{means}."


def _row(result: Result, point: plane.Point) -> dict[str, object]:
    network = {name: getattr(result, name) for name in ("replicate", "level", "arm", "density")}
    return {**network, **dataclasses.asdict(point)}


def _figures(found: Mapping[Network, Replicates], titles: Mapping[Network, str]) -> dict[str, Figure]:
    """Returns two figures for each sparse level, each with the dense network at the left."""
    levels = sorted({level for level, _ in found if level}) or [0]
    made = {}
    for level in levels:
        shown = [network for network in found if network[0] in (0, level)]
        suffix = f"_level_{level:02d}" if len(levels) > 1 else ""
        rows = {
            estimator: {titles[network]: plane.curves(found[network], estimator) for network in shown}
            for estimator in (plane.BINNING, plane.KERNEL_DENSITY)
        }
        made[f"information_plane{suffix}"] = figures.plot_plane(rows)
        made[f"information_through_training{suffix}"] = figures.plot_training(rows)
    return made


def _scalars(readable: Mapping[Network, plane.Curves]) -> Iterator[Scalar]:
    """Yields what TensorBoard draws: a card for each layer, a line for each network."""
    for (level, arm), curves in readable.items():
        run = "dense" if (level, arm) == (0, TICKET) else f"{arm}_level_{level:02d}"
        for layer, curve in curves.items():
            for index in np.flatnonzero(~curve.saturated):
                step = int(curve.steps[index])
                yield Scalar(run, f"information_about_inputs/{layer}", step, float(curve.i_xt[index]))
                yield Scalar(run, f"information_about_labels/{layer}", step, float(curve.i_ty[index]))
