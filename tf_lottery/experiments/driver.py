"""The driver: from a config to trained networks and their tickets."""

import collections
import contextlib
from collections.abc import Sequence

from tf_lottery.analysis.tensorboard import TensorBoard
from tf_lottery.experiments import config as config_module
from tf_lottery.experiments import stopping, workdirs
from tf_lottery.experiments.config import ExperimentConfig
from tf_lottery.experiments.experiment import Experiment
from tf_lottery.keras_api.masked_model import network_weights
from tf_lottery.search.ticket import Ticket
from tf_lottery.training import environment, recorded
from tf_lottery.training.history import Result
from tf_lottery.training.listener import Listener
from tf_lottery.training.replicas import explaining_lost_workers
from tf_lottery.training.runs import ReplicateStore
from tf_lottery.training.terminal import Terminal
from tf_lottery.training.timings import Timings
from tf_lottery.training.workers import SharedStore, Workers


@explaining_lost_workers()
def run(
    config: ExperimentConfig, workdir: str, replicates: Sequence[int] | None = None, tpu: str = ""
) -> list[Result]:
    """Trains every network of the experiment that the workdir does not hold yet.

    Several processes, on machines that see the workdir, may do so at once: each replicate is
    trained by one, and if that dies by another. What others are at work on is left to them. Of
    workers that train every network together (`strategies.make`) the chief alone looks at the workdir.

    Args:
        config: the experiment; checked here.
        workdir: the run directory. A run that was stopped goes on; one that is
            finished is only reported.
        replicates: those to train, 1-based, of which what others finish is not told; None for all.
        tpu: the name or address of the TPU to train on; empty for none.

    Returns:
        One `Result` per trained network, as in results.csv; on workers that are not the chief none.

    Raises:
        ValueError: the config, the data or the workdir cannot be used, or the loss
            became NaN; or other processes are at work on all that is left.
        OSError: the workdir cannot be written, or a worker or TPU cannot be reached, or has stopped.
    """
    # Before the workdir is touched: what is wrong with the data or the model shows here.
    experiment = Experiment(config, tpu)
    loop = experiment.loop  # made by all workers together
    workers = Workers(loop.replicas.strategy)
    if not workers.is_chief:
        for store in workers.follow(iter(())):
            collections.deque(experiment.search(store), maxlen=0)
        return []
    shared = workdirs.claims(config, workdir, replicates)
    directory, plan = shared.directory, experiment.plan(1)
    directory.check()
    shared.check()
    directory.open()
    tensorboard = TensorBoard(directory.path, plan.arms, plan.hyperparameters)
    with (
        stopping.saving() if workers.count == 1 else contextlib.nullcontext(),
        contextlib.closing(_terminal(config)) as terminal,
        contextlib.closing(tensorboard),
        contextlib.closing(shared.claimed(finished=replicates is None)) as stores,
    ):
        for store in workers.follow(stores):
            terminal.replicate = store.replicate if config.replicates > 1 else None
            tensorboard.replicate = store.replicate
            timings = Timings(directory.path / "timings.csv", store.replicate)
            _search(experiment, store, (terminal, tensorboard, timings, _Leaving()))
        directory.write_results()
    return recorded.results(directory.path)


class _Leaving(Listener):
    """Leaves training off when the process is told to stop."""

    def interrupts(self) -> bool:
        return stopping.told()


def _search(
    experiment: Experiment, store: ReplicateStore | SharedStore, listeners: tuple[Listener, ...]
) -> None:
    plan = experiment.plan(store.replicate)
    provenance = {
        "versions": environment.versions(),
        "flavour": experiment.model.flavour,
        **plan.settings,
        "config": config_module.entries_of(experiment.config),
    }
    for trained in experiment.search(store, listeners):
        start = trained.start
        if start.is_ticket:
            ticket = Ticket(
                mask=start.mask,
                weights=network_weights(start.state),
                level=start.level,
                rewind_step=start.step,
                method=plan.method,
                provenance=provenance,
            )
            ticket.save(store.file(start, "ticket.safetensors"))


def _terminal(config: ExperimentConfig) -> Terminal:
    tickets, controls = config_module.count_networks(config)
    control_steps = config.train.control_steps or config.train.steps
    searched = config.replicates * config.prune.levels if config.prune.schedule == "early_bird" else 0
    return Terminal((tickets + searched) * config.train.steps + controls * control_steps, config.controls)
