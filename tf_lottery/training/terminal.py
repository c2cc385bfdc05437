"""Progress in the terminal: one live line, and one line for every network that is done."""

import math
import sys
from collections.abc import Sequence

import tqdm

from tf_lottery.tickets import masks
from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import Failure, History, Logs
from tf_lottery.training.listener import Listener


class _Bar(tqdm.tqdm):
    """A bar without the thread that tqdm would start, for as long as the process lives, to draw it."""

    monitor_interval = 0


class Terminal(Listener):
    """Shows how far a run is. The live line is left out where the output is no terminal.

    Args:
        steps: training steps of the whole run, as far as they are known.
        arms: the controls' names, for the width of their column.

    Attributes:
        replicate: shown where there are several; None hides it.
    """

    def __init__(self, steps: int, arms: Sequence[str] = ()):
        self._bar = _Bar(
            total=steps,
            miniters=1,
            unit=" steps",
            disable=None,
            leave=False,
            dynamic_ncols=True,
            file=sys.stdout,
            bar_format="{desc} |{bar:20}| {percentage:3.0f} %, {rate_fmt}, {remaining} left",
        )
        self._width = max(len(arm) for arm in (*arms, "ticket"))
        self._step: int | None = None  # of the network that is trained now
        self.replicate: int | None = None

    def started(self, start: Start, history: History) -> None:
        self._step = start.step
        self.stepped(start, history.steps[-1] if history.steps else start.step, {})

    def stepped(self, start: Start, step: int, logs: Logs) -> None:
        shown = f"{self._name(start)} {masks.density(start.mask):7.2%}  step {step:>6,}"
        self._bar.set_description_str(shown, refresh=False)
        self._reached(step)

    def finished(self, trained: Trained) -> None:
        start, history = trained.start, trained.history
        if self._step is None:  # it was trained in an earlier run
            self._step = start.step
        self._reached(history.steps[-1])
        self._step = None
        # Above the live line, where there is one.
        self._bar.write(
            f"{self._name(start)} {masks.density(start.mask):7.2%}  "
            f"early stop at step {history.early_stop_step:>6}{_metrics(history)}{_collapse(start)}",
            file=sys.stdout,
        )
        sys.stdout.flush()

    def given_up(self, start: Start, failure: Failure) -> None:
        self._step = None
        self._bar.write(f"{self._name(start)} {masks.density(start.mask):7.2%}  given up: {failure.seen}")
        sys.stdout.flush()

    def close(self) -> None:
        self._bar.close()

    def _reached(self, step: int) -> None:
        self._bar.update(step - self._step)
        self._step = step

    def _name(self, start: Start) -> str:
        replicate = "" if self.replicate is None else f"replicate {self.replicate}  "
        return f"{replicate}level {start.level:>2}  {start.arm:<{self._width}}"


def _collapse(start: Start) -> str:
    """Returns which layers have no weight left."""
    empty = masks.empty_layers(start.mask)
    return f"  layer collapse: {', '.join(empty)}" if empty else ""


def _metrics(history: History) -> str:
    """Returns accuracy at early stop; of a model without, loss and whatever metrics it has."""
    for data in ("test", "validation"):
        value = history.at_early_stop(f"{data}/{history.accuracy}")
        if not math.isnan(value):
            return f"  {data} accuracy {value:.2%}"
    names = [curve for curve in history.curves if curve.startswith("validation/")]
    return "".join(f"  {name.replace('/', ' ')} {history.at_early_stop(name):.4g}" for name in names)
