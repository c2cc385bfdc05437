"""What is told of trainings as they go on, and may end them."""

from tf_lottery.training.arms import Start, Trained
from tf_lottery.training.history import Failure, History, Logs


class Interrupted(KeyboardInterrupt):
    """Training was left off as a listener asked for; what is done is kept, and goes on another time."""


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

    def interrupts(self) -> bool:
        """Whether all training is to be left off here, to go on another time."""
        return False

    def ended(self, start: Start) -> None:
        """The last step is done. What is changed in the model now belongs to the result."""

    def finished(self, trained: Trained) -> None:
        """An arm is done, now or in an earlier run."""

    def given_up(self, start: Start, failure: Failure) -> None:
        """An arm is given up, now or in an earlier run."""
