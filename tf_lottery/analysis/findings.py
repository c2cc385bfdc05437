"""What an analysis comes to, whatever it is: rows, text, figures and scalars."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tf_lottery.paths import Path

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Scalar:
    """A point of a curve in TensorBoard.

    Attributes:
        run: which line it is on, such as `"ticket"`.
        tag: which card it is on; what stands before its first slash is the group.
        step: where it is on the lower axis: a level, or a training step.
        value: its height.
    """

    run: str
    tag: str
    step: int
    value: float


@dataclasses.dataclass(frozen=True)
class Findings:
    """What an analysis comes to.

    Attributes:
        text: tables and sentences for people.
        rows: the lines of its CSV file, all with the same keys, which are the columns.
        figures: name of the file, without a suffix -> figure.
        scalars: what TensorBoard draws.
        files: what the analysis has written itself.
    """

    text: str
    rows: Sequence[Mapping[str, Any]] = ()
    figures: Mapping[str, "Figure"] = dataclasses.field(default_factory=dict)
    scalars: Sequence[Scalar] = ()
    files: Sequence[Path] = ()

    @property
    def is_text_alone(self) -> bool:
        """Whether there is nothing to write to files."""
        return not (self.rows or self.figures or self.scalars)


NOTHING_TRAINED = Findings("No network is trained yet.")
