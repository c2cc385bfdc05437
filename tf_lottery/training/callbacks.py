"""Keras callbacks in a search: each network is to them what a `fit` is."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from tf_lottery.keras_api import flavour
from tf_lottery.training.arms import Start
from tf_lottery.training.history import History, Logs
from tf_lottery.training.listener import Listener

Callbacks = Any | Sequence[Any] | Callable[[int, str], Any]


class KerasCallbacks(Listener):
    """Calls Keras callbacks as `fit` does with `steps_per_execution`.

    A batch, to a callback, is a chunk of steps, and an epoch is what lies between two
    evaluations: at its end there are `val_` logs. The evaluation on the validation data
    is a test without batches. A callback that sets `model.stop_training` ends the network
    that is trained. Networks that a run directory holds already are not trained, and no
    callback hears of them.

    Args:
        model: the model that is trained.
        callbacks: one callback of the model's own flavour, or several, which hear of every
            network one after the other; or a function from level and arm to the callbacks of
            that network, `lambda level, arm: [CSVLogger(f"{level}_{arm}.csv")]`.
        steps: the step at which training ends.
        eval_every: steps between evaluations.

    Raises:
        TypeError: something is no callback, or one of the other Keras.
        ValueError: a callback that keeps the state of one `fit`, and not of a search.
    """

    def __init__(self, model: Any, callbacks: Callbacks, *, steps: int, eval_every: int):
        self._model = model
        self._keras = flavour.keras_module(flavour.flavour_of(model))
        self._callbacks = callbacks
        self._steps = steps
        self._eval_every = eval_every
        self._list: Any = None
        if not callable(callbacks):
            self._checked(callbacks)

    def started(self, start: Start, history: History) -> None:
        callbacks = self._callbacks(start.level, start.arm) if callable(self._callbacks) else self._callbacks
        self._list = self._keras.callbacks.CallbackList(
            self._checked(callbacks),
            model=self._model,
            epochs=math.ceil(self._steps / self._eval_every),
            steps=self._eval_every,
            verbose=0,
        )
        # After a rewind as in the training that is rewound: a schedule by epoch goes on from there.
        self._epoch, self._in_epoch = start.step // self._eval_every, False
        self._logs: Logs = {}
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

    def evaluating(self, start: Start, step: int) -> None:
        if self._in_epoch:
            self._list.on_test_begin()

    def evaluated(self, start: Start, history: History) -> None:
        if not self._in_epoch:  # before the first step
            return
        prefix = "validation/"
        validation = {
            name.removeprefix(prefix): curve[-1]
            for name, curve in history.curves.items()
            if name.startswith(prefix)
        }
        self._list.on_test_end(dict(validation))
        self._logs = {**self._logs, **{f"val_{name}": value for name, value in validation.items()}}
        self._list.on_epoch_end(self._epoch, self._logs)
        self._epoch, self._in_epoch = self._epoch + 1, False

    def stops(self) -> bool:
        return bool(self._model.stop_training)

    def ended(self, start: Start) -> None:
        self._list.on_train_end(self._logs)

    def close(self) -> None:
        """Ends the threads of Keras 3's own that call callbacks, where training ended with an error."""
        executor = getattr(self._list, "_executor", None)
        if executor is not None:
            executor.shutdown()

    def _checked(self, callbacks: Any) -> list[Any]:
        found = [] if callbacks is None else tf.nest.flatten(callbacks)
        for callback in found:
            name = f"{type(callback).__module__}.{type(callback).__qualname__}"
            if not isinstance(callback, self._keras.callbacks.Callback):
                raise TypeError(
                    f"The model is one of {self._keras.__name__}, and so must its callbacks be: expected a "
                    f"{self._keras.__name__}.callbacks.Callback. Received: {name}."
                )
            if isinstance(callback, self._keras.callbacks.BackupAndRestore):
                raise ValueError(
                    f"{name} would bring one network's weights back into another. Leave it out, and give "
                    "find_ticket a workdir: an interrupted search goes on from there."
                )
        return found


def names(callbacks: Callbacks | None) -> list[str]:
    """Returns what tells one set of callbacks from another."""
    if callable(callbacks):
        return [getattr(callbacks, "__name__", type(callbacks).__name__)]
    return [type(callback).__name__ for callback in tf.nest.flatten(callbacks or ())]
