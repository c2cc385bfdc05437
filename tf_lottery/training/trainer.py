"""Training one arm from its start to its last step, on the evaluation grid."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol

from tf_lottery import names
from tf_lottery.keras_api.masked_model import MaskedModel, network_weights
from tf_lottery.tickets.rewinding import FINAL
from tf_lottery.training.arms import ON_NAN, Arrays, Start, Trained
from tf_lottery.training.data import DataOrder
from tf_lottery.training.history import Failure, History, Logs
from tf_lottery.training.listener import Interrupted, Listener
from tf_lottery.training.loop import Loop
from tf_lottery.training.progress import Progress
from tf_lottery.training.streams import StreamOrder


class NonFiniteError(ValueError):
    """The loss or the weights of a network became NaN or infinite.

    Attributes:
        failure: of which, and when.
    """

    def __init__(self, failure: Failure):
        super().__init__(f"{failure}. Lower the learning rate, clip gradients, or look for NaN in the data.")
        self.failure = failure


class Store(Protocol):
    """Where trained networks are kept, so that a search can go on where it stopped."""

    def load(self, start: Start) -> Trained | None:
        """Returns the network if its training was finished before."""

    def failure(self, start: Start) -> Failure | None:
        """Returns why the network was given up, if it was."""

    def save_failure(self, failure: Failure) -> None:
        """Keeps that a network is given up."""

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
        on_nan: what happens to an arm whose loss or weights become NaN or infinite: `"stop"` raises an
            error, `"skip"` gives it up, and the others go on.
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
        on_nan: str = "stop",
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
        self._skips = names.find(on_nan, ON_NAN, "way to go on after NaN")
        self._store = store
        self._listeners = listeners

    def __call__(self, start: Start) -> Trained | None:
        """Trains `start` to the last step, or returns it from the store; None if it is given up.

        Raises:
            NonFiniteError: the loss or a weight became NaN or infinite, and the arm is not given up for it.
        """
        trained = self._store.load(start) if self._store else None
        if trained is None:
            failure = self._store.failure(start) if self._store and self._skips else None
            try:
                trained = None if failure else self._train(start)
            except NonFiniteError as error:
                if not self._skips:
                    raise
                failure = error.failure
                if self._store:
                    self._store.save_failure(failure)
            if failure:
                for listener in self._listeners:
                    listener.given_up(start, failure)
                return None
            if self._store:
                self._store.save(trained)
        for listener in self._listeners:
            listener.finished(trained)
        return trained

    def _train(self, start: Start) -> Trained:
        progress = self._store.load_progress(start) if self._goes_on(start) else None
        self._begin(start, progress)
        history, snapshots = (progress.history, dict(progress.snapshots)) if progress else (History(), {})
        for listener in self._listeners:
            listener.started(start, history)
        if not history.steps:
            self._evaluate(start, history, start.step, {})
        step = history.steps[-1]
        if progress and progress.since:
            step = progress.step
            self._loop.restore_metrics(progress.metrics)
        order = self._loop.order(*self._order_key, start.level)
        last, enough = self._last_step(start), False
        self._snap(start, step, snapshots)
        while step < last and not enough and not self._stopped():
            until = self._next_stop(start, step, last)
            step, logs = self._advance(start, history, snapshots, order, step, until)
            self._snap(start, step, snapshots)
            enough = self._watched_enough(start, step)
            if step % self._eval_every == 0 or step == last or enough or self._stopped():
                self._evaluate(start, history, step, logs)
                self._keep(start, history, snapshots)
        self._snap(start, FINAL, snapshots)
        if missed := start.snapshots - snapshots.keys():
            raise ValueError(
                f"The network of level {start.level} was stopped at step {step}, before step {min(missed)} "
                "whose weights the search needs. Stop it later, or give a lower rewind_step or score_step."
            )
        self._model.finalize()
        for listener in self._listeners:
            listener.ended(start)
        if f"validation/{history.accuracy}" in history.curves:
            history.classes_predicted = self._loop.soundness["validation"].classes_predicted()
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

    def _goes_on(self, start: Start) -> bool:
        """Whether the arm, if it is interrupted, goes on in the middle."""
        return self._store is not None and self._checkpoints and start.watch is None

    def _keep(
        self, start: Start, history: History, snapshots: Mapping[int, Arrays], step: int | None = None
    ) -> None:
        """Writes a checkpoint where one is due: after an evaluation, or at a `step` between two.

        Raises:
            Interrupted: training is to be left off here.
        """
        since = 0 if step is None else step - history.steps[-1]
        interrupted = any(listener.interrupts() for listener in self._listeners)
        if self._goes_on(start) and (not since or self._loop.pauses):
            if interrupted or self._store.wants_progress():
                metrics = self._loop.metrics_state() if since else ()
                progress = Progress(self._model.state(), history, snapshots, since, metrics)
                self._store.save_progress(start, progress)
        if interrupted:
            raise Interrupted

    def _advance(
        self,
        start: Start,
        history: History,
        snapshots: Mapping[int, Arrays],
        order: DataOrder | StreamOrder,
        step: int,
        until: int,
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
                raise NonFiniteError(_failure(start, history, step, f"The loss is {logs['loss']}"))
            for listener in self._listeners:
                listener.stepped(start, step, logs)
            if step < until:
                self._keep(start, history, snapshots, step)
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
            reason = f"The validation loss is {values['validation/loss']}"
            raise NonFiniteError(_failure(start, history, step, reason))
        if not self._loop.soundness["validation"].is_finite():  # a dead unit hides them from the loss
            raise NonFiniteError(_failure(start, history, step, "A weight is NaN or infinite"))
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


def _failure(start: Start, history: History, step: int, reason: str) -> Failure:
    good = [s for s, v in zip(history.steps, history.curves["validation/loss"]) if math.isfinite(v)]
    if good and good[-1] == step:  # the weights of which are not
        good.pop()
    return Failure(start.level, start.arm, step, reason, good[-1] if good else None)
