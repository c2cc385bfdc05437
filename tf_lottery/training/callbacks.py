"""Keras callbacks in a search: each network is to them what a `fit` is."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from tf_lottery.keras_api import flavour
from tf_lottery.training.arms import Start
from tf_lottery.training.history import History
from tf_lottery.training.loop import Logs
from tf_lottery.training.trainer import Listener

Callbacks = Sequence[Any] | Callable[[int, str], Sequence[Any]]


class KerasCallbacks(Listener):
    """Calls Keras callbacks as `fit` does with `steps_per_execution`.

    A batch, to a callback, is a chunk of steps, and an epoch is what lies between two
    evaluations: at its end there are `val_` logs. A callback that sets
    `model.stop_training` ends the network that is trained. Networks that a run directory
    holds already are not trained, and no callback hears of them.

    Args:
        model: the model that is trained.
        callbacks: callbacks of the model's own flavour, which hear of every network
            one after the other; or a function from level and arm to the callbacks of
            that network, `lambda level, arm: [CSVLogger(f"{level}_{arm}.csv")]`.
        steps: the step at which training ends.
        eval_every: steps between evaluations.

    Raises:
        TypeError: something is no callback, or one of the other Keras.
    """

    def __init__(self, model: Any, callbacks: Callbacks, *, steps: int, eval_every: int):
        self._model = model
        self._keras = flavour.keras_module(flavour.flavour_of(model))
        self._callbacks = callbacks
        self._steps = steps
        self._eval_every = eval_every
        self._logs: Logs = {}
        if not callable(callbacks):
            self._check(callbacks)

    def started(self, start: Start, history: History) -> None:
        callbacks = self._callbacks(start.level, start.arm) if callable(self._callbacks) else self._callbacks
        self._check(callbacks)
        self._list = self._keras.callbacks.CallbackList(
            list(callbacks),
            model=self._model,
            epochs=math.ceil((self._steps - start.step) / self._eval_every),
            steps=self._eval_every,
            verbose=0,
        )
        self._epoch, self._in_epoch = 0, False
        self._model.stop_training = False
        self._list.on_train_begin()

    def stepping(self, start: Start, step: int) -> None:
        if not self._in_epoch:
            self._in_epoch, self._first = True, step
            self._list.on_epoch_begin(self._epoch)
        self._list.on_train_batch_begin(step - self._first)

    def stepped(self, start: Start, step: int, logs: Logs) -> None:
        self._logs = logs
        self._list.on_train_batch_end(step - self._first - 1, dict(logs))

    def evaluated(self, start: Start, history: History) -> None:
        if not self._in_epoch:  # before the first step
            return
        prefix = "validation/"
        validation = {
            f"val_{name.removeprefix(prefix)}": curve[-1]
            for name, curve in history.curves.items()
            if name.startswith(prefix)
        }
        self._list.on_epoch_end(self._epoch, {**self._logs, **validation})
        self._epoch, self._in_epoch = self._epoch + 1, False

    def stops(self) -> bool:
        return bool(self._model.stop_training)

    def ended(self, start: Start) -> None:
        self._list.on_train_end(dict(self._logs))

    def _check(self, callbacks: Sequence[Any]) -> None:
        for callback in callbacks:
            if not isinstance(callback, self._keras.callbacks.Callback):
                raise TypeError(
                    f"The model is one of {self._keras.__name__}, and so must its callbacks be. Received: "
                    f"{type(callback).__module__}.{type(callback).__qualname__}."
                )
