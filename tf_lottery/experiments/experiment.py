"""An experiment that is ready to train: its data, its network, the loop, the search."""

import dataclasses
import functools
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tf_lottery import files, paths
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import datasets, models, workdirs
from tf_lottery.experiments.augmentation import RANDOM_CROPS
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.search.imp import Train, iterative_pruning, redraw_of
from tf_lottery.search.network import KerasNetwork
from tf_lottery.search.plan import Plan
from tf_lottery.tickets import controls, masks, pruning, scores, seeds
from tf_lottery.training import inputs, strategies
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.recorded import CONFIG, explaining
from tf_lottery.training.runs import ReplicateStore, RunDirectory
from tf_lottery.training.streams import Stream
from tf_lottery.training.trainer import Trainer
from tf_lottery.training.workers import Workers


class Experiment:
    """The data, the network and the compiled loop of an experiment.

    Args:
        config: the experiment; checked here.
        tpu: the name or address of the TPU to train on; empty for none.

    Attributes:
        config: the same.
        data: its training, validation and test data.
        model: its network, a `MaskedModel`.

    Raises:
        ValueError: the config or the data cannot be used, or the chief of several workers has another config.
        ConnectionError: a worker or the TPU cannot be reached.
    """

    def __init__(self, config: ExperimentConfig, tpu: str = ""):
        config_module.validate(config)
        self.config = config
        strategy = strategies.make(config.strategy, tpu)
        workers = Workers(strategy)
        entries = config_module.entries_of(config)
        # Where the data lie may differ from machine to machine.
        workers.agree({**entries, "data": {**entries["data"], "data_dir": ""}})
        self.data = datasets.load(
            config.data.name,
            data_dir=config.data.data_dir or None,
            memory_gib=config.data.memory_gib,
            image_size=config.data.image_size,
            random_crops=config.train.augment == RANDOM_CROPS,
            input_scaling=config.data.input_scaling,
            validation_size=config.data.validation_size,
            batch_size=config.train.batch_size,
            seed=config.seed,
        )
        if isinstance(self.data.train, Stream):
            self.data.train.share = workers.index, workers.count
        with strategy.scope():
            self.model = models.build(config, self.data)

    @functools.cached_property
    def loop(self) -> Loop:
        """The compiled training and evaluation, of which the data are placed on the devices here."""
        return Loop(
            self.model.model,
            self.data.train,
            {"validation": self.data.validation, "test": self.data.test},
            batch_size=self.config.train.batch_size,
            chunk=min(self.config.train.eval_every_steps, 100),
        )

    @classmethod
    def of_run(cls, workdir: str | os.PathLike[str]) -> "Experiment":
        """Returns the experiment of a run directory.

        Raises:
            RunDirectoryError: it has none, or is one of find_ticket, whose model and data it does not hold.
        """
        config = recorded_config(workdir)
        config.strategy = "default"  # analyses go on in this process alone
        return cls(config)

    def directory(self, workdir: str | os.PathLike[str]) -> RunDirectory:
        """Returns the run directory of this experiment at that path."""
        return workdirs.directory(self.config, workdir)

    def search(self, store: ReplicateStore, listeners: Sequence[Listener] = ()) -> Iterator[Trained]:
        """Yields every network of the store's replicate, trained unless the store holds it."""
        return self._networks(
            store, lambda start: self.train(start, store.replicate, store=store, listeners=listeners)
        )

    def finished(self, store: ReplicateStore) -> Iterator[Trained]:
        """Yields the networks that the store holds, up to the first that it does not; trains none.

        Each has its whole `start`, with the optimizer's state, so that it can be trained again.
        """

        def load(start: Start) -> Trained | None:
            trained = store.load(start)
            if trained is None and store.failure(start) is None:
                raise _NotThere
            return trained

        try:
            yield from self._networks(store, load)
        except _NotThere:
            return

    def train(
        self,
        start: Start,
        replicate: int,
        *,
        order: Sequence[int | str] = (),
        store: ReplicateStore | None = None,
        listeners: Sequence[Listener] = (),
    ) -> Trained | None:
        """Trains one network as the search does; or, with `order`, on batches in another order.

        Returns None where the config gives up what becomes NaN, and the store keeps that it did.

        Args:
            start: what to train.
            replicate: 1-based; the data order depends on it.
            order: what else it depends on; nothing, for the order of the search.
            store: where the network is kept, and found if it was trained before.
            listeners: are told what happens.

        Raises:
            NonFiniteError: the loss or a weight became NaN or infinite, and the network is not given up.
        """
        train = self.config.train
        trainer = Trainer(
            self.model,
            self.loop,
            steps=train.steps,
            control_steps=train.control_steps or None,
            eval_every=train.eval_every_steps,
            order_key=(self.config.seed, replicate, *order),
            test_curves=train.test_curves,
            on_nan=train.on_nan if store else "stop",
            store=store,
            listeners=listeners,
        )
        return trainer(start)

    def plan(self, replicate: int) -> Plan:
        """Returns what is done between two trainings."""
        config, prune = self.config, self.config.prune
        return Plan(
            levels=prune.levels,
            fractions=self._fractions(),
            scope=prune.scope,
            structure=prune.structure,
            criterion=scores.resolve(prune.criterion),
            schedule=prune.schedule,
            rewinding=config_module.rewinding_of(config),
            controls=controls.resolve(config.controls),
            control_levels=config_module.levels_with_controls(config),
            key=(config.seed, replicate),
            epoch=math.ceil(inputs.steps_per_epoch(self.data.train, config.train.batch_size)),
        )

    def _networks(self, store: ReplicateStore, train: Train) -> Iterator[Trained]:
        plan, redraw, steps = self.plan(store.replicate), redraw_of(self.model), self.config.train
        drawn_for = 1 if self.config.same_init else store.replicate
        initial = store.initial(redraw(seeds.seed(self.config.seed, drawn_for, "init")))
        network = KerasNetwork(
            self.model, self.data.train, key=plan.key, steps=steps.steps, batch_size=steps.batch_size
        )
        return iterative_pruning(plan, train, initial, masks.ones(self.model.shapes), redraw, network)

    def _fractions(self) -> dict[str, float]:
        prune, shapes = self.config.prune, self.model.shapes
        paths, overrides = list(shapes), {}
        if prune.conv_fraction >= 0:
            convolutions = [path for path, shape in shapes.items() if len(shape) > 2]
            overrides = dict.fromkeys(convolutions, prune.conv_fraction)
        # Units of the last layer are the classes.
        output = 0.0 if prune.structure == "units" else prune.output_fraction
        return pruning.layer_fractions(paths, prune.fraction, {**overrides, paths[-1]: output})


