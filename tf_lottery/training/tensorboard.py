"""TensorBoard scalars of every network and, by level, of every arm."""

import math
import pathlib
import shutil

import tensorflow as tf

from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import History
from tf_lottery.training.trainer import Listener


class TensorBoard(Listener):
    """Writes events while a search runs.

    Each network is a run of its own, `replicate_1/level_07/ticket`, with its curves
    against the step. Each arm is one too, `replicate_1/by_level/ticket`, with early-stop
    step, accuracies and density against the level. A network that is trained again, or
    gone on with, replaces its events.

    Args:
        folder: where the event files go.
        replicate: 1-based.
    """

    def __init__(self, folder: pathlib.Path, replicate: int):
        self._folder = folder / f"replicate_{replicate}"
        self._replicate = replicate
        self._curves: tf.summary.SummaryWriter | None = None
        self._arms: dict[str, tf.summary.SummaryWriter] = {}

    def started(self, start: Start, history: History) -> None:
        self._curves = _new_writer(self._folder / f"level_{start.level:02d}" / start.arm)
        for index in range(len(history.steps)):
            self._write_evaluation(history, index)

    def evaluated(self, start: Start, history: History) -> None:
        self._write_evaluation(history, -1)

    def finished(self, trained: Trained) -> None:
        if self._curves is not None:
            self._curves.close()
            self._curves = None
        arm = trained.start.arm
        if arm not in self._arms:
            self._arms[arm] = _new_writer(self._folder / "by_level" / arm)
        result = trained.result(self._replicate)
        values = {
            "early_stop_step": result.early_stop_step,
            "test_accuracy_at_early_stop": result.test_accuracy_at_early_stop,
            "final_test_accuracy": result.final_test_accuracy,
            "min_validation_loss": result.min_validation_loss,
            "test_accuracy_before_training": result.test_accuracy_before_training,
            "density": result.density,
            "search_steps": result.search_steps,
        }
        _write(self._arms[arm], {f"by_level/{k}": v for k, v in values.items()}, trained.start.level)
        self._arms[arm].flush()

    def close(self) -> None:
        for writer in [*self._arms.values(), *([self._curves] if self._curves else [])]:
            writer.close()

    def _write_evaluation(self, history: History, index: int) -> None:
        values = {name: curve[index] for name, curve in history.curves.items()}
        _write(self._curves, values, history.steps[index])


def _new_writer(folder: pathlib.Path) -> tf.summary.SummaryWriter:
    shutil.rmtree(folder, ignore_errors=True)
    return tf.summary.create_file_writer(str(folder))


def _write(writer: tf.summary.SummaryWriter, values: dict[str, float], step: int) -> None:
    with writer.as_default(step):
        for name, value in values.items():
            if math.isfinite(value):
                tf.summary.scalar(name, value)
