"""Training one arm from its start to its last step, on the evaluation grid."""

import math
from collections.abc import Sequence
from typing import Protocol

from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.tickets.rewinding import FINAL
from tf_lottery.training.arms import Arrays, Start, Trained
from tf_lottery.training.data import DataOrder
from tf_lottery.training.history import History
from tf_lottery.training.loop import Logs, Loop
from tf_lottery.training.progress import Progress
from tf_lottery.training.streams import StreamOrder


class NonFiniteLossError(ValueError):
    """The loss of a network became NaN or infinite."""


class Listener:
    """Hears what happens in training. Override what is of interest."""

    def started(self, start: Start, history: History) -> None:
        """An arm starts, or goes on where `history` ends."""

    def stepping(self, start: Start, step: int) -> None:
        """A chunk of steps begins after `step`."""

    def stepped(self, start: Start, step: int, logs: Logs) -> None:
        """A chunk of steps is done; `logs` are the metrics since the last evaluation."""

    def evaluating(self, start: Start, step: int) -> None:
        """The network is about to be evaluated, as it is after `step`."""

    def evaluated(self, start: Start, history: History) -> None:
        """The last entry of `history` is new."""

    def stops(self) -> bool:
        """Whether the arm that is trained now is to end here."""
        return False

    def ended(self, start: Start) -> None:
        """The last step is done. What is changed in the model now belongs to the result."""

    def finished(self, trained: Trained) -> None:
        """An arm is done, now or in an earlier run."""


class Store(Protocol):
    """Where trained networks are kept, so that a search can go on where it stopped."""

    def load(self, start: Start) -> Trained | None:
        """Returns the network if its training was finished before."""

    def load_progress(self, start: Start) -> Progress | None:
        """Returns the last checkpoint of an unfinished training."""

    def wants_progress(self) -> bool:
        """Whether it is time for another checkpoint."""

    def save_progress(self, start: Start, progress: Progress) -> None:
        """Keeps a checkpoint."""

    def save(self, trained: Trained) -> None:
        """Keeps a trained network."""


