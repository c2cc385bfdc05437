"""The driver: from a config to trained networks, a table, a figure and a verdict."""

import contextlib
import math
import pathlib
from collections.abc import Mapping
from typing import Any

from tf_lottery.analysis import tables, verdict
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import datasets, models
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.imp import iterative_pruning, redraw_of
from tf_lottery.search.network import KerasNetwork
from tf_lottery.search.plan import Plan
from tf_lottery.search.ticket import Ticket
from tf_lottery.tickets import controls, masks, pruning, scores, seeds
from tf_lottery.training import environment, inputs, runs
from tf_lottery.training.arms import Trained
from tf_lottery.training.history import Result
from tf_lottery.training.loop import Loop
from tf_lottery.training.tensorboard import TensorBoard
from tf_lottery.training.terminal import Terminal
from tf_lottery.training.timings import Timings
from tf_lottery.training.trainer import Trainer


def run(config: ExperimentConfig, workdir: str) -> list[Result]:
    """Trains every network of the experiment that the workdir does not hold yet.

    Args:
        config: the experiment; checked here.
        workdir: the run directory. A run that was stopped goes on; one that is
            finished is only reported.

    Returns:
        One `Result` per trained network, as in results.csv.

    Raises:
        ValueError: the config, the data or the workdir cannot be used, or the loss
            became NaN.
        OSError: the workdir cannot be written.
    """
    config_module.validate(config)
    data = datasets.load(
        config.data.name,
        data_dir=config.data.data_dir or None,
        input_scaling=config.data.input_scaling,
        validation_size=config.data.validation_size,
        seed=config.seed,
    )
    model = models.build(config, data)
    # Before the workdir is touched: what is wrong with the data or the model shows here.
    loop = _loop(config, model, data)
    entries = config_module.entries_of(config)
    directory = runs.RunDirectory(workdir, entries, extendable=config_module.EXTENDABLE)
    with directory.open(), contextlib.closing(_terminal(config)) as terminal:
        for replicate in range(1, config.replicates + 1):
            terminal.replicate = replicate if config.replicates > 1 else None
            with contextlib.closing(TensorBoard(directory.path / "tensorboard", replicate)) as tensorboard:
                timings = Timings(directory.path / "timings.csv", replicate)
                listeners = (terminal, tensorboard, timings)
                _search(config, model, data, loop, directory.replicate(replicate), listeners)
        directory.write_results()
    return runs.load_results(directory.path)


def report(workdir: str) -> str:
    """Writes the figure of a run and returns its table and verdict."""
    from tf_lottery.analysis import plots

    results = runs.load_results(workdir)
    figure = pathlib.Path(workdir) / "figures" / "search.png"
    plots.save(plots.plot_search(results), figure)
    return f"{tables.table(results)}\n\n{verdict.judge(results).sentence}"


def compare(folders: Mapping[str, str], workdir: str) -> str:
    """Writes the figures of a study, whose experiments have these run directories; returns its table."""
    from tf_lottery.analysis import plots, studies

    study = {name: runs.load_results(folder) for name, folder in folders.items()}
    figures = pathlib.Path(workdir) / "figures"
    plots.save(studies.plot_side_by_side(study), figures / "side_by_side.png")
    plots.save(studies.plot_together(study), figures / "together.png")
    return studies.table(study)


def _search(
    config: ExperimentConfig,
    model: MaskedModel,
    data: datasets.Data,
    loop: Loop,
    store: runs.ReplicateStore,
    listeners: tuple[Any, ...],
) -> None:
    epoch = math.ceil(inputs.steps_per_epoch(data.train, config.train.batch_size))
    plan = _plan(config, model, store.replicate, epoch)
    train = Trainer(
        model,
        loop,
        steps=config.train.steps,
        control_steps=config.train.control_steps or None,
        eval_every=config.train.eval_every_steps,
        order_key=plan.key,
        test_curves=config.train.test_curves,
        store=store,
        listeners=listeners,
    )
    provenance = {
        "versions": environment.versions(),
        "flavour": model.flavour,
        **plan.settings,
        "config": config_module.entries_of(config),
    }
    redraw = redraw_of(model)
    initial = store.initial(redraw(seeds.seed(*plan.key, "init")))
    network = KerasNetwork(
        model, data.train, key=plan.key, steps=config.train.steps, batch_size=config.train.batch_size
    )
    for trained in iterative_pruning(plan, train, initial, masks.ones(model.shapes), redraw, network):
        if trained.start.is_ticket:
            _ticket(plan, trained, provenance).save(store.folder(trained.start) / "ticket.safetensors")


def _plan(config: ExperimentConfig, model: MaskedModel, replicate: int, epoch: int) -> Plan:
    prune = config.prune
    return Plan(
        levels=prune.levels,
        fractions=_fractions(config, model),
        scope=prune.scope,
        structure=prune.structure,
        criterion=scores.resolve(prune.criterion),
        schedule=prune.schedule,
        rewinding=config_module.rewinding_of(config),
        controls=controls.resolve(config.controls),
        control_levels=config_module.levels_with_controls(config),
        key=(config.seed, replicate),
        epoch=epoch,
    )


def _fractions(config: ExperimentConfig, model: MaskedModel) -> dict[str, float]:
    prune, paths = config.prune, list(model.shapes)
    overrides = {}
    if prune.conv_fraction >= 0:
        convolutions = [path for path, shape in model.shapes.items() if len(shape) > 2]
        overrides = dict.fromkeys(convolutions, prune.conv_fraction)
    # Units of the last layer are the classes.
    output = 0.0 if prune.structure == "units" else prune.output_fraction
    return pruning.layer_fractions(paths, prune.fraction, {**overrides, paths[-1]: output})


def _ticket(plan: Plan, trained: Trained, provenance: dict[str, Any]) -> Ticket:
    start = trained.start
    return Ticket(
        mask=start.mask,
        weights=network_weights(start.state),
        level=start.level,
        rewind_step=start.step,
        method=plan.method,
        provenance=provenance,
    )


def _loop(config: ExperimentConfig, model: MaskedModel, data: datasets.Data) -> Loop:
    return Loop(
        model.model,
        data.train,
        {"validation": data.validation, "test": data.test},
        batch_size=config.train.batch_size,
        chunk=min(config.train.eval_every_steps, 100),
    )


def _terminal(config: ExperimentConfig) -> Terminal:
    tickets, controls = config_module.count_networks(config)
    control_steps = config.train.control_steps or config.train.steps
    searched = config.replicates * config.prune.levels if config.prune.schedule == "early_bird" else 0
    return Terminal((tickets + searched) * config.train.steps + controls * control_steps, config.controls)
