"""One search on one model: its networks trained, kept and judged, and its ticket left on the model."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any

from tf_lottery.analysis import verdict
from tf_lottery.analysis.tensorboard import TensorBoard
from tf_lottery.keras_api import own_errors
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.search.imp import iterative_pruning, redraw_of
from tf_lottery.search.network import KerasNetwork
from tf_lottery.search.plan import Plan
from tf_lottery.search.ticket import Ticket
from tf_lottery.training import environment, inputs
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.callbacks import Callbacks, KerasCallbacks, names
from tf_lottery.training.listener import Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.replicas import explaining_lost_workers
from tf_lottery.training.runs import InUseError, ReplicateStore, RunDirectory
from tf_lottery.training.terminal import Terminal
from tf_lottery.training.timings import Timings
from tf_lottery.training.trainer import Trainer
from tf_lottery.training.workers import SharedStore, Workers

REPLICATE = 1
_EXTENDABLE = ("levels", "controls")  # what only adds networks to a finished search


@dataclasses.dataclass(frozen=True)
class Session:
    """What a search needs to know.

    Attributes:
        masked: the model, as the search finds and leaves it.
        plan: levels, criterion, controls and so on.
        sources: `"training"`, `"validation"` and maybe `"test"` data.
        batch_size: examples in one step, of training data in memory.
        steps: optimizer updates for each network.
        eval_every: steps between evaluations.
        callbacks: Keras callbacks, a function that makes them, or None.
    """

    masked: MaskedModel
    plan: Plan
    sources: Mapping[str, inputs.Source]
    batch_size: int
    steps: int
    eval_every: int
    callbacks: Callbacks | None = None

    @explaining_lost_workers()
    def run(self, workdir: str | os.PathLike[str] | None, verbose: str | int) -> Ticket:
        """Searches, and leaves the model as the ticket that is returned.

        Raises:
            ConnectionError: one of several workers has stopped.
        """
        settings = self._settings()
        workers = Workers(self.masked.model.distribute_strategy)
        workers.agree({**settings, "workdir": "none" if workdir is None else "one"})
        evaluation = {name: source for name, source in self.sources.items() if name != "training"}
        loop = Loop(
            self.masked.model,
            self.sources["training"],
            evaluation,
            batch_size=self.batch_size,
            chunk=min(self.eval_every, 100),
        )
        with contextlib.ExitStack() as stack:
            listeners = self._terminal(stack, verbose if workers.is_chief else 0)
            store = None
            if workdir is not None:
                kept = self._store(stack, workdir, settings, listeners) if workers.is_chief else None
                store = workers.share(kept, REPLICATE)
            if self.callbacks:
                lengths = {"steps": self.steps, "eval_every": self.eval_every}
                heard = KerasCallbacks(self.masked.model, self.callbacks, **lengths)
                listeners.append(stack.enter_context(contextlib.closing(heard)))
            trainer = Trainer(
                self.masked,
                loop,
                steps=self.steps,
                eval_every=self.eval_every,
                order_key=self.plan.key,
                checkpoints=not self.callbacks,
                store=store,
                listeners=listeners,
            )
            return self._search(trainer, store, {"versions": environment.versions(), **settings})

    def _search(
        self, trainer: Trainer, store: ReplicateStore | SharedStore | None, provenance: Mapping[str, Any]
    ) -> Ticket:
        masked = self.masked
        if masked.step:  # a network starts with a fresh optimizer
            masked.reset_optimizer()
        fresh = masked.state()
        initial = store.initial(fresh) if store else fresh
        results, history = [], []
        starts: dict[int, Start] = {}
        network = KerasNetwork(
            masked,
            self.sources["training"],
            key=self.plan.key,
            steps=self.steps,
            batch_size=self.batch_size,
        )
        search = iterative_pruning(self.plan, trainer, initial, masked.mask(), redraw_of(masked), network)
        for trained in search:
            if trained.start.is_ticket:
                # Of the levels that are done, one alone can still turn out to be the one.
                chosen = [verdict.judge(results).level] if results else []
                starts = {level: starts[level] for level in chosen} | {trained.start.level: trained.start}
            results.append(trained.result(REPLICATE))
            history.append({**vars(results[-1]), "metrics": _metrics(trained)})
        judged = verdict.judge(results)
        start = starts[judged.level]
        masked.restore(start.masked_state)
        masked.set_mask(start.mask)
        if start.resets_step:
            masked.set_step(start.step)
        return Ticket(
            mask=start.mask,
            weights=network_weights(start.state),
            level=start.level,
            rewind_step=start.step,
            method=self.plan.method,
            verdict=judged.sentence,
            history=tuple(history),
            provenance=provenance,
        )

    def _settings(self) -> dict[str, Any]:
        """Returns what determines the results, for a run directory to compare and a ticket to tell."""
        optimizer = self.masked.optimizer
        return {
            "flavour": self.masked.flavour,
            "shapes": {path: list(shape) for path, shape in self.masked.shapes.items()},
            "optimizer": type(optimizer).__name__,
            "optimizer_config": {k: repr(v) for k, v in optimizer.get_config().items() if k != "name"},
            "loss": _names(self.masked.model.loss),
            "data": {name: inputs.digest(source) for name, source in self.sources.items()},
            "batch_size": self.batch_size,
            "steps": self.steps,
            "eval_every": self.eval_every,
            "callbacks": names(self.callbacks),
            **self.plan.settings,
        }

    def _terminal(self, stack: contextlib.ExitStack, verbose: str | int) -> list[Listener]:
        if verbose not in ("auto", 0, 1):
            raise ValueError(f"verbose must be 0, 1 or 'auto'. Received {verbose!r}.")
        if not verbose:
            return []
        searched = self.plan.schedule == "early_bird"
        networks = self.plan.levels * (1 + searched + len(self.plan.controls)) + 1
        terminal = Terminal(networks * self.steps, self.plan.controls)
        return [stack.enter_context(contextlib.closing(terminal))]

    def _store(
        self,
        stack: contextlib.ExitStack,
        workdir: str | os.PathLike[str],
        settings: Mapping[str, Any],
        listeners: list[Listener],
    ) -> ReplicateStore:
        run = RunDirectory(workdir, settings, extendable=_EXTENDABLE)
        run.check()
        store = run.replicate(REPLICATE)
        if holder := store.holder():  # whose config must stay as it is
            raise InUseError(run.path, holder)
        run.open()
        stack.enter_context(store.claimed())
        stack.push(_at_end(run.write_results))
        tensorboard = TensorBoard(run.path, self.plan.arms, self.plan.hyperparameters)
        listeners.append(stack.enter_context(contextlib.closing(tensorboard)))
        stack.push(_at_end(tensorboard.write_report))
        listeners.append(Timings(run.path / "timings.csv", REPLICATE))
        return store


def _at_end(call: Callable[[], None]) -> Callable[..., None]:
    """Returns what ends a block with a call, whose error does not take the place of the block's own."""

    def end(_: Any, error: BaseException | None, __: Any) -> None:
        with own_errors.beside(error):
            call()

    return end


def _names(loss: Any) -> Any:
    """Returns a loss, or a list or dict of losses, as JSON can hold it: Keras has kinds of its own."""
    if isinstance(loss, Mapping):
        return {str(name): _names(one) for name, one in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [_names(one) for one in loss]
    unnamed = loss if isinstance(loss, str | None) else type(loss).__name__  # of others str has an address
    return str(getattr(loss, "name", getattr(loss, "__name__", unnamed)))


def _metrics(trained: Trained) -> dict[str, float]:
    """Returns every metric that the model was compiled with, at the early-stop step."""
    return {curve: trained.history.at_early_stop(curve) for curve in trained.history.curves}