class _NotThere(Exception):
    """The run has not come to that network yet."""


def recorded_config(workdir: str | os.PathLike[str]) -> ExperimentConfig:
    """Returns the config that a run directory was made with.

    Raises:
        RunDirectoryError: it has none, or is one of find_ticket.
    """
    path = paths.path(workdir).expanduser() / CONFIG
    with explaining("Name the workdir of 'tf-lottery run'."):
        entries = files.read_json(path)
        if not is_config(entries):
            raise ValueError(
                f"{os.fspath(path)!r} was written by find_ticket, and the run directory holds neither its "
                "model nor its data, which this analysis needs."
            )
        return config_of(entries)


def copy_of(config: ExperimentConfig) -> ExperimentConfig:
    """Returns a config with the same entries, not frozen."""
    entries = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    sections = {n: dataclasses.replace(e) for n, e in entries.items() if dataclasses.is_dataclass(e)}
    return ExperimentConfig(**{**entries, **sections})


def is_config(entries: Mapping[str, Any]) -> bool:
    """Whether these are the entries of a config, or what find_ticket writes in its place."""
    return "network" in entries


def config_of(entries: Mapping[str, Any]) -> ExperimentConfig:
    """Returns the config that has these entries, as `config.entries_of` gave and JSON kept them.

    An entry that there was not yet when the run was made has its default.

    Raises:
        AttributeError, TypeError, ValueError: they are not those of a config.
    """
    values = {}
    for field in dataclasses.fields(ExperimentConfig):
        if field.name in entries:
            value = entries[field.name]
            values[field.name] = _section(field.type, value) if isinstance(value, dict) else _entry(value)
    config = ExperimentConfig(**values)
    config_module.validate(config)
    return config


def _section(kind: type, entries: dict[str, Any]) -> Any:
    return kind(**{name: _entry(value) for name, value in entries.items()})


def _entry(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
