"""Linear mode connectivity of a run's networks (1912.05671): trains what it takes, and keeps it.

For level n with mask m_n, the dense network is trained from the replicate's initial weights to step k,
as the run did; then copies of W_k * m_n are trained to the run's last step, each in a data order of its
own. The masks are those that the run has found, by rewinding to its own step: for masks that were found
by rewinding to k, look at a run with `--config.prune.rewind_step=k`. A control that has its own weights,
such as reinit, is treated alike: these are trained whole to step k, then masked.
"""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from tf_lottery import names, paths
from tf_lottery.analysis import connectivity, instability
from tf_lottery.analysis.figures import connectivity as figures
from tf_lottery.analysis.findings import NOTHING_TRAINED, Findings, Scalar
from tf_lottery.analysis.instability import Pair
from tf_lottery.experiments import experiment as experiment_module
from tf_lottery.experiments.config import ExperimentConfig, TrainConfig
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.tickets import masks, seeds
from tf_lottery.training import data, recorded
from tf_lottery.training.arms import Arrays, Start, Trained
from tf_lottery.training.batch_norm import BatchStatistics
from tf_lottery.training.history import TICKET, Result
from tf_lottery.training.inputs import Source
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.runs import ReplicateStore
from tf_lottery.training.streams import Stream
from tf_lottery.training.terminal import Terminal

_TRAINING_EXAMPLES = 10_000  # at most, for training error and batch statistics
_FOLDER = "connectivity"


def analyze(
    folder: str | os.PathLike[str],
    *,
    levels: Sequence[int] = (),
    rewind_steps: Sequence[int] = (),
    arms: Sequence[str] = (TICKET,),
    orders: int = 2,
    points: int = 30,
) -> Findings:
    """Trains copies of a run's networks in several data orders, and looks at the lines between them.

    What is trained is kept in `connectivity/` of the run directory, so that a call that was stopped
    goes on, and a second one only evaluates. Statistics of BatchNormalization are estimated anew at
    each point, from the training examples of which the training error is (10,000 at most).

    Args:
        folder: the run directory of an experiment.
        levels: the levels to look at; empty for all.
        rewind_steps: the steps k that copies are trained from; empty for the run's own.
        arms: `"ticket"`, of which level 0 is the dense network, and controls of the run.
        orders: how many copies of each network; all pairs of them are looked at.
        points: on each line, the two ends among them.

    Raises:
        RunDirectoryError: there is no run of an experiment.
        ValueError: a network that the run has not, or a number out of range.
    """
    config = experiment_module.recorded_config(folder)
    results = [network.result for network in recorded.compared(folder)]
    if not results:
        return NOTHING_TRAINED
    chosen = _chosen(results, arms, levels)
    steps = sorted(set(rewind_steps or (config.prune.rewind_step,)))
    _check(config, arms, steps, orders, points)
    experiment = Experiment.of_run(folder)
    folder = paths.path(folder).expanduser()
    missing = _missing(config, folder, chosen, steps, orders)
    if missing:
        print(f"{len(missing)} networks to train, to be kept in {folder / _FOLDER}.", flush=True)
    with contextlib.closing(Terminal(sum(missing.values()), [arm for *_, arm in missing])) as terminal:
        copies = _Copies(experiment, folder, chosen, orders, terminal)
        pairs = [pair for step in steps for pair in copies.pairs(step, points)]
    return Findings(
        instability.table(pairs),
        instability.rows(pairs),
        {"connectivity": figures.plot_connectivity(pairs)},
        list(_scalars(pairs)),
    )


class _Copies:
    """Trains copies of the chosen networks, and looks at the lines between them."""

    def __init__(
        self,
        experiment: Experiment,
        folder: paths.Path,
        chosen: list[Result],
        orders: int,
        listener: Listener,
    ):
        self._experiment = experiment
        self._folder = folder
        self._chosen = {(result.replicate, result.level, result.arm) for result in chosen}
        self._orders = range(1, orders + 1)
        self._listener = listener
        self._evaluate = _Evaluation(experiment)

    def pairs(self, step: int, points: int) -> Iterator[Pair]:
        """Yields all pairs of copies of each network that were trained from `step`."""
        directory = self._experiment.directory(_directory(self._folder, step)).open()
        for replicate in sorted({replicate for replicate, *_ in self._chosen}):
            with directory.replicate(replicate).claimed() as store:
                for network in self._networks(store, step):
                    copies = [self._copy(store, network, order) for order in self._orders]
                    for pair in itertools.combinations(zip(self._orders, copies, strict=True), 2):
                        yield self._pair(network, replicate, *zip(*pair, strict=True), points)

    def _networks(self, store: ReplicateStore, step: int) -> Iterator[Start]:
        """Yields where the copies of each chosen network of the store's replicate start from."""
        train = self._experiment.config.train
        run = self._experiment.directory(self._folder).replicate(store.replicate)
        for network in (trained.start for trained in self._experiment.finished(run)):
            if network.level == 0 and network.is_ticket:
                dense = network
            if (store.replicate, network.level, network.arm) in self._chosen:
                yield dataclasses.replace(
                    network,
                    state=self._unpruned(store, dense if network.is_ticket else network, step),
                    step=step,
                    resets_step=False,
                    until=_last_step(train, network.arm),
                    snapshots=frozenset(),
                )

    def _unpruned(self, store: ReplicateStore, origin: Start, step: int) -> Arrays:
        """Returns every variable of a network at a step, trained from its start without a mask."""
        if step == origin.step:
            return origin.state
        if step < origin.step:
            raise ValueError(
                f"The arm {origin.arm!r} of this run starts at step {origin.step}: rewind_steps must not be "
                f"below. Received {step}."
            )
        mask = masks.ones(self._experiment.model.shapes)
        arm, snapshots = _name_unpruned(origin.arm), frozenset({step})
        whole = dataclasses.replace(origin, arm=arm, mask=mask, frozen=False, until=step, snapshots=snapshots)
        return self._trained(store, whole).snapshots[step]

    def _copy(self, store: ReplicateStore, network: Start, order: int) -> Trained:
        start = dataclasses.replace(network, arm=_name_copy(network.arm, order))
        return self._trained(store, start, ("order", order))

    def _trained(self, store: ReplicateStore, start: Start, order: Sequence[int | str] = ()) -> Trained:
        return store.load(start) or self._experiment.train(
            start, store.replicate, order=order, store=store, listeners=(self._listener,)
        )

    def _pair(
        self,
        network: Start,
        replicate: int,
        orders: tuple[int, int],
        copies: tuple[Trained, Trained],
        points: int,
    ) -> Pair:
        model, (first, second) = self._experiment.model, copies
        # The random states too, so that what is found does not depend on what was done before.
        model.restore(first.final)
        model.set_mask(network.mask, network.frozen)
        kernels = {path: network.masked_state[path] for path in network.mask}
        return Pair(
            network.arm,
            network.step,
            orders,
            (first.result(replicate), second.result(replicate)),
            connectivity.path(first.final, second.final, self._evaluate, points),
            connectivity.relative_distance(kernels, first.final, second.final),
        )