class Trainer:
    """Trains arms of one replicate with one compiled loop.

    Args:
        model: the network.
        loop: its compiled loop, with evaluation data `"validation"` and maybe `"test"`.
        steps: the step at which training ends.
        control_steps: the same for controls; None for as many.
        eval_every: steps between evaluations; the last step is evaluated too.
        order_key: what the data order depends on beside the level: seed, replicate.
        test_curves: whether the test data are evaluated each time, or only where the
            validation loss is lower than before, and at the end. The results are the
            same; the curves have gaps (NaN), and evaluation costs about a third.
        checkpoints: whether an arm goes on in the middle. Without them it is trained
            again from its start, as listeners need it that have a memory of their own.
        store: where trained networks are kept; None keeps nothing.
        listeners: are told what happens.
    """

    def __init__(
        self,
        model: MaskedModel,
        loop: Loop,
        *,
        steps: int,
        control_steps: int | None = None,
        eval_every: int,
        order_key: Sequence[int | str],
        test_curves: bool = True,
        checkpoints: bool = True,
        store: Store | None = None,
        listeners: Sequence[Listener] = (),
    ):
        self._model = model
        self._loop = loop
        self._steps = steps
        self._control_steps = steps if control_steps is None else control_steps
        self._eval_every = eval_every
        self._order_key = tuple(order_key)
        self._test_curves = test_curves
        self._checkpoints = checkpoints
        self._store = store
        self._listeners = listeners

    def __call__(self, start: Start) -> Trained:
        """Trains `start` to the last step, or returns it from the store.

        Raises:
            NonFiniteLossError: the loss became NaN or infinite.
        """
        trained = self._store.load(start) if self._store else None
        if trained is None:
            trained = self._train(start)
            if self._store:
                self._store.save(trained)
        for listener in self._listeners:
            listener.finished(trained)
        return trained

    def _train(self, start: Start) -> Trained:
        goes_on = self._store is not None and self._checkpoints and start.watch is None
        progress = self._store.load_progress(start) if goes_on else None
        self._begin(start, progress)
        history, snapshots = (progress.history, dict(progress.snapshots)) if progress else (History(), {})
        for listener in self._listeners:
            listener.started(start, history)
        if not history.steps:
            self._evaluate(start, history, start.step, {})
        step = history.steps[-1]
        order = self._loop.order(*self._order_key, start.level)
        last, enough = self._last_step(start), False
        self._snap(start, step, snapshots)
        while step < last and not enough and not self._stopped():
            until = self._next_stop(start, step, last)
            step, logs = self._advance(start, history, order, step, until)
            self._snap(start, step, snapshots)
            enough = self._watched_enough(start, step)
            if step % self._eval_every == 0 or step == last or enough or self._stopped():
                self._evaluate(start, history, step, logs)
                if goes_on and self._store.wants_progress():
                    self._store.save_progress(start, Progress(self._model.state(), history, snapshots))
        self._snap(start, FINAL, snapshots)
        if missed := start.snapshots - snapshots.keys():
            raise ValueError(
                f"The network of level {start.level} was stopped at step {step}, before step {min(missed)} "
                "whose weights the search needs. Stop it later, or give a lower rewind_step or score_step."
            )
        self._model.finalize()
        for listener in self._listeners:
            listener.ended(start)
        return Trained(start, network_weights(self._model.state()), history, snapshots)

    def _begin(self, start: Start, progress: Progress | None) -> None:
        self._model.restore(progress.state if progress else start.masked_state)
        self._model.set_mask(start.mask, start.frozen)
        if start.resets_step and not progress:
            self._model.set_step(start.step)

    def _snap(self, start: Start, step: int, snapshots: dict[int, Arrays]) -> None:
        if step in start.snapshots and step not in snapshots:
            snapshots[step] = self._model.state()

    def _watched_enough(self, start: Start, step: int) -> bool:
        due = start.watch is not None and step % start.watch.every == 0
        return due and start.watch.stop(network_weights(self._model.state()))

    def _advance(
        self, start: Start, history: History, order: DataOrder | StreamOrder, step: int, until: int
    ) -> tuple[int, Logs]:
        """Trains from `step` to `until` in chunks; returns the step reached and the metrics.

        The metrics are those since the last evaluation.
        """
        if step == history.steps[-1]:
            self._loop.reset_metrics()
        while step < until and not self._stopped():
            for listener in self._listeners:
                listener.stepping(start, step)
            count = min(self._loop.chunk, until - step)
            logs = self._loop.train(order.batches(step, count))
            step += count
            if not math.isfinite(logs.get("loss", 0.0)):
                raise NonFiniteLossError(_non_finite(start, history, step, logs["loss"]))
            for listener in self._listeners:
                listener.stepped(start, step, logs)
        return step, logs

    def _stopped(self) -> bool:
        return any(listener.stops() for listener in self._listeners)

    def _evaluate(self, start: Start, history: History, step: int, train_logs: Logs) -> None:
        for listener in self._listeners:
            listener.evaluating(start, step)
        values = {f"train/{name}": value for name, value in train_logs.items()}
        lowest = min(history.curves.get("validation/loss", [math.inf]))
        values |= self._look_at("validation")
        # Where early stopping may turn out to be: at a validation loss lower than any before.
        if self._test_curves or values["validation/loss"] < lowest or step == self._last_step(start):
            values |= self._look_at("test")
        history.add(step, values)
        if not math.isfinite(values["validation/loss"]):
            raise NonFiniteLossError(_non_finite(start, history, step, values["validation/loss"]))
        for listener in self._listeners:
            listener.evaluated(start, history)

    def _look_at(self, data: str) -> Logs:
        if data not in self._loop.evaluation_names:
            return {}
        logs = self._loop.evaluate(data)
        if "loss" not in logs:
            raise ValueError(
                f"Early stopping goes by the validation loss, and the model's test_step returns no 'loss': "
                f"it returns {', '.join(logs) or 'nothing'}."
            )
        return {f"{data}/{name}": value for name, value in logs.items()}

    def _last_step(self, start: Start) -> int:
        if start.until is not None:
            return start.until
        return self._control_steps if start.is_control else self._steps

    def _next_stop(self, start: Start, step: int, last: int) -> int:
        """Returns the next step at which there is something to do beside training."""
        grids = [self._eval_every] + ([start.watch.every] if start.watch else [])
        stops = [step + every - step % every for every in grids] + [s for s in start.snapshots if s > step]
        return min(*stops, last)


def _non_finite(start: Start, history: History, step: int, loss: float) -> str:
    good = [s for s, v in zip(history.steps, history.curves["validation/loss"]) if math.isfinite(v)]
    last = f"the last good evaluation was at step {good[-1]}" if good else "no evaluation was good"
    return (
        f"The loss is {loss} at step {step} of level {start.level}, arm {start.arm!r}; {last}. "
        "Lower the learning rate, clip gradients, or look for NaN in the data."
    )
