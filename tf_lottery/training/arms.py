"""What is trained at a level, before and after."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from tf_lottery.tickets import masks
from tf_lottery.tickets.rewinding import FINAL
from tf_lottery.training.history import SEARCH, TICKET, History, Result

Arrays = dict[str, np.ndarray]

# What happens to an arm whose numbers are not finite any more -> whether it is given up.
ON_NAN = {"stop": False, "skip": True}


@dataclasses.dataclass(frozen=True)
class Watch:
    """What may end a training before its last step.

    Attributes:
        every: steps between two looks.
        stop: takes the network's variables by path; True ends the training. It may remember
            what it saw, so an interrupted training that is watched starts anew.
    """

    every: int
    stop: Callable[[Arrays], bool]


@dataclasses.dataclass(frozen=True)
class Start:
    """A network about to be trained.

    Attributes:
        level: how often its mask was pruned.
        arm: `"ticket"`, the name of a control, or `"search"`, trained to find a mask.
        mask: path -> bool array.
        state: path -> array, every variable at `step`, the optimizer's too.
        step: the training step to go on from.
        frozen: whether pruned weights stay at their value in `state` instead of 0.
        resets_step: whether the optimizer's step counter is set to `step`; else it is what
            `state` has.
        until: the last step; None leaves it to the trainer.
        snapshots: steps at which every variable is copied; `FINAL` is the last one.
        watch: what may end the training early.
        search_steps: training steps that were spent to find the mask.
    """

    level: int
    arm: str
    mask: Arrays
    state: Arrays
    step: int = 0
    frozen: bool = False
    resets_step: bool = False
    until: int | None = None
    snapshots: frozenset[int] = frozenset()
    watch: Watch | None = None
    search_steps: int = 0

    @property
    def masked_state(self) -> Arrays:
        """What training starts from: the state with what the mask prunes at 0, or frozen."""
        return dict(self.state) if self.frozen else masks.apply(self.mask, self.state)

    @property
    def is_ticket(self) -> bool:
        return self.arm == TICKET

    @property
    def is_control(self) -> bool:
        return self.arm not in (TICKET, SEARCH)


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network after its training.

    Attributes:
        start: what it was trained from.
        final: path -> array, the network's variables after the last step.
        history: its metrics on the evaluation grid.
        snapshots: step -> every variable then, the optimizer's too, for what was asked for.
    """

    start: Start
    final: Arrays
    history: History
    snapshots: Mapping[int, Arrays] = dataclasses.field(default_factory=dict)

    @property
    def last_step(self) -> int:
        """The step that training ended at; where nobody counted, the one it started at."""
        return self.history.steps[-1] if self.history.steps else self.start.step

    def weights_at(self, step: int) -> Arrays:
        """Returns the network's variables at a step that a snapshot was asked of, or at the end."""
        return self.final if step == FINAL else self.snapshots[step]

    def result(self, replicate: int) -> Result:
        """Returns the numbers of this network, a row of results.csv."""
        history = self.history
        return Result(
            replicate=replicate,
            level=self.start.level,
            arm=self.start.arm,
            density=masks.density(self.start.mask),
            early_stop_step=history.early_stop_step,
            test_accuracy_at_early_stop=history.at_early_stop(f"test/{history.accuracy}"),
            min_validation_loss=history.at_early_stop("validation/loss"),
            final_test_accuracy=history.final(f"test/{history.accuracy}"),
            final_validation_accuracy=history.final(f"validation/{history.accuracy}"),
            last_step=history.steps[-1],
            test_accuracy_before_training=history.first(f"test/{history.accuracy}"),
            search_steps=self.start.search_steps,
            empty_layers=len(masks.empty_layers(self.start.mask)),
            final_training_accuracy=history.final(f"train/{history.accuracy}"),
            classes_predicted=history.classes_predicted,
        )
