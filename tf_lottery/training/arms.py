"""What is trained at a level, before and after."""

import dataclasses

import numpy as np

from tf_lottery.tickets import masks
from tf_lottery.training.history import TICKET, History, Result

Arrays = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Start:
    """A network about to be trained.

    Attributes:
        level: how often its mask was pruned.
        arm: `"ticket"`, or the name of a control.
        mask: path -> bool array.
        state: path -> array, every variable at `step`, the optimizer's too.
        step: the training step that `state` is of.
    """

    level: int
    arm: str
    mask: Arrays
    state: Arrays
    step: int = 0

    @property
    def masked_state(self) -> Arrays:
        """The state with what the mask prunes at 0: what training starts from."""
        return masks.apply(self.mask, self.state)

    @property
    def is_ticket(self) -> bool:
        return self.arm == TICKET


@dataclasses.dataclass(frozen=True)
class Trained:
    """A network after its training.

    Attributes:
        start: what it was trained from.
        final: path -> array, the network's variables after the last step.
        history: its metrics on the evaluation grid.
        snapshot: every variable at the rewind step, the optimizer's too; None
            where no snapshot was asked for.
    """

    start: Start
    final: Arrays
    history: History
    snapshot: Arrays | None = None

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
        )