class _Evaluation:
    """Error and loss on the test data, and on some of the training data, at any weights."""

    def __init__(self, experiment: Experiment):
        self._model = experiment.model
        some = _some(experiment.data.train, seeds.generator(experiment.config.seed, "connectivity"))
        batch_size = min(experiment.config.train.batch_size, data.count(some))
        self._statistics = BatchStatistics(self._model.model, some[0], batch_size)
        evaluated = {"test": experiment.data.test, "train": some}
        self._loop = Loop(self._model.model, some, evaluated, batch_size=batch_size, chunk=1)

    def __call__(self, weights: Arrays) -> dict[str, float]:
        self._model.set_weights(weights)
        self._statistics.estimate()
        found = {}
        for name in self._loop.evaluation_names:
            logs = self._loop.evaluate(name)
            found |= {f"{name}_error": 1 - logs["accuracy"], f"{name}_loss": logs["loss"]}
        return found


def _some(train: Source, random: np.random.Generator) -> data.Examples:
    """Returns training examples, drawn at random; of a stream the first."""
    if isinstance(train, Stream):
        return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *train.take(_TRAINING_EXAMPLES))
    return data.take(train, random.permutation(data.count(train))[:_TRAINING_EXAMPLES])


def _chosen(results: Sequence[Result], arms: Sequence[str], levels: Sequence[int]) -> list[Result]:
    known = dict.fromkeys(result.arm for result in results)
    for arm in arms:
        names.find(arm, known, "arm")
    of_arms = [result for result in results if result.arm in arms]
    there = sorted({result.level for result in of_arms})
    for level in levels:
        if level not in there:
            raise ValueError(
                f"The run has no trained network of arm {', '.join(arms)} at level {level}. "
                f"There are levels: {', '.join(map(str, there))}."
            )
    return [result for result in of_arms if not levels or result.level in levels]


def _check(
    config: ExperimentConfig, arms: Sequence[str], steps: Sequence[int], orders: int, points: int
) -> None:
    last = min(_last_step(config.train, arm) for arm in arms)
    for step in steps:
        if not 0 <= step < last:
            raise ValueError(
                f"rewind_steps must be in [0, {last}), the steps of the run's trainings. Received {step}."
            )
    for name, value, low in (("orders", orders, 2), ("points", points, 3)):
        if value < low:
            raise ValueError(f"{name} must be {low} or more. Received {value}.")


def _missing(
    config: ExperimentConfig,
    folder: paths.Path,
    chosen: Sequence[Result],
    steps: Sequence[int],
    orders: int,
) -> dict[tuple, int]:
    """Returns (rewind step, replicate, level, arm) -> training steps of what is not trained yet."""
    planned, done = {}, set()
    for step in steps:
        done |= {(step, r.replicate, r.level, r.arm) for r in recorded.results(_directory(folder, step))}
        for r in chosen:
            if step:
                level = 0 if r.arm == TICKET else r.level
                planned[step, r.replicate, level, _name_unpruned(r.arm)] = step
            for order in range(1, orders + 1):
                length = _last_step(config.train, r.arm) - step
                planned[step, r.replicate, r.level, _name_copy(r.arm, order)] = length
    return {network: length for network, length in planned.items() if network not in done}


def _last_step(train: TrainConfig, arm: str) -> int:
    return train.steps if arm == TICKET else train.control_steps or train.steps


def _directory(folder: paths.Path, step: int) -> paths.Path:
    return folder / _FOLDER / f"rewind_step_{step}"


def _name_unpruned(arm: str) -> str:
    return "dense" if arm == TICKET else f"{arm}_dense"


def _name_copy(arm: str, order: int) -> str:
    return f"{arm}_order_{order}"


def _scalars(pairs: Sequence[Pair]) -> Iterator[Scalar]:
    for (arm, step), levels in instability.gathered(pairs).items():
        run = f"{arm}_from_step_{step}"
        for level, same in levels.items():
            yield Scalar(run, "connectivity/instability", level, same.instability)
            yield Scalar(run, "connectivity/relative_distance", level, same.distance)
            for i, error in enumerate(same.curve("test_error")):
                yield Scalar(
                    f"{run}/level_{level:02d}", "connectivity/test_error_on_the_line", i, float(error)
                )
