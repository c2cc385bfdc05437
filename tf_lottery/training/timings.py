"""How long each network took, beside the results and apart from them: times differ, results do not."""

import os
import time

from tf_lottery import files, paths
from tf_lottery.training import locks
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import Failure, History
from tf_lottery.training.listener import Listener

_COLUMNS = ("replicate", "level", "arm", "steps", "seconds")


class Timings(Listener):
    """Appends a row to a CSV file for each network that is trained here and now.

    Steps and seconds are those of this process: fewer than the network's where an
    earlier one was stopped in the middle.

    Args:
        path: the file; made where there is none.
        replicate: 1-based.
    """

    def __init__(self, path: str | os.PathLike[str], replicate: int):
        self._path = paths.path(path)
        self._replicate = replicate
        self._began: tuple[int, float] | None = None

    def started(self, start: Start, history: History) -> None:
        step = history.steps[-1] if history.steps else start.step
        self._began = step, time.monotonic()

    def given_up(self, start: Start, failure: Failure) -> None:
        self._began = None

    def finished(self, trained: Trained) -> None:
        if self._began is None:  # it was trained in an earlier run
            return
        step, began = self._began
        self._began = None
        start, seconds = trained.start, time.monotonic() - began
        row = (
            self._replicate,
            start.level,
            start.arm,
            trained.history.steps[-1] - step,
            f"{seconds:.3f}",
        )
        with locks.alone(self._path.parent):
            files.append_csv(self._path, _COLUMNS, row)
